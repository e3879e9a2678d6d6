"""The task `detection` from images to a score: the same bits again, after an interruption, by two workers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from annotated import coco, task, trial, write_coco, write_voc
from torch import nn

from trainables.core.errors import TrialFailed, UserError
from trainables.downstream.detection import run, training
from trainables.downstream.detection.detectors import build_detector
from trainables.downstream.detection.reading import read_data
from trainables.downstream.detection.run import detection
from trainables.downstream.detection.training import Training, learning_rate
from trainables.downstream.outcome import Outcome
from trainables.downstream.run import evaluate
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.parse import build
from trainables.spec.suite import SuiteSpec
from trainables.spec.suite_detection import PRESETS, DetectionTask
from trainables.spec.trial import DataSpec, ModelSpec
from trainables.training.checkpoints import Checkpoints
from trainables.training.workspace import EpochReport, Workspace


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "scenes")


_MASKS = {"detector": "mask_rcnn", "iterations": 1, "region_samples": 4, "proposals": 8}


def student() -> Backbone:
    return build_backbone(ModelSpec(arch="test_resnet"), 0).eval()


def place(folder: Path) -> Workspace:
    return Workspace(folder / "work", folder / "cache", folder / "teachers")


class Kept:
    """Keeps the detector that a run builds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.detectors: list[nn.Module] = []
        monkeypatch.setattr(run, "build_detector", self.build)

    def build(self, *arguments: Any) -> Any:
        self.detectors.append(build_detector(*arguments))
        return self.detectors[-1]

    @property
    def last(self) -> dict[str, torch.Tensor]:
        return {name: of.clone() for name, of in self.detectors[-1].state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"precision": "bfloat16", "iterations": 1},
        {"neck": "c4", "anchors": [8, 16, 32], "head_norm": True, "flip": True, **_MASKS},
    ],
    ids=["faster_rcnn fpn", "bfloat16", "mask_rcnn c4"],
)
def test_the_same_seed_gives_the_same_bits(
    scenes: Path, tmp_path: Path, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, network, kept = task(scenes, **fields), student(), Kept(monkeypatch)
    before = {name: of.clone() for name, of in network.state_dict().items()}
    outcome = detection(spec, network, trial(), 0, place(tmp_path))
    first = kept.last
    torch.rand(3)  # whatever the process did in between
    again = detection(spec, network, trial(), 0, place(tmp_path))
    assert same(first, kept.last) and outcome.metrics() == again.metrics()
    assert same(before, network.state_dict())  # a copy was trained
    name = "rcnn.backbone.maps.model.layer2.0.conv1.weight"
    assert not torch.equal(first[name], before[name.removeprefix("rcnn.backbone.maps.")])
    if not fields:
        detection(spec, network, trial(), 1, place(tmp_path))
        assert not same(first, kept.last)
    assert (outcome.metric, outcome.fitted, outcome.tested, outcome.hits) == ("box_map", 16, 8, None)
    further = {"box_ap50", "box_ap75"} | (
        {"mask_map", "mask_ap50", "mask_ap75"} if "neck" in fields else set()
    )
    assert outcome.further.keys() == further and 0 <= outcome.score <= 100


def test_an_interrupted_training_ends_as_one_that_was_not(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, kept = task(scenes, iterations=4, flip=True, min_size=[48, 56, 64]), Kept(monkeypatch)
    whole = detection(spec, student(), trial(), 0, place(tmp_path))
    wanted = kept.last
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 2)
    step = Training._step

    def dies(self: Training, *arguments: Any) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(Training, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        detection(spec, student(), trial(), 0, place(tmp_path))
    folder = tmp_path / "work" / "detection"
    assert len(list(folder.iterdir())) == 1
    steps: list[int] = []

    def counts(self: Training, *arguments: Any) -> None:
        steps.append(self.step)
        step(self, *arguments)

    monkeypatch.setattr(Training, "_step", counts)
    other = detection(spec, student(), trial(), 1, place(tmp_path / "other"))
    assert steps == [0, 1, 2, 3] and other.metrics().keys() == whole.metrics().keys()
    steps.clear()
    again = detection(spec, student(), trial(), 0, place(tmp_path))
    assert steps == [2, 3] and same(wanted, kept.last) and again.metrics() == whole.metrics()
    assert not folder.exists()  # nothing is left to go on from


def test_a_checkpoint_of_another_network_or_seed_is_not_used(scenes: Path, tmp_path: Path) -> None:
    spec = task(scenes)
    data = read_data(spec)

    def made() -> Training:
        detector = build_detector(spec, student(), len(data.categories))
        return Training(spec, detector, data.train, data.categories, 0, torch.device("cpu"))

    checkpoints = Checkpoints(tmp_path / "detection")
    first = made()
    first.step = 1
    first._save(checkpoints, "one")
    for identity, step in (("one", 1), ("other", 0)):
        second = made()
        second._resume(checkpoints.load(), identity)
        assert second.step == step


def test_a_loss_falls(scenes: Path) -> None:
    """Enough steps on four scenes that the detector knows them."""
    spec = task(scenes, iterations=30, lr=0.02)
    data = read_data(spec)
    torch.manual_seed(0)
    detector = build_detector(spec, student(), len(data.categories))
    made = Training(spec, detector, data.train[:4], data.categories, 0, torch.device("cpu"))
    losses: list[float] = []
    loss = made._loss

    def kept(*arguments: Any) -> torch.Tensor:
        found = loss(*arguments)
        losses.append(found.item())
        return found

    made._loss = kept  # type: ignore[method-assign]
    made.run(Checkpoints(Path("never written")), "")
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_passes_of_one_step_are_one_step(scenes: Path) -> None:
    """With fixed batch norms, and all regions in both, the mean of two passes is the pass of all."""
    grads = []
    for accumulate in (1, 2):
        spec = task(scenes, accumulate=accumulate, batch_norm="frozen", iterations=1, region_samples=2000)
        data = read_data(spec)
        torch.manual_seed(0)
        detector = build_detector(spec, student(), len(data.categories)).train()
        rpn = detector.rcnn.rpn
        rpn.fg_bg_sampler.batch_size_per_image = 10**6  # all anchors: nothing is drawn
        made = Training(spec, detector, data.train, data.categories, 0, torch.device("cpu"))
        examples = [made._example(drawn, masks=False) for drawn in made.draws.of_step(0)]
        sizes: list[int] = []
        loss = made._loss

        def counted(
            module: nn.Module, batch: Any, loss: Any = loss, sizes: list[int] = sizes
        ) -> torch.Tensor:
            sizes.append(len(batch))
            found: torch.Tensor = loss(module, batch)
            return found

        made._loss = counted  # type: ignore[method-assign]
        made._step(detector, examples)
        assert sizes == [4 // accumulate] * accumulate
        grads.append({name: p.grad for name, p in detector.named_parameters() if p.grad is not None})
    name = "rcnn.roi_heads.box_predictor.cls_score.weight"
    one, two = (found[name] for found in grads)
    assert torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), 0) > 0.95


def test_the_learning_rate_warms_up_and_drops(scenes: Path) -> None:
    spec = task(scenes, iterations=24_000, warmup=100, lr=0.02, drops=[18 / 24, 22 / 24])
    rates = [learning_rate(spec, step, 24_000) for step in (0, 50, 100, 17_999, 18_000, 21_999, 22_000)]
    wanted = [0.02e-3, 0.02 * (1e-3 + 0.999 / 2), 0.02, 0.02, 0.002, 0.002, 0.0002]
    assert rates == pytest.approx(wanted)
    assert learning_rate(task(scenes, warmup=1000), 2, 20) == 0.01  # at most a tenth of a short training


def test_a_loss_that_is_not_finite_fails_the_trial(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"not finite at step \d+ of 6; a lower `lr` \(1e\+20\)"):
        detection(task(scenes, lr=1e20, iterations=6), student(), trial(), 0, place(tmp_path))


def test_as_an_action_of_a_lane(scenes: Path, tmp_path: Path) -> None:
    said: list[EpochReport] = []
    spec = task(scenes).model_dump(mode="json")
    evaluate(
        trial(), report=lambda one: bool(said.append(one)) or True, workspace=place(tmp_path),
        who="start", weights=None, task=spec, seed=0,
    )  # fmt: skip
    (one,) = said
    assert one.epoch == 1 and {"score", "fitted", "tested", "further/box_ap50"} <= one.metrics.keys()


def _work(number: int, spec: dict[str, Any], out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=number, world_size=2)
    built: list[nn.Module] = []
    make = run.build_detector

    def kept(*arguments: Any) -> Any:
        built.append(make(*arguments))
        return built[-1]

    run.build_detector = kept
    for batch_norm in ("sync", "train"):
        one = build(DetectionTask, {**spec, "batch_norm": batch_norm})
        outcome = detection(one, student(), trial(), 0, place(Path(out)))
        torch.save((built[-1].state_dict(), outcome.metrics()), f"{out}/{batch_norm}{number}.pt")
    dist.destroy_process_group()


def test_two_workers_end_with_one_detector_and_one_score(scenes: Path) -> None:
    spec = task(scenes, head_norm=True, iterations=1).model_dump(mode="json")
    with tempfile.TemporaryDirectory() as out:
        mp.spawn(_work, (spec, out), nprocs=2)
        for batch_norm in ("sync", "train"):
            (one, said), (two, heard) = (torch.load(f"{out}/{batch_norm}{number}.pt") for number in range(2))
            assert same(one, two) and said == heard and said["tested"] == 8


def test_settings_of_a_preset_and_beside_it(scenes: Path) -> None:
    parts = {"train": coco(scenes, "train"), "val": coco(scenes, "val")}
    voc = build(DetectionTask, {"preset": "voc_c4", **parts})
    assert (voc.neck, voc.iterations, voc.batch, voc.lr, voc.min_size[0]) == ("c4", 24_000, 16, 0.02, 480)
    assert [round(share * 24_000) for share in voc.drops] == [18_000, 22_000]
    short = build(DetectionTask, {"preset": "voc_c4", "epochs": 3, "min_size": 128, **parts})
    assert short.iterations is None and short.epochs == 3 and short.min_size == (128,)
    for name in PRESETS:  # each is complete but for the images, and read again from its dump
        one = build(DetectionTask, {"preset": name, **parts})
        assert build(DetectionTask, one.model_dump(mode="json")) == one


def test_a_task_is_known_by_its_settings_and_the_content_of_its_annotations(
    scenes: Path, tmp_path: Path
) -> None:
    data = DataSpec()
    key = task(scenes).key(data)
    moved = write_coco(tmp_path / "moved")
    assert task(moved).key(DataSpec(name="cifar10", image_size=32)) == key
    assert task(scenes, lr=0.02).key(data) != key
    file = moved / "annotations/instances_val.json"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    assert task(moved).key(data) != key
    voc = {"train": write_voc(scenes, "train", tmp_path / "voc")}
    named = task(scenes, **voc).key(data)
    assert task(scenes, **voc).key(data) == named
    xml = tmp_path / "voc/Annotations/000000000002.xml"
    changed = xml.with_name("changed")
    changed.write_text(xml.read_text().replace("<xmin>", "<xmin>0"))
    changed.replace(xml)  # as editors do
    assert task(scenes, **voc).key(data) != named


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"preset": "voc4"}, "preset", "Did you mean 'voc_c4'"),
        ({"epochs": 3}, "epochs", "stands beside `iterations`"),
        ({"iterations": None}, "epochs", "is missing"),
        ({"train": {"images": "x"}}, "train.annotations", "is missing beside `images`"),
        ({"train": {"root": "x"}}, "train.image_set", "is missing beside `root`"),
        ({"train": {"root": "x", "image_set": "../a"}}, "train.image_set", "is no name of a list"),
        ({"train": {"root": "x", "annotations": "y"}}, "train", "mixes the fields of two formats"),
        ({"val": []}, "val", "says no images"),
        ({"val": {}}, "val", "says no images"),
        ({"val": [{"rot": "x"}]}, "val.0.rot", "Did you mean 'root'"),
        ({"val": {"images": 3, "annotations": "x"}}, "val.images", "is no path"),
        ({"neck": "c5"}, "neck", "no such choice.*Known: c4, fpn"),
        ({"detector": "yolo"}, "detector", "no such choice"),
        ({"batchsize": 3}, "batchsize", "Did you mean 'batch'"),
        ({"lr": True}, "lr", "not yes or no"),
        ({"min_size": []}, "min_size", "wrong value"),
        ({"min_size": 8}, "min_size", "32"),
        ({"max_size": 60}, "max_size", "less than the largest of min_size, 64"),
        ({"drops": [0.9, 0.5]}, "drops", "not in order"),
        ({"drops": [1.5]}, "drops.0", "less than 1.*shares of the training"),
        ({"accumulate": 3}, "accumulate", "a divisor of batch, 4"),
        ({"frozen_stages": 5}, "frozen_stages", "4"),
        ({"data": {"name": "cifar10"}}, "data", "is for tasks on labelled images"),
    ],
)
def test_mistakes_in_a_task(scenes: Path, fields: dict[str, Any], field: str, message: str) -> None:
    raw = {"task": "detection", **task(scenes).model_dump(mode="json"), **fields}
    with pytest.raises(UserError, match=message) as caught:
        build(SuiteSpec, {"name": "s", "tasks": {"boxes": raw}})
    assert caught.value.field == f"tasks.boxes.{field}"


def test_an_outcome_of_one_image_that_cannot_be_decoded(scenes: Path, tmp_path: Path) -> None:
    copied = write_coco(tmp_path / "scenes")
    broken = sorted((copied / "val").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match=f"val: {broken}: cannot be decoded"):
        detection(task(copied), student(), trial(), 0, place(tmp_path))
    assert isinstance(detection(task(scenes), student(), trial(), 0, place(tmp_path)), Outcome)
