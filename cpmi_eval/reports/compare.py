"""A comparison of labelers as a table: under each cost, how much it is of the reference labeler's."""

from __future__ import annotations

from collections.abc import Iterator

from cpmi_eval import registry
from cpmi_eval.analysis.compare import Comparison
from cpmi_eval.analysis.compare import Row as Labeled
from cpmi_eval.metrics.spec import spec_of, specs_of
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import Cell, Column, Grid, Line, Row

COSTS = {
    "seconds": ("wall time", fmt.seconds),
    "device_seconds": ("{device} time", fmt.seconds),
    "requested": ("tokens req.", fmt.compact),
    "computed": ("tokens comp.", fmt.compact),
    "generated": ("tokens gen.", fmt.compact),
    "peak_memory_bytes": ("peak memory", fmt.memory),
}


def compare_report(comparison: Comparison) -> list[Grid | Line]:
    """Set the labelers of a comparison side by side."""
    # A labeler without a model uses no GPU.
    device = "gpu" if any(row.device == "gpu" for row in comparison.rows) else "cpu"
    metrics = _metrics(comparison)
    headings = [
        *(spec_of(name).heading for name in metrics),
        *(heading.format(device=device.upper()) for heading, _ in COSTS.values()),
        "scored",
    ]
    columns = (Column("labeler", fold=True), Column("kind"), *(Column(one, right=True) for one in headings))
    rows: tuple[Row, ...] = tuple(
        [
            fmt.scorer(row.name, row.settings, row.uses_reference),
            row.kind,
            *(fmt.metric(name, row.metrics.get(name, {"value": None})["value"]) for name in metrics),
            *(_cost(row, name, device) for name in COSTS),
            Cell(
                f"{row.scored}/{row.traces}" if row.failure is None else "failed",
                "" if row.failure is None and row.scored == row.traces else "bold red",
            ),
        ]
        for row in comparison.rows
    )
    traces = f"{comparison.traces:,} traces" if comparison.traces else ""  # unknown where all labelers failed
    task = comparison.config["task"] + (" (synthetic data)" if comparison.synthetic else "")
    title = ", ".join(filter(None, [task, traces, comparison.config["model"]]))
    notes = (*map(Line.of, _notes(comparison)), *(Line.of(line, "bold red") for line in _alarms(comparison)))
    return [Grid(columns, (rows,), title, notes, narrow=True)]


def _metrics(comparison: Comparison) -> list[str]:
    """The metrics that have a column: all but those that are a part of another, first what needs no threshold."""
    known = [name for row in comparison.rows for name, one in row.metrics.items() if not one.get("detail")]
    if not known:
        functions = [
            registry.load("metrics", name) for name in registry.load("tasks", comparison.config["task"]).metrics
        ]
        known = [spec.name for function in functions for spec in specs_of(function) if "*" not in spec.name]
    shown = [name for name in dict.fromkeys(known) if not spec_of(name).part_of]
    return sorted(shown, key=lambda name: spec_of(name).decides)


def relative(value: float | None) -> str:
    """0.0936 is ``9.4%``, 1.5 is ``150%``, 12.3 is ``12x``; a dash where there is no value."""
    if value is None:
        return "–"
    share = 100 * value
    if share >= 999.5:
        return f"{value:,.0f}x"
    if share >= 9.95:
        return f"{share:.0f}%"
    return f"{share:.2g}%" if share >= 0.01 or share == 0 else "<0.01%"


def _cost(row: Labeled, name: str, device: str) -> Cell:
    if row.costs is None or (name == "device_seconds" and row.device != device):
        return Cell("–")
    _, form = COSTS[name]
    return Cell(form(getattr(row.costs, name)), beneath="" if row.relative is None else relative(row.relative[name]))


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
    rest = "" if comparison.shared == comparison.traces else "; all other figures are over all traces"
    return f"{text} that all labelers finished{rest}"


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
