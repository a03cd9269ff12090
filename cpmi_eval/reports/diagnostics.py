"""Diagnostics on a terminal: a part's tables, from what results.json holds of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cpmi_eval.reports import format as fmt
from cpmi_eval.types import JSON

RULES = {
    "all_correct": "every trace is correct",
    "last_step": "the last step is wrong",
    "position": "later steps are worse",
    "length": "longer steps are worse",
    "fewer_steps": "fewer steps are better",
    "shorter": "fewer characters are better",
}
CLASSES = {
    "all": "all",
    "erroneous": "erroneous",
    "correct": "correct",
    "wrong": "wrong answer",
    "right": "right answer",
}


def report(diagnostics: Mapping[str, JSON]) -> Group:
    """Return the diagnostics of all parts of a run, by part."""
    return Group(*(one for part, found in diagnostics.items() for one in tables(part, found)))


def tables(part: str, found: JSON) -> Iterator[Any]:
    """Yield what there is to say of one part."""
    yield Text(part, "bold")
    yield _coverage(found["coverage"])
    for section in _sections(found):
        yield ""
        yield from section
    yield ""


def _sections(found: JSON) -> Iterator[Iterator[Any]]:
    if (steps := found["steps"]) is not None:
        yield _quality(steps)
        yield _by_position(steps)
        yield _by_length(steps)
        yield _right_answer(steps["right_answer"])
        yield _calibration(steps["calibration"])
    if (solutions := found["solutions"]) is not None:
        yield _solutions(solutions)
    yield _last_minimum(found["last_minimum"])


def _coverage(found: JSON) -> Text:
    classes = ", ".join(
        f"{fmt.percent(one['value'])}% of {fmt.count(one['n'])} {CLASSES[name]}"
        for name, one in found["unscored"].items()
        if one["n"]
    )
    kinds = ", ".join(f"{fmt.count(n)} {kind}" for kind, n in found["failures"].items())
    text = f"{fmt.count(found['scored'])} of {fmt.count(found['traces'])} traces scored"
    if not found["failures"]:
        return Text(text)
    return Text(f"{text}; not scored: {kinds} ({classes or 'none of them annotated'})")


def _table(title: str, *headings: str) -> Table:
    """Return a table whose first column names the row and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    first, *others = headings
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _note(text: str) -> Text:
    return Text(text, "dim")


def _quality(steps: JSON) -> Iterator[Any]:
    table = _table("beside rules that read nothing", "", "F1", "acc err.", "acc corr.", "AUC", "AUC within position")
    table.add_row("this scorer", *_measures(steps["scorer"]))
    table.add_row("this scorer †", *_measures(steps["at_oracle"]))
    table.add_section()
    for name, quality in steps["baselines"].items():
        table.add_row(RULES[name] + (" †" if quality["oracle"] else ""), *_measures(quality))
    yield table
    count, within = steps["scorer"]["step_auc"]["n"], steps["scorer"]["within_position_auc"]
    yield _note(
        "† threshold fitted to these very traces: a ceiling, never a result\n"
        f"AUC: over {fmt.count(count)} annotated steps of scored traces; within position: over the "
        f"{fmt.count(within['pairs'])} pairs of a good step and a first error of the same index; in brackets the 95% "
        "interval"
    )


def _measures(quality: JSON) -> list[str]:
    within = quality["within_position_auc"]
    return [
        *(fmt.percent(quality[name]["value"]) for name in ("f1", "acc_error", "acc_correct")),
        fmt.auc(quality["step_auc"]["value"]),
        _between(fmt.auc(within["value"]), within, fmt.auc),
    ]


def _between(text: str, entry: JSON, form: Any) -> str:
    """Return a value with the bounds of its interval, ``15.9 [11.6, 21.5]``; without them where there is none."""
    if "interval" not in entry:
        return text
    low, high = map(form, entry["interval"])
    return f"{text} [{low}, {high}]"


def _share(entry: JSON) -> str:
    return _between(fmt.percent(entry["value"]), entry, fmt.percent)


