"""Write scenes of digits: `python -m trainables.data.scenes DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.core.errors import UserError
from trainables.core.safe_text import line
from trainables.data.scenes.coco import SOURCES, write_scenes


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 2 it cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m trainables.data.scenes",
        description="Write scenes of digits with boxes and instance masks in COCO's format.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a new folder")
    parser.add_argument("--train", type=int, default=400, help="scenes to train on")
    parser.add_argument("--val", type=int, default=100, help="scenes for validation")
    parser.add_argument("--side", type=int, default=128, help="of a scene, pixels")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument(
        "--sources", nargs="+", default=["digits"], metavar="NAME", help=f"the digits: {', '.join(SOURCES)}"
    )
    given = vars(parser.parse_args(arguments))
    folder, sources = given.pop("folder"), tuple(given.pop("sources"))
    try:
        made = write_scenes(folder, sources=sources, **given)
    except UserError as error:
        print(f"error: {line(error)}", file=sys.stderr)
        return 2
    for part, digits in made.items():
        print(f"{part}: {given[part]} scenes, {digits} digits: {folder}/annotations/instances_{part}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
