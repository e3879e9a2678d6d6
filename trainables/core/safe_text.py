"""Untrusted text made safe for its destination: a terminal, Markdown, LaTeX, a spreadsheet.

Names of arms, classes, files and hosts, texts of exceptions, and the content of ledgers and checkpoints come
from outside. A terminal obeys escape sequences, bidirectional controls mislead a reader, Markdown loads
pictures from the web, LaTeX runs commands, a spreadsheet runs formulas. HTML is escaped in
`raykd/report/page.py`.

    plain    for a terminal or a log: line breaks stay, control characters are shown as `\\x1b`
    line     the same in one line
    markdown, code    in a line or a cell of Markdown, as text or as code
    latex    in LaTeX's text
    cell     in a spreadsheet (CSV)
"""

from __future__ import annotations

import re
from typing import Any

# Control characters except tab and line feed; single surrogates, which cannot be encoded; Unicode's
# bidirectional controls; line and paragraph separators; invisible characters: tags, the byte order mark. The
# joiners that some scripts need (ZWNJ, ZWJ) stay.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_TEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
        "×": r"$\times$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
        "±": r"$\pm$", "–": "--", "≥": r"$\geq$", "−": "$-$",
        # In LaTeX's default font encoding these three are other characters.
        "<": "$<$", ">": "$>$", "|": "$|$",
    }
)  # fmt: skip
# What Markdown takes for markup in a name.
_MARKUP = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])"  # a backslash that would hide what follows
    r"|[*|]"
    r"|<(?=[A-Za-z/!?])"  # HTML, or an address
    r"|&(?=#?\w+;)"  # an entity
    r"|(?<=\])[(\[:]"  # a link, a picture
    r"|~(?=~)|(?<=~)~"
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word it is none
    r"|(?<=[A-Za-z]):(?=//)|(?<=www)\.|@"  # addresses, mentions
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # full-width forms, too


def plain(text: Any) -> str:
    """Text without control characters, for a terminal. Line breaks and tabs stay."""
    return _CONTROLS.sub(_shown, str(text))


def line(text: Any) -> str:
    """The same in one line: a line break is shown as `\\n`."""
    return plain(text).replace("\n", r"\n").replace("\t", " ")


def markdown(text: Any) -> str:
    """Text in a line or a table's cell of Markdown: no HTML, no link, no picture, no emphasis, no column."""
    return _MARKUP.sub(lambda found: {"<": "&lt;", "&": "&amp;"}.get(found[0], "\\" + found[0]), line(text))


def code(text: Any) -> str:
    """Code in a line or a table's cell of Markdown."""
    said = line(text).replace("|", r"\|") or " "
    ticks = "`" * (1 + max(map(len, re.findall("`+", said)), default=0))
    pad = " " if said[0] == "`" or said[-1] == "`" else ""
    return f"{ticks}{pad}{said}{pad}{ticks}"


def latex(text: Any) -> str:
    """Text in LaTeX, in which none of its characters is a command."""
    return line(text).translate(_TEX)


def cell(value: Any) -> Any:
    """A value in a CSV file: text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    said = line(value)
    return f"'{said}" if value.lstrip(" ").startswith(_FORMULA) else said


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
