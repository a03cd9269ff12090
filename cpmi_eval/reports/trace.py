"""One trace on a terminal: its steps tinted by score, the prediction beside the label."""

from __future__ import annotations

from collections.abc import Iterator

from cpmi_eval.reports.grid import Cell, Column, Grid, Line
from cpmi_eval.types import JSON


def tint(value: float, low: float, high: float) -> str:
    """A colour between red (``low``, the worst step) and green (``high``, the best)."""
    share = 0.5 if high <= low else (value - low) / (high - low)
    red, green = (255, round(510 * share)) if share < 0.5 else (round(510 * (1 - share)), 255)
    return f"rgb({round(60 + 0.75 * red)},{round(60 + 0.7 * green)},90)"


def verdict(index: int | None) -> str:
    """A first-error index in words; steps are counted from 0 as in the data."""
    if index is None:
        return "none (this trace is not annotated)"
    return "no error" if index < 0 else f"step {index}"


def trace_report(row: JSON, trace: JSON) -> list[Grid | Line]:
    """Show one trace: problem, steps with scores, gold label and prediction, and the labeler's terms."""
    gold, prediction, scores = row["gold"]["first_error"], row["prediction"], row["scores"]
    answer = "" if trace["answer"] is None else f"\nreference answer: {trace['answer']}"
    head = Line(((row["id"], "bold"), (f"  ({row['task']})\n{trace['problem']}", ""), (answer, "dim")))
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    sections = []
    for index, step in enumerate(trace["steps"]):
        style = tint(scores[index], low, high) if scores else ""
        marks = {"first error (label)": index == gold, "called wrong": index == prediction}
        score = Cell(f"{scores[index]:+.4f}", style) if scores else "–"
        mark = "\n".join(text for text, holds in marks.items() if holds)
        sections.append(([str(index), score, Cell(step, style), mark],))
    columns = (
        *(Column(one, right=True) for one in ("step", "score")),
        *(Column(one, fold=True) for one in ("text", "")),
    )
    return [head, Grid(columns, tuple(sections), boxed=True), *_outcome(row)]


def _outcome(row: JSON) -> Iterator[Line]:
    gold, prediction = row["gold"]["first_error"], row["prediction"]
    yield Line.of(f"label: {verdict(gold)}")
    if row["error"]:
        yield Line.of(f"no score: {row['error']['kind']}: {row['error']['message']}", "bold red")
    elif prediction is None:
        yield Line.of("prediction: none (this scorer makes no decision)")
    elif gold is None:
        yield Line.of(f"prediction: {verdict(prediction)}")
    else:
        word, style = ("right", "green") if prediction == gold else ("wrong", "red")
        yield Line.of(f"prediction: {verdict(prediction)} – {word}", style)
    if "negatives" in row["details"]:
        yield Line.of(f"negatives: {', '.join(row['details']['negatives'])}", "dim")
