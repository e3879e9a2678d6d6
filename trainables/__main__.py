"""Train one trial without an engine: `python -m trainables TRIAL.yaml --folder DIR`.

TRIAL is a JSON or YAML file that `resolve` reads. Prints one JSON object an epoch. With a folder that holds a
checkpoint, training continues from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 trained, 1 the trial failed, 2 it cannot work."""
    parser = argparse.ArgumentParser(prog="python -m trainables", description="Train one trial.")
    parser.add_argument("trial", type=Path, help="JSON or YAML file: method, student, teacher, data, ...")
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints and the student go")
    parser.add_argument("--cache", type=Path, help="decoded images (default: $RAYKD_CACHE or ~/.cache/raykd)")
    parser.add_argument("--teachers", type=Path, help="trained teachers (default: FOLDER/teachers)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    options = parser.parse_args(arguments)

    import torch  # after the arguments: --help should not wait for it

    from trainables.core.errors import TrialFailed, UserError
    from trainables.core.files import cache_folder, guard
    from trainables.core.safe_text import line
    from trainables.core.workers import on_device
    from trainables.planning.check import TrialChecker
    from trainables.training.loop import prepare, train
    from trainables.training.resolve import resolve
    from trainables.training.workspace import EpochReport, Workspace

    guard(options.folder)

    def say(what: str, report: EpochReport) -> bool:
        print(json.dumps({"what": what, "epoch": report.epoch, **report.metrics}), flush=True)
        return True

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        workspace = Workspace(
            options.folder, options.cache or cache_folder(), options.teachers or options.folder / "teachers"
        )
        where = _device(options.device)
        print(f"training on {_named(where)}", file=sys.stderr)
        with on_device(where):
            trial = resolve(_read(options.trial))
            TrialChecker().check(trial)  # before a teacher is trained
            prepare(trial, workspace, lambda report: say("teacher", report))
            train(trial, lambda report: say("trial", report), workspace)
    except UserError as error:
        print(f"error: {line(error)}", file=sys.stderr)
        return 2
    except TrialFailed as error:
        print(f"failed: {line(error)}", file=sys.stderr)
        return 1
    return 0


def _device(asked: str) -> torch.device:
    """The device of that name; `auto`: the first GPU, or the CPU. `UserError` for one that is not there."""
    import torch

    from trainables.core.errors import UserError

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    choices = ["auto", "cpu", *(["cuda"] if there else []), *(f"cuda:{n}" for n in range(there))]
    if asked not in choices:
        problem = "no such device" if there else "no such device: torch sees no GPU here"
        raise UserError("--device", problem, value=asked, choices=choices)
    if asked == "auto":
        asked = "cuda" if there else "cpu"
    return torch.device("cuda:0" if asked == "cuda" else asked)


def _named(where: torch.device) -> str:
    import torch

    return f"{where} ({torch.cuda.get_device_name(where)})" if where.type == "cuda" else "the CPU"


def _read(path: Path) -> dict[str, object]:
    from trainables.core.errors import UserError

    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError("trial", f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(
            "trial", f"{path} holds no mapping", expected="method: ..., student: ..., epochs: ..."
        )
    return content


if __name__ == "__main__":
    sys.exit(main())
