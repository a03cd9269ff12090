"""A paired comparison of runs as tables: the runs, each with a letter, and then a row for each comparison."""

from __future__ import annotations

from collections.abc import Iterator

from cpmi_eval.analysis.paired import Comparison, Comparisons
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.records import Run
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import Cell, Column, Grid, Line

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MATCHES = ("matches of\nfirst only", "matches of\nsecond only", "McNemar p\n(Holm)")


def paired_report(found: Comparisons) -> list[Grid | Line]:
    """Say of every comparison what differs by how much, and whether that is more than chance."""
    runs = [
        [_letter(place), str(run.path), _labeler(run), _model(run), _threshold(run), _scored(found, place)]
        for place, run in enumerate(found.runs)
    ]
    about = tuple(Column(one, fold=True) for one in ("", "run", "labeler", "model", "threshold", "scored"))
    numbers = ["first", "second", "difference", "95% interval", "p", "p\n(Holm)", *(MATCHES if _matched(found) else ())]
    tests = (
        *(Column(one, fold=True) for one in ("runs", "metric")),
        *(Column(one, right=True) for one in numbers),
        Column("verdict", fold=True),
    )
    return [
        Grid(about, (tuple(runs),), _title(found)),
        Grid(
            tests, (tuple(_cells(found, one) for one in found.comparisons),), notes=tuple(map(Line.of, _notes(found)))
        ),
    ]


def _title(found: Comparisons) -> str:
    synthetic = " (synthetic data)" if found.runs[0].summary["synthetic"] else ""
    parts = found.aligned.parts
    over = f", mean over {', '.join(parts)}" if len(parts) > 1 else ""
    name = found.part if len(parts) > 1 else parts[0]
    return f"{name}{synthetic}, {found.aligned.traces:,} traces{over}"


def _letter(place: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    turn, at = divmod(place, len(LETTERS))
    return LETTERS[at] + (str(turn) if turn else "")


def _labeler(run: Run) -> str:
    labeler = run.summary["labeler"]
    return fmt.scorer(labeler["name"], run.summary["config"].get("labeler_args"), labeler["uses_reference"])


def _model(run: Run) -> str:
    return "–" if run.model is None else run.model.model


def _threshold(run: Run) -> str:
    """The protocol and, where there is one, its cut; of selection tasks the aggregation instead."""
    if run.summary.get("selects"):
        return str(run.summary["labeler"]["aggregation"])
    rule = run.summary["threshold"]
    if rule.get("undecided", rule["value"] is None):
        return f"{rule['protocol']} (none)"
    shown = "" if rule["value"] is None or ":" in rule["protocol"] else f" ({rule['value']:g})"
    return f"{rule['protocol']}{shown}"


def _scored(found: Comparisons, place: int) -> str:
    outcomes = [one for group in found.aligned.outcomes[place].values() for one in group]
    return f"{sum(one.scores is not None for one in outcomes)}/{len(outcomes)}"


def _matched(found: Comparisons) -> bool:
    return any(one.matches is not None for one in found.comparisons)


def _cells(found: Comparisons, one: Comparison) -> list[str | Cell]:
    pair, name, seen = f"{_letter(one.a)} – {_letter(one.b)}", one.metric, one.difference
    matches = ["–"] * (len(MATCHES) if _matched(found) else 0)
    if seen is None:
        return [pair, spec_of(name).heading, *["–"] * 6, *matches, "not compared"]
    if one.matches is not None:
        matches = [fmt.count(one.matches.only_a), fmt.count(one.matches.only_b), _p(one.matches_adjusted)]
    low_high = "–" if seen.interval is None else " to ".join(_signed(name, bound) for bound in seen.interval)
    values = [fmt.metric(name, seen.value_a), fmt.metric(name, seen.value_b), _signed(name, seen.difference)]
    best = one.better(found.alpha)
    verdict = Cell("no difference shown") if best is None else Cell(f"{_letter(best)} is better", "bold")
    return [pair, spec_of(name).heading, *values, low_high, _p(seen.p), _p(one.adjusted), *matches, verdict]


def _signed(metric: str, value: float) -> str:
    """A difference as the metric is written, with its sign."""
    text = fmt.metric(metric, abs(value))
    if not any(digit in text for digit in "123456789"):
        return text
    return ("+" if value > 0 else "−") + text


def _p(value: float | None) -> str:
    """0.0312 is ``0.031``; very small ones are a bound."""
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _notes(found: Comparisons) -> Iterator[str]:
    """Yield the lines that say what the numbers are and what they leave out."""
    given = {run.summary["labeler"]["uses_reference"] for run in found.runs}
    if True in given:
        yield "* is given the reference answer" + (", which the others are not" if False in given else "")
    for metric, place, reason in dict.fromkeys((one.metric, one.lacking, one.reason) for one in found.comparisons):
        if place is not None:
            yield f"{spec_of(metric).heading} of {_letter(place)} is not compared: it {reason}"
    shown = [one.difference for one in found.comparisons if one.difference is not None]
    if shown:
        yield (
            f"p: two-sided, {shown[0].method}; Holm over all comparisons here ({len(shown)}); intervals by bootstrap "
            f"over problems, not adjusted; better: p (Holm) at most {found.alpha:g} and 0 outside the interval; "
            f"{max(one.problems for one in shown):,} problems, seed {found.seed}"
        )
    if _matched(found):
        yield (
            "matches: the first error found exactly, or a correct trace left alone; McNemar's test counts all traces "
            "alike, whereas F1 balances the two kinds, so that they may disagree"
        )
    if any(one.left_out for one in shown):
        yield f"AUC is over the traces that both scored: up to {max(one.left_out for one in shown):,} are left out"
    if any(found.aligned.left_out):
        listed = ", ".join(f"{n:,} of {_letter(place)}" for place, n in enumerate(found.aligned.left_out))
        yield f"shared traces only: left out are {listed}"
    if found.aligned.empty:
        yield f"{found.aligned.empty:,} candidates came out empty: their problems have fewer candidates here"
    if len({_threshold(run) for run in found.runs}) > 1 and not found.runs[0].summary.get("selects"):
        yield "thresholds differ: F1 compares scorer and threshold together, AUC the scorer alone"
