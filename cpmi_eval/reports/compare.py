"""A comparison of labelers as a table: for a terminal, or as GitHub markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cpmi_eval.compare import Comparison, Costs, Row
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.tables import HEADINGS

METRICS = ("step_auc", "f1")  # of tasks with first errors; others show all that is no detail


@dataclass(frozen=True)
class _Cost:
    """One cost as a column: its name among the costs, its heading, and how it is written."""

    name: str
    heading: str
    show: Callable[[Costs], str]


def _columns(device: str) -> tuple[_Cost, ...]:
    return (
        _Cost("seconds", "wall time", lambda costs: fmt.seconds(costs.seconds)),
        _Cost("device_seconds", f"{device.upper()} time", lambda costs: fmt.seconds(costs.device_seconds)),
        _Cost("requested", "tokens req.", lambda costs: fmt.compact(costs.requested)),
        _Cost("computed", "tokens comp.", lambda costs: fmt.compact(costs.computed)),
        _Cost("generated", "tokens gen.", lambda costs: fmt.compact(costs.generated)),
        _Cost("peak_memory_bytes", "peak memory", lambda costs: fmt.memory(costs.peak_memory_bytes)),
    )


def relative(value: float | None) -> str:
    """Return 0.0936 as ``9.4%``, 1.5 as ``150%``, 12.3 as ``12x``; a dash where there is no value."""
    if value is None:
        return "–"
    share = 100 * value
    if share >= 999.5:
        return f"{value:,.0f}x"
    if share >= 9.95:
        return f"{share:.0f}%"
    return f"{share:.2g}%" if share >= 0.01 or share == 0 else "<0.01%"


def compare_table(comparison: Comparison) -> Group:
    """Return the comparison for a terminal: under each cost, how much it is of the reference labeler's."""
    table = Table(title=_title(comparison), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("labeler", overflow="fold")
    table.add_column("kind", no_wrap=True)
    device = _device(comparison)
    columns = _columns(device)
    for heading in (*_headings(comparison), *(one.heading for one in columns), "scored"):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in comparison.rows:
        pairs = [_pair(row, one, device) for one in columns]
        costs = [Text.assemble(shown, ("\n" + share if share else "", "dim")) for shown, share in pairs]
        style = "" if row.failure is None and row.scored == row.traces else "bold red"
        table.add_row(Text(_name(row)), row.kind, *_metrics(comparison, row), *costs, Text(_scored(row), style))
    return Group(table, *map(Text, _notes(comparison)), *(Text(line, "bold red") for line in _alarms(comparison)))


def compare_markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub markdown: after each cost, how much it is of the reference labeler's."""
    device = _device(comparison)
    columns = _columns(device)
    numbers = [*_headings(comparison), *(one.heading for one in columns), "scored"]
    lines = [_line(["labeler", "kind", *numbers]), _line(["---", "---", *["---:"] * len(numbers)])]
    for row in comparison.rows:
        costs = [
            f"{shown} ({share})" if share else shown for shown, share in (_pair(row, one, device) for one in columns)
        ]
        lines.append(_line([_escaped(_name(row)), row.kind, *_metrics(comparison, row), *costs, _scored(row)]))
    notes = [_escaped(line) for line in (*_notes(comparison), *_alarms(comparison))]
    return "\n\n".join([_escaped(_title(comparison)), "\n".join(lines), *notes])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Keep markdown from reading a mark into what is text."""
    for mark in "\\*|<`":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def _title(comparison: Comparison) -> str:
    traces = f"{comparison.traces:,} traces" if comparison.traces else ""  # unknown where all labelers failed
    task = comparison.config["task"] + (" (synthetic data)" if comparison.synthetic else "")
    return ", ".join(filter(None, [task, traces, comparison.config["model"]]))


def _device(comparison: Comparison) -> str:
    """Return the device whose time is shown; a labeler without a model uses no GPU."""
    return "gpu" if any(row.device == "gpu" for row in comparison.rows) else "cpu"


def _name(row: Row) -> str:
    return " ".join(filter(None, [row.name + ("*" if row.uses_reference else ""), fmt.settings(dict(row.settings))]))


def _shown(comparison: Comparison) -> tuple[str, ...]:
    """Return the names of the metrics that have a column."""
    known = [name for row in comparison.rows for name, one in row.metrics.items() if not one.get("detail")]
    if not known or set(METRICS) & set(known):
        return METRICS
    return tuple(dict.fromkeys(known))


def _headings(comparison: Comparison) -> list[str]:
    return [HEADINGS.get(name, name) for name in _shown(comparison)]


def _metrics(comparison: Comparison, row: Row) -> list[str]:
    values = [row.metrics.get(name, {"value": None})["value"] for name in _shown(comparison)]
    return [fmt.metric(name, value) for name, value in zip(_shown(comparison), values, strict=True)]


def _pair(row: Row, column: _Cost, device: str) -> tuple[str, str]:
    """Return a cost and what it is of the reference labeler's (empty where nothing is relative)."""
    if row.costs is None or (column.name == "device_seconds" and row.device != device):
        return "–", ""
    return column.show(row.costs), "" if row.relative is None else relative(row.relative[column.name])


def _scored(row: Row) -> str:
    return f"{row.scored}/{row.traces}" if row.failure is None else "failed"


def _notes(comparison: Comparison) -> Iterator[str]:
    """Yield the lines that say what the numbers are."""
    if any(row.uses_reference for row in comparison.rows):
        yield "* is given the reference answer"
    yield _basis(comparison)
    spent = {name: fmt.seconds(value) for name, value in comparison.loading.items()}
    if spent:
        listed = ", ".join(f"{name.replace('_', ' ')} {seconds}" for name, seconds in spent.items())
        yield f"not in these times: {listed}"


def _basis(comparison: Comparison) -> str:
    """Say what costs are relative to and over which traces, or why there is nothing relative."""
    reference = comparison.reference
    if reference is None:
        known = ", ".join(comparison.labelers)
        return f"no relative costs: no labeler here is {comparison.relative_to}; --relative_to takes one of {known}"
    if any(row.labeler == reference and row.failure is not None for row in comparison.rows):
        return f"no relative costs: {reference} failed; --relative_to takes another labeler"
    if not comparison.shared:
        return "no relative costs: no trace was finished by all labelers"
    text = f"% and x: of the costs of {reference}, over the {comparison.shared:,} of {comparison.traces:,} traces"
    if comparison.shared == comparison.traces:
        return f"{text} that all labelers finished"
    return f"{text} that all labelers finished; all other figures are over all traces"


def _alarms(comparison: Comparison) -> Iterator[str]:
    """Yield the lines that nobody should miss."""
    for row in comparison.rows:
        if row.failure is not None:
            yield f"{row.labeler} failed: {row.failure}"
        elif row.errors:
            listed = ", ".join(f"{kind} {n:,}" for kind, n in row.errors.items())
            yield f"{row.labeler} left traces without a score: {listed}; see cpmi-eval show {row.path}"
    if comparison.mixed:
        differing = " and ".join(comparison.mixed)
        yield f"these runs differ in {differing}, so their costs are not comparable; --fresh repeats them all"
