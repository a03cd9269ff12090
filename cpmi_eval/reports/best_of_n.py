"""The tables of a run that selects among solutions: by N and way of selecting, and by group of problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cpmi_eval.metrics.best_of_n import AGGREGATIONS
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import BLANK, Column, Grid, Line
from cpmi_eval.types import JSON

SHOWN_DISAGREEMENTS = 3
COLUMNS = {
    "pass@1": "pass@1",
    "maj@N": "majority",
    "bon@N": "best of N",
    "wvote@N": "weighted vote",
    "pass@N": "pass@N",
    "outcome_auc": "AUC",
}


def tables(summary: JSON) -> Iterator[Grid | Line]:
    """Yield the tables of a summary whose task selects; nothing for other tasks."""
    if not summary.get("selects"):
        return
    own = summary["labeler"]["aggregation"]
    for name in summary["coverage"]:
        yield BLANK
        yield by_size(f"{name}: best of N", summary["results"][name], own)
        if groups := summary["groups"].get(name):
            yield BLANK
            yield by_group(f"{name}: by group", groups)


def by_size(title: str, metrics: Mapping[str, JSON], own: str) -> Grid:
    """Accuracies with a row per N: pass@N, majority, the best-scored one and the weighted vote."""
    sizes = sorted(int(name.partition("@")[2]) for name in metrics if name.startswith("pass@"))
    marks = [f"{how}*" if how == own else how for how in AGGREGATIONS]
    headings = [
        "N",
        "problems",
        "pass",
        "majority",
        *(f"{kind}\n{mark}" for kind in ("best", "vote") for mark in marks),
    ]
    kinds = ["pass", "maj", *(f"{kind}_{how}" for kind in ("bon", "wvote") for how in AGGREGATIONS)]
    rows = tuple(
        [
            str(size),
            fmt.count(metrics[f"pass@{size}"]["n"]),
            *(fmt.percent(metrics[f"{kind}@{size}"]["value"]) for kind in kinds),
        ]
        for size in sizes
    )
    areas = (fmt.auc(metrics[f"outcome_auc_{how}"]["value"]) for how in AGGREGATIONS)
    notes = ["* the scorer's own aggregation of step scores; best: the highest score, vote: the highest sum by answer"]
    if metrics[f"wvote_{own}@{sizes[0]}"]["value"] is None:
        notes.append("– not defined: some step scores are negative")
    return Grid(
        tuple(Column(one, right=True) for one in headings),
        (rows, (["AUC", "", "", "", *areas, *[""] * len(AGGREGATIONS)],)),
        title,
        tuple(Line.of(note, "dim") for note in notes),
        boxed=True,
    )


def by_group(title: str, groups: Mapping[str, Mapping[str, Mapping[str, JSON]]]) -> Grid:
    """Accuracies of each group's candidates, at the largest N that the group has."""
    numbers = (Column(one, right=True) for one in ("problems", "N", *COLUMNS.values()))
    columns = (Column("group"), Column("value", fold=True), *numbers)
    sections = tuple(
        tuple(_group(name, value, metrics) for value, metrics in values.items()) for name, values in groups.items()
    )
    return Grid(columns, sections, title, boxed=True)


def _group(name: str, value: str, metrics: Mapping[str, JSON]) -> list[str]:
    size = max(int(key.partition("@")[2]) for key in metrics if "@" in key)
    keys = [key.replace("@N", f"@{size}") for key in COLUMNS]
    cells = (fmt.metric(key, metrics[key]["value"]) for key in keys)
    return [name, value, fmt.count(metrics["pass@1"]["n"]), str(size), *cells]


def facts(summary: JSON) -> dict[str, str]:
    """Say how solutions are selected and graded, by name of the fact; nothing for tasks that do not select."""
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
