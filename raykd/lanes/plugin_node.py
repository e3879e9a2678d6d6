"""Has this node the modules that a sweep names as its plug-ins? Asked by `plugin_nodes.py`.

It runs in a fresh interpreter on the node. The request is JSON on standard input, the answer is the last line
of standard output.

    what `plugins.luggage` gives, its archives in base 64     -> {"problem": …}, "" where all is well
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.core import plugins
from trainables.core.errors import UserError


def request(wanted: Mapping[str, str]) -> dict[str, Any]:
    """The request about these modules, module -> hash of its code."""
    bag = plugins.luggage(wanted)
    return {**bag, "archives": {name: base64.b64encode(a).decode() for name, a in bag["archives"].items()}}


def unpack(asked: Mapping[str, Any], folder: Path) -> str:
    """Import the modules of a `request`, their files below `folder`; what is wrong with them here, or ""."""
    archives = {name: base64.b64decode(text) for name, text in asked["archives"].items()}
    try:
        plugins.unpack({**asked, "archives": archives}, folder)
    except UserError as error:
        return str(error)
    return ""


def main() -> None:
    """Answer the request on standard input."""
    with tempfile.TemporaryDirectory() as folder:
        problem = unpack(json.load(sys.stdin), Path(folder))
    print("\n" + json.dumps({"problem": problem}))


if __name__ == "__main__":
    main()
