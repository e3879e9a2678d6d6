"""Writes a `Page` as one HTML file that needs no network and no other file.

plotly.js is packed inside (gzip, as text: 2 MB instead of 5) and unpacked by the browser. A content security
policy forbids every request and every script but the page's own two, known by their hashes, so that no text
of a sweep can become one even if escaping failed. Without scripts the page still holds every number.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from raykd.console.wording import finite
from raykd.report.elements import Page

# Every colour of page and figures, by day and by night; contrast with the ground at least 4.5 for text.
PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "ground": "#ffffff", "panel": "#f5f6f8", "line": "#d5d9e0", "ink": "#1b1f24", "quiet": "#57606a",
        "link": "#0b5cad", "best": "#b3480b", "finished": "#1d6fb8", "stopped": "#6e7781",
        "failed": "#cf222e", "running": "#1a7f37", "faint": "#c3c9d1", "paper": "#7a3fc4",
        "warn": "#7a4b00", "warnground": "#fff6df",
        "q1": "#b3480b", "q2": "#a67c00", "q3": "#5b93c4", "q4": "#a9b2bd",
        "c1": "#b3480b", "c2": "#1d6fb8", "c3": "#1a7f37", "c4": "#7a3fc4", "c5": "#9a6b00",
        "c6": "#0f7c85", "c7": "#b0307a", "c8": "#57606a",
    },
    "dark": {
        "ground": "#14171b", "panel": "#1d2127", "line": "#363c45", "ink": "#e6e9ed", "quiet": "#a3acb8",
        "link": "#79b8ff", "best": "#ff9d57", "finished": "#6cb2f5", "stopped": "#9aa4b0",
        "failed": "#ff7b72", "running": "#56c271", "faint": "#454d57", "paper": "#c49bff",
        "warn": "#f2cf7d", "warnground": "#302a18",
        "q1": "#ff9d57", "q2": "#e0c050", "q3": "#4f86b8", "q4": "#4a525c",
        "c1": "#ff9d57", "c2": "#6cb2f5", "c3": "#56c271", "c4": "#c49bff", "c5": "#e0c050",
        "c6": "#4fc3cd", "c7": "#f283bf", "c8": "#a3acb8",
    },
}  # fmt: skip


def render(page: Page) -> str:
    """The page as HTML."""
    (packed, plotly_hash), script = _plotly(), _text("page.js")
    plots: list[dict[str, Any]] = []

    def keep(plot: dict[str, Any]) -> int:
        plots.append(plot)
        return len(plots) - 1

    template = _environment().get_template("page.html")
    body = template.render(
        page=page,
        keep=keep,
        data=lambda: _json({"palettes": PALETTES, "plots": plots}),
        style=_text("page.css"),
        colours={mode: _variables(palette) for mode, palette in PALETTES.items()},
        script=script,
        packed=packed,
        policy=f"default-src 'none'; script-src '{_hash(script)}' '{plotly_hash}'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'",
    )
    return f"{body}\n"


@lru_cache(maxsize=1)
def _plotly() -> tuple[str, str]:
    """(plotly.js as a page holds it, its hash)."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return base64.b64encode(gzip.compress(source.encode(), mtime=0)).decode(), _hash(source)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ticked"] = _ticked
    return environment


def _ticked(text: str) -> Markup:
    """The text escaped, with parts between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _text(name: str) -> str:
    return (files("raykd.report") / name).read_text(encoding="utf-8")


def _variables(palette: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


def _hash(script: str) -> str:
    """The hash of a script's text, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: Any) -> str:
    """JSON for a script element: without `<`, so that nothing in it can end the element.

    Numbers that are not finite are null, where plotly leaves a gap.
    """
    text = json.dumps(finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
