"""A paired comparison of runs as tables: for a terminal, or as GitHub markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cpmi_eval.metrics.paired import Comparison, Comparisons
from cpmi_eval.records import Run
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.tables import HEADINGS

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def paired_table(found: Comparisons) -> Group:
    """Return the comparisons for a terminal: the runs, each with a letter, and then a row for each comparison."""
    runs = _table(_title(found), _RUNS, right=())
    for cells in _runs(found):
        runs.add_row(*map(Text, cells))
    headings = _headings(found)
    tests = _table(None, headings, right=headings[2:-1])
    for one in found.comparisons:
        style = "bold" if one.better(found.alpha) is not None else ""
        tests.add_row(*map(Text, _cells(found, one)[:-1]), Text(_verdict(found, one), style))
    return Group(runs, tests, *map(Text, _notes(found)))


def paired_markdown(found: Comparisons) -> str:
    """Return the comparisons as GitHub markdown."""
    headings = _headings(found)
    runs = [_line(_RUNS), _line(["---"] * len(_RUNS)), *map(_line, _runs(found))]
    marks = ["---", "---", *["---:"] * (len(headings) - 3), "---"]
    tests = [_line(headings), _line(marks), *(_line(_cells(found, one)) for one in found.comparisons)]
    return "\n\n".join([_escaped(_title(found)), "\n".join(runs), "\n".join(tests), *map(_escaped, _notes(found))])


def _table(title: str | None, headings: list[str], right: list[str] | tuple[()]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(
            heading, justify="right" if heading in right else "left", overflow="fold", no_wrap=heading in right
        )
    return table


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Keep markdown from reading a mark into what is text."""
    for mark in "\\*|<`":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def _title(found: Comparisons) -> str:
    synthetic = " (synthetic data)" if found.runs[0].summary["synthetic"] else ""
    parts = found.aligned.parts
    over = f", mean over {', '.join(parts)}" if len(parts) > 1 else ""
    name = found.part if len(parts) > 1 else parts[0]
    return f"{name}{synthetic}, {found.aligned.traces:,} traces{over}"


_RUNS = ["", "run", "labeler", "model", "threshold", "scored"]


def _runs(found: Comparisons) -> Iterator[list[str]]:
    for place, run in enumerate(found.runs):
        yield [_letter(place), str(run.path), _labeler(run), _model(run), _threshold(run), _scored(found, place)]


def _letter(place: int) -> str:
    """Return A, B, ..., Z, A1, B1, ..."""
    turn, at = divmod(place, len(LETTERS))
    return LETTERS[at] + (str(turn) if turn else "")


def _labeler(run: Run) -> str:
    labeler, args = run.summary["labeler"], run.summary["config"].get("labeler_args") or {}
    return " ".join(filter(None, [labeler["name"] + ("*" if labeler["uses_reference"] else ""), fmt.settings(args)]))


def _model(run: Run) -> str:
    return "–" if run.model is None else run.model.model


def _threshold(run: Run) -> str:
    """Return the protocol and, where there is one, its cut; of selection tasks the aggregation instead."""
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


def _headings(found: Comparisons) -> list[str]:
    names = ["runs", "metric", "first", "second", "difference", "95% interval", "p", "p\n(Holm)"]
    return [*names, *(_MATCHES if _has_matches(found) else []), "verdict"]


_MATCHES = ["matches of\nfirst only", "matches of\nsecond only", "McNemar p\n(Holm)"]


def _has_matches(found: Comparisons) -> bool:
    return any(one.matches is not None for one in found.comparisons)


def _cells(found: Comparisons, one: Comparison) -> list[str]:
    pair, metric = f"{_letter(one.a)} – {_letter(one.b)}", HEADINGS.get(one.metric, one.metric)
    matches = ["–"] * (len(_MATCHES) if _has_matches(found) else 0)
    if one.difference is None:
        return [pair, metric, *["–"] * 6, *matches, _verdict(found, one)]
    if one.matches is not None:
        matches = [fmt.count(one.matches.only_a), fmt.count(one.matches.only_b), _p(one.matches_adjusted)]
    seen, name = one.difference, one.metric
    low_high = "–" if seen.interval is None else " to ".join(_signed(name, bound) for bound in seen.interval)
    values = [fmt.metric(name, seen.value_a), fmt.metric(name, seen.value_b), _signed(name, seen.difference)]
    return [pair, metric, *values, low_high, _p(seen.p), _p(one.adjusted), *matches, _verdict(found, one)]


def _signed(metric: str, value: float) -> str:
    """Return a difference as the metric is written, with its sign."""
    text = fmt.metric(metric, abs(value))
    if not any(digit in text for digit in "123456789"):
        return text
    return ("+" if value > 0 else "−") + text


def _p(value: float | None) -> str:
    """Return 0.0312 as ``0.031``; very small ones as a bound."""
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(found: Comparisons, one: Comparison) -> str:
    if one.difference is None:
        return "not compared"
    best = one.better(found.alpha)
    return "no difference shown" if best is None else f"{_letter(best)} is better"


def _notes(found: Comparisons) -> Iterator[str]:
    """Yield the lines that say what the numbers are and what they leave out."""
    given = {run.summary["labeler"]["uses_reference"] for run in found.runs}
    if True in given:
        yield "* is given the reference answer" + (", which the others are not" if False in given else "")
    for metric, place, reason in dict.fromkeys((one.metric, one.lacking, one.reason) for one in found.comparisons):
        if place is not None:
            yield f"{HEADINGS.get(metric, metric)} of {_letter(place)} is not compared: it {reason}"
    shown = [one.difference for one in found.comparisons if one.difference is not None]
    if shown:
        yield (
            f"p: two-sided, {shown[0].method}; Holm over all comparisons here ({len(shown)}); intervals by bootstrap "
            f"over problems, not adjusted; better: p (Holm) at most {found.alpha:g} and 0 outside the interval; "
            f"{max(one.problems for one in shown):,} problems, seed {found.seed}"
        )
    if _has_matches(found):
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
