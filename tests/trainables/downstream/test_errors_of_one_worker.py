"""Two gloo workers of which one cannot use a file: the error reaches both, and they stay in step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from annotated import task, trial, write_coco
from processes import run_workers
from tasks import DIGITS
from tiny_trials import process_group, workspace

from trainables.core.checksums import save_with_checksum
from trainables.core.workers import from_each
from trainables.data.data_sets import open_data
from trainables.downstream.detection.detectors import Detector, build_detector
from trainables.downstream.detection.reading import DetectionData, read_data
from trainables.downstream.detection.scoring import find
from trainables.downstream.detection.training import Training
from trainables.downstream.run import evaluate
from trainables.downstream.subject import open_subject
from trainables.training.checkpoints import Checkpoints

# Scenario -> what the error of the one worker says.
SAID = {
    "student": "student-1.safetensors cannot be used",
    "outcomes": "File exists",
    "train": "cannot be decoded",
    "val": "cannot be decoded",
}
CPU = torch.device("cpu")


def scenarios(number: int, root: Path) -> dict[str, Callable[[], object]]:
    """What a worker does. The second one has damaged images, the first one a file where its folder is."""
    spec = task(root / ("damaged" if number == 1 else "scenes"), iterations=2)

    def evaluated(who: str, weights: str | None, folder: str) -> None:
        asked = {"task": "frozen", "labels": 0.1}
        place = replace(workspace(root), folder=root / folder)
        evaluate(
            DIGITS, report=lambda one: True, workspace=place, who=who, weights=weights, task=asked, seed=0
        )

    def made() -> tuple[Detector, DetectionData]:
        data = read_data(spec)
        return build_detector(spec, open_subject(trial(), "start", None, root), len(data.categories)), data

    def trained() -> None:
        detector, data = made()
        training = Training(spec, detector, data.train, data.categories, 0, CPU)
        training.run(Checkpoints(root / "checkpoints"), "")

    def found() -> None:
        detector, data = made()
        find(detector, data.val, CPU)

    return {
        "student": lambda: evaluated("student", str(root / f"student-{number}.safetensors"), "task"),
        "outcomes": lambda: evaluated("start", None, "a file" if number == 0 else "task"),
        "train": trained,
        "val": found,
    }


def worker(number: int, name: str, root: Path) -> None:
    process_group(number, 2, str(root / f"rendezvous-{name}"))
    try:
        scenarios(number, root)[name]()
        said = ""
    except Exception as error:
        said = str(error)
    torch.save(from_each(said), root / f"{name}-{number}.pt")  # waits for the other one
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both workers read: scenes, the same ones damaged, a student that the first one alone has."""
    root = tmp_path_factory.mktemp("one")
    scenes = write_coco(root / "scenes")
    shutil.copytree(scenes, root / "damaged")
    for part in ("train", "val"):
        for image in (root / "damaged" / part).iterdir():
            image.write_bytes(b"no image")
    (root / "a file").touch()
    student = open_subject(DIGITS, "start", None, root)
    save_with_checksum(student.model.state_dict(), root / "student-0.safetensors", {})
    open_data(DIGITS.data, root / "cache")
    return root


@pytest.mark.parametrize("name", SAID)
def test_the_error_of_one_worker_reaches_both(root: Path, name: str) -> None:
    run_workers(worker, [(number, name, root) for number in range(2)], 60)
    for number in range(2):
        assert all(SAID[name] in said for said in torch.load(root / f"{name}-{number}.pt"))
