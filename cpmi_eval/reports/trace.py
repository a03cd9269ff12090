"""One trace on a terminal: its steps tinted by score, the prediction beside the label."""

from __future__ import annotations

from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cpmi_eval.types import JSON


def tint(value: float, low: float, high: float) -> Style:
    """Return a colour between red (``low``, the worst step) and green (``high``, the best)."""
    share = 0.5 if high <= low else (value - low) / (high - low)
    red, green = (255, round(510 * share)) if share < 0.5 else (round(510 * (1 - share)), 255)
    return Style(color=f"rgb({round(60 + 0.75 * red)},{round(60 + 0.7 * green)},90)")


def verdict(index: int | None) -> str:
    """Return a first-error index in words; steps are counted from 0 as in the data."""
    if index is None:
        return "none (this trace is not annotated)"
    return "no error" if index < 0 else f"step {index}"


def trace_report(row: JSON, trace: JSON) -> Group:
    """Return one trace: problem, steps with scores, gold label and prediction, and the labeler's terms."""
    gold, prediction, scores = row["gold"]["first_error"], row["prediction"], row["scores"]
    head = Text.assemble((row["id"], "bold"), f"  ({row['task']})\n", trace["problem"])
    if trace["answer"] is not None:
        head.append(f"\nreference answer: {trace['answer']}", "dim")
    table = Table(show_lines=True)
    table.add_column("step", justify="right")
    table.add_column("score", justify="right")
    table.add_column("text", overflow="fold")
    table.add_column("")
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    for index, step in enumerate(trace["steps"]):
        style = tint(scores[index], low, high) if scores else Style()
        marks = [("first error (label)", index == gold), ("called wrong", index == prediction)]
        mark = "\n".join(text for text, holds in marks if holds)
        score = Text(f"{scores[index]:+.4f}", style) if scores else Text("–")
        table.add_row(str(index), score, Text(step, style), mark)
    lines = [Text(f"label: {verdict(gold)}")]
    if row["error"]:
        lines.append(Text(f"no score: {row['error']['kind']}: {row['error']['message']}", "bold red"))
    elif prediction is None:
        lines.append(Text("prediction: none (this scorer makes no decision)"))
    elif gold is None:
        lines.append(Text(f"prediction: {verdict(prediction)}"))
    else:
        right = prediction == gold
        lines.append(
            Text(f"prediction: {verdict(prediction)} – {'right' if right else 'wrong'}", "green" if right else "red")
        )
    if "negatives" in row["details"]:
        lines.append(Text(f"negatives: {', '.join(row['details']['negatives'])}", "dim"))
    return Group(head, table, *lines)
