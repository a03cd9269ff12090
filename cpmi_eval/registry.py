"""Names to classes, imported only when asked for; third parties add theirs through entry points.

A plug-in registers under the groups ``cpmi_eval.tasks``, ``cpmi_eval.labelers``, ``cpmi_eval.backends``,
``cpmi_eval.metrics`` or ``cpmi_eval.verbs`` (see docs/extending.md). Two distributions that claim one name are an
error that names both.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from cpmi_eval.errors import UnknownNameError, UsageError

BUILTIN: dict[str, dict[str, str]] = {
    "tasks": {
        "gsm8k": "cpmi_eval.tasks.gsm8k:GSM8K",
        "math": "cpmi_eval.tasks.math:MATH",
        "processbench": "cpmi_eval.tasks.processbench:ProcessBench",
        "synthetic": "cpmi_eval.tasks.synthetic:Synthetic",
        "traces": "cpmi_eval.tasks.traces:Traces",
    },
    "labelers": {
        "cpmi": "cpmi_eval.labelers.cpmi:CPMI",
        "mc": "cpmi_eval.labelers.monte_carlo:MonteCarlo",
        "pav": "cpmi_eval.labelers.pav:PAV",
        "cpmi-merge": "cpmi_eval.labelers.merge:CPMIMerge",
        "judge": "cpmi_eval.labelers.judge:Judge",
        "prm": "cpmi_eval.labelers.prm:PRM",
        "random": "cpmi_eval.labelers.baselines:RandomBaseline",
        "constant": "cpmi_eval.labelers.baselines:ConstantBaseline",
        "length": "cpmi_eval.labelers.baselines:LengthBaseline",
    },
    "metrics": {
        "best_of_n": "cpmi_eval.metrics.best_of_n:compute",
        "first_error": "cpmi_eval.metrics.first_error:compute",
        "step_auc": "cpmi_eval.metrics.ranking:compute",
    },
    "backends": {
        "hf": "cpmi_eval.backends.hf:HFBackend",
        "lm-eval": "cpmi_eval.backends.lm_eval:LMEvalBackend",
        "prm": "cpmi_eval.backends.prm:PRMBackend",
        "server": "cpmi_eval.backends.server:ServerBackend",
    },
    "verbs": {},  # of others; the program's own are in cpmi_eval.cli
}


@dataclass(frozen=True)
class Entry:
    """A registered name: ``target`` is ``module:attribute``, ``origin`` the distribution it came from."""

    name: str
    target: str
    origin: str


@cache
def entries(kind: str) -> dict[str, Entry]:
    """Return every entry of ``kind`` (a key of ``BUILTIN``) by name, built-ins first."""
    found = {name: Entry(name, target, "cpmi-eval") for name, target in BUILTIN[kind].items()}
    for point in entry_points(group=f"cpmi_eval.{kind}"):
        origin = point.dist.name if point.dist else "an unknown distribution"
        entry = Entry(point.name, point.value, origin)
        other = found.get(point.name)
        if other is not None and other.target != entry.target:
            raise UsageError(
                f"two distributions register the {kind[:-1]} {point.name!r}: {other.origin} ({other.target}) "
                f"and {origin} ({point.value}); uninstall one of them"
            )
        found[point.name] = entry
    return found


def load(kind: str, name: str) -> Any:
    """Import and return what ``name`` stands for.

    Raises:
        UnknownNameError: no such name; close names are suggested.
        UsageError: a plug-in is registered but cannot be imported.
    """
    known = entries(kind)
    if name not in known:
        raise UnknownNameError(kind[:-1], name, known)
    entry = known[name]
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UsageError(
            f"the {kind[:-1]} {name!r} of {entry.origin} cannot be imported from {entry.target}: "
            f"{type(error).__name__}: {error}"
        ) from error
