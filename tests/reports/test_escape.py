"""Text of models and users in every form of output: nothing of it is taken for a command, markup or a formula."""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpmi_eval.reports import escape

HOSTILE = (
    "x\x1b]0;title\x07 \x1b[2K\x9b31m \u202eright to left\u2066 \ud800 | *a* _b_ `c` <b>&lt; [l](u) ~~d~~ @me #1 a_b"
)
RAW = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
TEXTS = st.text(st.characters(exclude_categories=())).map(lambda text: text + HOSTILE)


@pytest.mark.parametrize("form", [escape.terminal, escape.line, escape.markdown, escape.code, escape.csv, escape.html])
@given(text=TEXTS)
def test_no_form_carries_a_control_character(form: object, text: str) -> None:
    shown = form(text)  # type: ignore[operator]
    assert not RAW.search(shown)
    shown.encode()


@given(TEXTS)
def test_json_keeps_the_value_and_carries_no_control_character(text: str) -> None:
    for markup in (True, False):
        written = escape.json({"a": [text, 1.5, None]}, markup=markup)
        assert not RAW.search(written)
        assert json.loads(written) == {"a": [text, 1.5, None]}
    assert not re.search("[<>&]", escape.json(text, markup=False))
    with pytest.raises(ValueError, match="Out of range"):
        escape.json(float("nan"))


def test_what_is_spelled_out_can_be_read() -> None:
    assert escape.terminal("a\x1b[31m\u202eb\n\tc") == "a\\x1b[31m\\u202eb\n\tc"
    assert escape.line("a\n\tb  c") == "a b c"
    assert escape.terminal("∑ x₁ ≤ é 漢 🙂") == "∑ x₁ ≤ é 漢 🙂"


def test_markdown_is_text() -> None:
    assert escape.markdown("a|b *c* _d_ e_f __g__ `h` <i> [j](k)\nl") == (
        "a\\|b \\*c\\* \\_d\\_ e_f \\_\\_g\\_\\_ \\`h\\` \\<i> \\[j](k) l"
    )
    assert escape.markdown("&lt; a & b @me me@x #1 bon@8 #") == "\\&lt; a & b \\@me me@x \\#1 bon@8 #"
    assert [escape.markdown(one) for one in ("- a", "# a", "-1")] == ["\\- a", "\\# a", "-1"]
    assert escape.code("a``b") == "``` a``b ```"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "＝1"])
def test_csv_cells_begin_no_formula(cell: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([escape.csv(cell), escape.csv(-1.5), escape.csv(None), escape.csv("a=1")])
    (row,) = csv.reader([stream.getvalue()])
    assert row[0].startswith("'")
    assert row[1:] == ["-1.5", "", "a=1"]


@given(TEXTS)
def test_html_is_text(text: str) -> None:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.handle_starttag = lambda *_: pytest.fail("an element")  # type: ignore[method-assign]
    parser.feed(escape.html(text))
    parser.close()
    assert "".join(found) == escape.terminal(text)
    assert html.unescape(escape.html(text)) == escape.terminal(text)


@given(TEXTS)
def test_xml_holds_any_text(text: str) -> None:
    element = ElementTree.Element("a", {"b": escape.xml(text)})
    element.text = escape.xml(text)
    assert ElementTree.fromstring(ElementTree.tostring(element, encoding="unicode")).text is not None