def _last_minimum(found: JSON) -> Iterator[Any]:
    table = _table("traces whose lowest score is on the last step", "", "traces", "share, %", "if on any alike, %")
    for name, one in found.items():
        table.add_row(CLASSES[name], fmt.count(one["n"]), fmt.percent(one["share"]), fmt.percent(one["expected"]))
    yield table
    yield _note("of tied lowest steps each counts in part; if on any alike: what chance would give on these lengths")


_CALLS = ("too_early", "too_late", "missed", "no_prediction")
_HEADINGS = ("errors", "exact, %", "too early", "too late", "missed", "no pred.")


def _calls(errors: JSON) -> list[str]:
    counts = ["–" if errors[name] is None else fmt.count(errors[name]) for name in _CALLS]
    return [fmt.count(errors["exact"]["n"]), _share(errors["exact"]), *counts]


def _range(row: JSON) -> str:
    first, last = row["first"], row["last"]
    return f"{first}+" if last is None else str(first) if first == last else f"{first}–{last}"


def _by_position(steps: JSON) -> Iterator[Any]:
    table = _table("erroneous traces by index of the first error", "index", *_HEADINGS, "AUC there", "pairs")
    for row in steps["by_position"]:
        within = row["within_position_auc"]
        table.add_row(_range(row), *_calls(row["errors"]), fmt.auc(within["value"]), fmt.count(within["pairs"]))
    yield table
    yield _note(
        "missed: called correct; no pred.: without a prediction, as where scoring failed; in brackets the 95% interval "
        "(Wilson)"
    )


def _by_length(steps: JSON) -> Iterator[Any]:
    table = _table("traces by number of steps", "steps", *_HEADINGS, "correct", "left alone, %")
    for row in steps["by_length"]:
        table.add_row(_range(row), *_calls(row["errors"]), fmt.count(row["correct"]["n"]), _share(row["correct"]))
    yield table


def _right_answer(found: JSON) -> Iterator[Any]:
    head = f"right answer, wrong process: {fmt.count(found['n'])} traces"
    if found["exact"]["value"] is None:
        yield Text(head)
        return
    yield Text(f"{head}; called correct, %: {_share(found['called_correct'])}; exact, %: {_share(found['exact'])}")


def _calibration(found: JSON) -> Iterator[Any]:
    if found["reason"] is not None:
        yield Text(f"calibration: none, {found['reason']}")
        return
    table = _table("scores as probabilities of a good step", "score", "steps", "mean score", "good, %")
    for one in found["bins"]:
        good = one["good"]
        table.add_row(
            f"{one['low']:.1f}–{one['high']:.1f}", fmt.count(good["n"]), fmt.auc(one["mean_score"]), _share(good)
        )
    yield table
    yield _note(
        f"calibration error (ECE) {fmt.auc(found['ece'])}; Brier score {fmt.auc(found['brier'])}, and "
        f"{fmt.auc(found['brier_of_share'])} if every step were given the share of good ones, "
        f"{fmt.auc(found['share_good'])}; over annotated steps, so none after a first error\n"
        "intervals take steps to be independent; those of one trace are not, so they are too narrow"
    )


def _solutions(found: JSON) -> Iterator[Any]:
    table = _table(
        "solutions by their aggregated step scores", "", "AUC", "AUC within problem", "pairs", "ECE", "Brier"
    )
    for name, one in found["aggregations"].items():
        table.add_row(name, *_solution_measures(one))
    table.add_section()
    for name, one in found["baselines"].items():
        table.add_row(RULES[name], *_solution_measures(one))
    yield table
    yield _note(
        "AUC: are right solutions scored above wrong ones, over all and over pairs from the same problem; in brackets "
        "the 95% interval\nECE, Brier: the score as a probability of being right; –: it is none"
    )


def _solution_measures(one: JSON) -> list[str]:
    within, agreement = one["within_problem_auc"], one["calibration"] or {}
    return [
        fmt.auc(one["outcome_auc"]["value"]),
        _between(fmt.auc(within["value"]), within, fmt.auc),
        fmt.count(within["pairs"]),
        fmt.auc(agreement.get("ece")),
        fmt.auc(agreement.get("brier")),
    ]
