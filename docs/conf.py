"""Sphinx settings. `make docs` builds these pages and an API reference from the docstrings."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

project = "raykd"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "raykd"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["raykd.css"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # for links such as machines.md#signals
highlight_language = "none"
suppress_warnings = ["ref.python"]  # a type's short name may be that of classes in two modules
toc_object_entries = False  # the sidebar lists modules; with every function in it a build takes twice as long


def outside(app: object, page: str, source: list[str]) -> None:
    """Links out of docs/ (`../CONTRIBUTING.md`) become downloads: those files are no pages of the site."""
    source[0] = re.sub(r"\]\(\.\./", "](path:../", source[0])


def setup(app: Any) -> None:
    """Called by Sphinx before it reads a page."""
    from api_reference import write

    write(HERE / "api")
    app.connect("source-read", outside)
