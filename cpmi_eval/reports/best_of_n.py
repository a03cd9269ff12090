"""The tables of a run that selects among solutions: by N and way of selecting, and by group of problems."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from cpmi_eval.metrics.best_of_n import AGGREGATIONS
from cpmi_eval.reports import format as fmt
from cpmi_eval.types import JSON

SHOWN_DISAGREEMENTS = 3
_SIZED = re.compile(r"(?P<kind>pass|maj|bon|wvote)@(?P<size>\d+)")
_COLUMNS = ("pass@1", "maj@N", "bon@N", "wvote@N", "pass@N", "outcome_auc")
_HEADINGS = {"maj@N": "majority", "bon@N": "best of N", "wvote@N": "weighted vote", "outcome_auc": "AUC"}


def tables(summary: JSON) -> Iterator[Any]:
    """Yield the tables of a summary whose task selects; nothing for other tasks."""
    if not summary.get("selects"):
        return
    own = summary["labeler"]["aggregation"]
    for name in summary["coverage"]:
        yield ""
        yield by_size(f"{name}: best of N", summary["results"][name], own)
        if groups := summary["groups"].get(name):
            yield ""
            yield by_group(f"{name}: by group", groups)


def by_size(title: str, metrics: Mapping[str, JSON], own: str) -> Table:
    """Return accuracies with a row per N: pass@N, majority, the best-scored one and the weighted vote."""
    table = Table(title=Text(title), title_justify="left")
    sizes = sorted(int(name.partition("@")[2]) for name in metrics if name.startswith("pass@"))
    marks = [f"{how}*" if how == own else how for how in AGGREGATIONS]
    headings = ["N", "problems", "pass", "majority", *(f"best\n{mark}" for mark in marks)]
    for heading in (*headings, *(f"vote\n{mark}" for mark in marks)):
        table.add_column(heading, justify="right", no_wrap=True)
    for size in sizes:
        names = [f"{kind}@{size}" for kind in ("pass", "maj")]
        names += [f"{kind}_{how}@{size}" for kind in ("bon", "wvote") for how in AGGREGATIONS]
        cells = [fmt.percent(metrics[name]["value"]) for name in names]
        table.add_row(str(size), fmt.count(metrics[f"pass@{size}"]["n"]), *cells)
    table.add_section()
    areas = [fmt.auc(metrics[f"outcome_auc_{how}"]["value"]) for how in AGGREGATIONS]
    table.add_row("AUC", "", "", "", *areas)
    notes = ["* the scorer's own aggregation of step scores; best: the highest score, vote: the highest sum by answer"]
    if metrics[f"wvote_{own}@{sizes[0]}"]["value"] is None:
        notes.append("– not defined: some step scores are negative")
    table.caption, table.caption_justify = Text("\n".join(notes)), "left"
    return table


def by_group(title: str, groups: Mapping[str, Mapping[str, Mapping[str, JSON]]]) -> Table:
    """Return the accuracies of each group's candidates, at the largest N that the group has."""
    table = Table(title=Text(title), title_justify="left")
    table.add_column("group", no_wrap=True)
    table.add_column("value", overflow="fold")
    for heading in ("problems", "N", *(_HEADINGS.get(name, name) for name in _COLUMNS)):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, (name, values) in enumerate(groups.items()):
        if place:
            table.add_section()
        for value, metrics in values.items():
            size = max(int(found["size"]) for key in metrics if (found := _SIZED.fullmatch(key)))
            keys = [key.replace("@N", f"@{size}") for key in _COLUMNS]
            cells = [fmt.metric(key, metrics[key]["value"]) for key in keys]
            table.add_row(name, Text(value), fmt.count(metrics["pass@1"]["n"]), str(size), *cells)
    return table


def facts(summary: JSON) -> dict[str, str]:
    """Return the lines on how solutions are selected and graded, by name; nothing for tasks that do not select."""
    if not summary.get("selects"):
        return {}
    oracle = "; an oracle (it is given the answer): never ranked" if summary["labeler"]["uses_reference"] else ""
    notes = summary["notes"].values()
    return {
        "selection": f"{summary['labeler']['aggregation']} of the step scores{oracle}",
        "problems": "; ".join(f"{name}: {_problems(counts)}" for name, counts in summary["coverage"].items()),
        "steps": "; ".join(f"solutions split by the rule {one['split']}" for one in notes if "split" in one),
        "grading": "; ".join(_grading(one) for one in notes if "marks" in one),
    }


def _problems(counts: JSON) -> str:
    text = f"{counts['problems']:,} of {counts['of_problems']:,} with candidates, {counts['candidates']:,} in all"
    return text + (f", {counts['empty']:,} of them empty: incorrect and never chosen" if counts["empty"] else "")


def _grading(notes: JSON) -> str:
    """Say how the file's candidates were graded, and where the file's own marks say otherwise."""
    parts = [f"{notes['no_answer']:,} of the file's {notes['candidates']:,} candidates state no answer"]
    if notes["undecided"]:
        parts.append(f"{notes['undecided']:,} could not be decided and count as incorrect")
    marks = notes["marks"]
    if marks["marked"]:
        share = fmt.percent(marks["agree"] / marks["marked"])
        parts.append(f"is_correct marks agree in {marks['agree']:,} of {marks['marked']:,} ({share}%)")
    differing = marks["disagree"]
    if not differing:
        return "; ".join(parts)
    shown = "; ".join(map(_disagreement, differing[:SHOWN_DISAGREEMENTS]))
    rest = len(differing) - SHOWN_DISAGREEMENTS
    more = f"; and {rest:,} more, listed in results.json under notes" if rest > 0 else ""
    return "; ".join(parts) + f", not in {shown}{more}"


def _disagreement(one: JSON) -> str:
    verdicts = {True: "correct", False: "incorrect", None: "undecided"}
    marked, graded = verdicts[one["marked"]], verdicts[one["graded"]]
    return f"{one['id']} (marked {marked}, graded {graded}: {one['answer']!r}, reference {one['reference']!r})"
