"""Between the runner and a labeler: what it may see, and whether what it returns keeps the contract."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from cpmi_eval.errors import UsageError
from cpmi_eval.protocols import Backend, Labeler
from cpmi_eval.types import Failure, Scored, StepScores, Trace, TraceFailure

log = logging.getLogger(__name__)


def score_batch(labeler: Labeler, traces: Sequence[Trace], backend: Backend | None) -> dict[str, Scored]:
    """Score traces through a labeler that sees only what it declared; hold it to its contract.

    A labeler that raises on a batch is given the traces one by one, so that one bad trace costs one row.
    """
    visible = [trace if "answer" in labeler.needs else replace(trace, answer=None) for trace in traces]
    try:
        results: dict[str, Scored] = {}
        for result in labeler.score(visible, backend):
            results[result.trace_id] = checked(result)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - any plug-in's bug on one trace is that trace's failure
        if len(traces) > 1:
            log.warning("%s: %s; its %d traces are scored one by one", type(error).__name__, error, len(traces))
            return {trace.id: score_batch(labeler, [trace], backend)[trace.id] for trace in traces}
        log.warning("trace %s: %s: %s", traces[0].id, type(error).__name__, error)
        failure = Failure("exception", f"{type(error).__name__}: {error}")
        return {traces[0].id: TraceFailure(traces[0].id, failure)}
    strangers = results.keys() - {trace.id for trace in traces}
    if strangers:
        log.warning("the labeler scored traces it was not given: %s", ", ".join(sorted(map(str, strangers))))
    return {trace.id: matched(trace, results.get(trace.id)) for trace in traces}


def matched(trace: Trace, result: Scored | None) -> Scored:
    """Return a result that has one score per step, or the failure that says what is amiss."""
    if result is None:
        return TraceFailure(trace.id, Failure("missing", "the labeler returned nothing for this trace"))
    if isinstance(result, StepScores) and len(result.values) != len(trace.steps):
        message = f"{len(result.values)} scores for {len(trace.steps)} steps"
        return TraceFailure(trace.id, Failure("wrong_count", message), result.tokens)
    own = result.prediction if isinstance(result, StepScores) else None
    if own is not None and not -1 <= own < len(trace.steps):
        return TraceFailure(trace.id, Failure("bad_output", f"a prediction of {own}"), result.tokens)
    return result


def checked(result: Scored) -> Scored:
    """Return a result whose scores are finite floats and whose details can be stored, or a failure."""
    try:
        json.dumps([result.details, result.samples], ensure_ascii=False, allow_nan=False).encode()
        if isinstance(result, TraceFailure):
            return result
        values = tuple(float(value) for value in result.values)
    except (TypeError, ValueError, RecursionError) as error:
        kept = Failure("bad_output", f"what the labeler returned cannot be stored: {error}")
        return TraceFailure(result.trace_id, kept, result.tokens)
    if not all(map(math.isfinite, values)):
        return TraceFailure(result.trace_id, Failure("non_finite", f"scores {values}"), result.tokens)
    return replace(result, values=values)
