"""What the gate prints: a table for a terminal, markdown for GitHub's step summary, JUnit for test reports."""

from __future__ import annotations

from xml.etree import ElementTree

from cpmi_eval.gate.check import Report
from cpmi_eval.gate.checks import Check
from cpmi_eval.reports import escape, grid
from cpmi_eval.reports.grid import Cell, Column, Grid, Line, Row

STYLES = {"pass": "green", "fail": "bold red", "skipped": "dim"}
SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "skipped": "⚪ skipped"}
CHANGES = {"pass": "kept", "fail": "moved"}


def verdict(report: Report) -> str:
    """The outcome in a sentence."""
    if report.failed:
        return f"failed: {', '.join(report.failed)}"
    skipped = [one.name for one in report.checks if one.verdict == "skipped"]
    return "passed" + (f"; not checked: {', '.join(skipped)}" if skipped else "")


def gate_report(report: Report, *, update: bool = False) -> list[Grid | Line]:
    """Say of every check what moved; with ``update``, as what replacing the baseline changes."""
    title = f"{report.baseline}: what {report.run} changes" if update else f"{report.run} against {report.baseline}"
    lines: list[Grid | Line] = [_checks(report, CHANGES if update else {}, title, "  ")]
    lines += map(Line.of, report.notes)
    if not update:
        lines.append(Line.of(verdict(report), STYLES["fail" if report.failed else "pass"]))
        if report.failed:
            lines.append(Line.of(f"if this is meant, make it the baseline: {report.update}"))
    return lines


def _checks(report: Report, words: dict[str, str], title: str = "", indent: str = "") -> Grid:
    rows: tuple[Row, ...] = tuple(
        [
            one.name,
            Cell(words.get(one.verdict, one.verdict), STYLES[one.verdict]),
            "\n".join((one.summary, *(indent + line for line in one.lines))),
        ]
        for one in report.checks
    )
    return Grid((Column("check"), Column("verdict"), Column("what moved", fold=True)), (rows,), title, boxed=True)


def markdown(report: Report) -> str:
    """Write the report as GitHub-flavoured markdown."""
    parts = [
        f"### cpmi-eval check: {escape.markdown(verdict(report))}",
        f"{escape.code(str(report.run))} against {escape.code(str(report.baseline))}",
        grid.markdown([_checks(report, SIGNS)]),
        "\n".join(f"- {escape.markdown(note)}" for note in report.notes),
        f"If this is meant, make it the baseline: {escape.code(report.update)}" if report.failed else "",
    ]
    return "\n\n".join(filter(None, parts))


def junit(report: Report) -> str:
    """Write the report as JUnit XML: a test case per check."""
    verdicts = [one.verdict for one in report.checks]
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(verdicts.count("fail")),
        "errors": "0",
        "skipped": str(verdicts.count("skipped")),
        "time": "0",
    }
    whole = ElementTree.Element("testsuites", {"name": "cpmi-eval check", **counts})
    del whole.attrib["skipped"]  # the common schema has it for suites alone
    suite = ElementTree.SubElement(whole, "testsuite", {"name": escape.xml(f"check of {report.run}"), **counts})
    facts = ElementTree.SubElement(suite, "properties")
    for name, value in (("run", report.run), ("baseline", report.baseline), *(("note", one) for one in report.notes)):
        ElementTree.SubElement(facts, "property", {"name": name, "value": escape.xml(str(value))})
    for one in report.checks:
        case = ElementTree.SubElement(suite, "testcase", {"name": one.name, "classname": "cpmi-eval", "time": "0"})
        _said(case, one).text = escape.xml("\n".join((one.summary, *one.lines)))
    ElementTree.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(whole, encoding="unicode")


def _said(case: ElementTree.Element, check: Check) -> ElementTree.Element:
    """Add the element that holds what a check says."""
    if check.verdict == "fail":
        return ElementTree.SubElement(case, "failure", {"message": escape.xml(check.summary), "type": check.name})
    return ElementTree.SubElement(case, "skipped" if check.verdict == "skipped" else "system-out")
