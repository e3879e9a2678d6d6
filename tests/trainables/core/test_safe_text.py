"""Text of somebody else's is shown and never obeyed: on terminals, in Markdown, LaTeX and spreadsheets."""

from __future__ import annotations

import csv
import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # rich brings it

from trainables.core.safe_text import cell, code, latex, line, markdown, plain

EVIL = (
    "\x1b[2J\x1b[H", "\x1b]0;owned\x07", "\x1b]8;;http://evil\x1b\\x", "\x9b31m", "a\rb", "a\x08b",
    "a\x00b", "a\x7fb", "a\nraykd: all is well", "a\x0bb", "a\x0cb", "a\x85b", "a\u2028b", "a\u202etxt.exe",
    "a\u2066b\u2069", "a\u200bb", "a\ufeffb", "a\ud800b", "a\U000e0041b", "[red]x[/red]",
    "[link=http://evil]x[/link]", ":smile:", "|x|y|", "`x`", "``", "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>", "![x](http://evil/x.png)", "[x](javascript:alert(1))", "[x][y]",
    "[x]: http://evil", "http://evil.example", "www.evil.example", "*x*", "__x__", "~~x~~", "&lt;b&gt;",
    "\\<b>", "\\\\<b>", "# x", "- x", "> x", "1. x", "---", "    x", "@someone", "\\input{/etc/passwd}",
    "\\write18{id}", "$\\input{x}$", "x%y", "x}y", "x{y", "^^5cinput{x}", "~", "&", "#1", "=1+1", "+1+1",
    "-1+1", "@SUM(1)", "\t=1+1", " =1+1", "=cmd|' /C calc'!A0", "＝1+1", "\r=1", "\"=1\"", "",
)  # fmt: skip
anything = st.one_of(
    st.sampled_from(EVIL),
    st.text(),
    st.lists(st.sampled_from((*EVIL, *"\\`*_[]()<>!|&#~:/@ \n\tax")), max_size=8).map("".join),
)


def is_obeyed(letter: str) -> bool:
    """By Unicode: controls, surrogates, ends of lines, and what reorders text."""
    turns = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return (
        unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in turns
    )


@given(anything)
def test_a_terminal_obeys_nothing(text: str) -> None:
    assert not any(is_obeyed(letter) for letter in plain(text) if letter not in "\n\t")
    assert not any(is_obeyed(letter) for letter in line(text))
    line(text).encode()  # no half of a pair, which UTF-8 cannot write


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert plain(text) == line(text) == text


def test_what_a_terminal_would_obey_can_be_read() -> None:
    assert line("a\x1b[2J\r\nb\u202ec") == r"a\x1b[2J\x0d\nb\u202ec"
    assert plain("a\n\tb") == "a\n\tb"


@pytest.mark.parametrize(
    "name", ["anchors=in_batch", "p < 0.001", "80 ± 1", "[+1.57, +2.72]", "log [0.003, 3]", "α"]
)
def test_ordinary_text_needs_no_escape_in_markdown(name: str) -> None:
    assert markdown(name) == name
    assert code(name) == f"`{name}`"


def rendered(text: str) -> str:
    return MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text)


@given(anything)
def test_markdown_holds_text_alone(text: str) -> None:
    """Rendered with HTML allowed, there is no tag in it but those of its paragraph, cells or code."""
    for said, tags in (
        (f"- x {markdown(text)}", "ul|li|code"),
        (f"| a | b |\n| --- | --- |\n| {markdown(text)} | {code(text)} |", "table|thead|tbody|tr|th|td|code"),
    ):
        html = rendered(said)
        found = re.findall(r"<[^>]*>?", html)
        assert all(re.fullmatch(rf"</?({tags})>", tag) for tag in found), (said, html)
        assert said.count("\n") in (0, 2)
    assert html.count("<td>") == 2, html


@given(anything)
def test_code_in_markdown_is_the_text(text: str) -> None:
    html = rendered(code(text))
    inner = re.fullmatch(r"<p><code>(.*)</code></p>\n", html, re.DOTALL)
    assert inner is not None, html


@given(anything)
def test_latex_has_no_command_of_anothers(text: str) -> None:
    known = (
        r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%_#${}]|\$(\\times|\\pm|\\geq|-|<|>|\|)\$"
    )
    left = re.sub(known, "", latex(text))
    assert not re.search(r"[\\{}$&#^_%~]", left), left
    assert "\n" not in left


@given(anything)
def test_a_spreadsheet_runs_no_formula(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([cell(text), cell(1.5), cell(-2), cell(None)])
    first, *numbers = next(csv.reader(io.StringIO(out.getvalue())))
    assert not first.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
    assert numbers == ["1.5", "-2", ""]
