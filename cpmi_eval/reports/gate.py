"""What the gate prints: a table for a terminal, markdown for GitHub's step summary, JUnit for test reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cpmi_eval.gate.check import Report
from cpmi_eval.gate.checks import Check

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

STYLES = {"pass": "green", "fail": "bold red", "skipped": "dim"}
SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "skipped": "⚪ skipped"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def verdict(report: Report) -> str:
    """Return the outcome in a sentence."""
    if report.failed:
        return f"failed: {', '.join(report.failed)}"
    skipped = [one.name for one in report.checks if one.verdict == "skipped"]
    return "passed" + (f"; not checked: {', '.join(skipped)}" if skipped else "")


def table(report: Report, *, update: bool = False) -> Group:
    """Return the report for a terminal; with ``update``, as what replacing the baseline changes."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"{report.baseline}: what {report.run} changes" if update else f"{report.run} against {report.baseline}"
    words = {"pass": "kept", "fail": "moved"} if update else {}
    checks = Table(title=Text(title), title_justify="left")
    checks.add_column("check", no_wrap=True)
    checks.add_column("verdict", no_wrap=True)
    checks.add_column("what moved", overflow="fold")
    for one in report.checks:
        lines = Text("\n".join((one.summary, *(f"  {line}" for line in one.lines))))
        checks.add_row(one.name, Text(words.get(one.verdict, one.verdict), STYLES[one.verdict]), lines)
    return Group(checks, *map(Text, report.notes), *(() if update else _outcome(report)))


def _outcome(report: Report) -> Iterator[Text]:
    """Yield the last lines: whether it passed, and what to do otherwise."""
    from rich.text import Text

    yield Text(verdict(report), STYLES["fail" if report.failed else "pass"])
    if report.failed:
        yield Text(f"if this is meant, make it the baseline: {report.update}")


def markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured markdown."""
    lines = [
        f"### cpmi-eval check: {_escaped(verdict(report))}",
        "",
        f"{_code(str(report.run))} against {_code(str(report.baseline))}",
        "",
        "| check | verdict | what moved |",
        "| --- | --- | --- |",
    ]
    for one in report.checks:
        moved = "<br>".join(map(_escaped, (one.summary, *one.lines)))
        lines.append(f"| {one.name} | {SIGNS[one.verdict]} | {moved} |")
    if report.notes:
        lines += ["", *(f"- {_escaped(note)}" for note in report.notes)]
    if report.failed:
        lines += ["", f"If this is meant, make it the baseline: {_code(report.update)}"]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Keep markdown and HTML from reading a mark into what is text."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\*_|`~\[\]#@])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return a code span that may hold backticks."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def junit(report: Report) -> str:
    """Return the report as JUnit XML: a test case per check."""
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
    suite = ElementTree.SubElement(whole, "testsuite", {"name": _xml(f"check of {report.run}"), **counts})
    facts = ElementTree.SubElement(suite, "properties")
    for name, value in (("run", report.run), ("baseline", report.baseline), *(("note", one) for one in report.notes)):
        ElementTree.SubElement(facts, "property", {"name": name, "value": _xml(str(value))})
    for one in report.checks:
        case = ElementTree.SubElement(suite, "testcase", {"name": one.name, "classname": "cpmi-eval", "time": "0"})
        _fill(case, one)
    ElementTree.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(whole, encoding="unicode")


def _fill(case: ElementTree.Element, check: Check) -> None:
    text = "\n".join((check.summary, *check.lines))
    if check.verdict == "fail":
        failure = {"message": _xml(check.summary), "type": check.name}
        ElementTree.SubElement(case, "failure", failure).text = _xml(text)
    elif check.verdict == "skipped":
        ElementTree.SubElement(case, "skipped").text = _xml(text)
    else:
        ElementTree.SubElement(case, "system-out").text = _xml(text)


def _xml(text: str) -> str:
    """Replace what XML cannot hold."""
    return _NOT_XML.sub("�", text)
