"""The loop: what it reports, what it leaves behind, and that it can be interrupted anywhere."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_trials import Log, assert_same_bits, final, run, tiny

from trainables.__main__ import main
from trainables.core.checksums import is_whole
from trainables.core.errors import TrialFailed, UserError
from trainables.data.data_sets import open_data
from trainables.evaluation.evaluate import Examiner
from trainables.networks.backbones import build_backbone
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import load_teacher
from trainables.training.loop import prepare, train
from trainables.training.taught import channels_last
from trainables.training.teacher_file import teacher_path, teacher_trial
from trainables.training.workspace import Workspace

LEAN = {"probe": {"record": ()}}  # one probe an epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded digits and the trained teacher, shared by the tests of this file."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("loop")


@pytest.fixture
def place(root: Path, tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "trial", root / "cache", root / "teachers")


def best(place: Workspace) -> dict[str, Any]:
    """What `best.safetensors` holds, weights and metadata."""
    with safe_open(place.folder / "best.safetensors", "pt") as file:
        return {**{name: file.get_tensor(name) for name in file.keys()}, **file.metadata()}  # noqa: SIM118


def test_an_epoch_reports_scores_losses_and_speed_and_the_student_can_be_opened(place: Workspace) -> None:
    trial = tiny("retro", epochs=2)
    heard = run(trial, place)
    assert heard.epochs == [1, 2]
    metrics = heard.reports[-1].metrics
    assert set(metrics) == {
        *(
            "score",
            "score_se",
            "probe/ridge_5shot",
            "probe/ridge_5shot_se",
            "probe/ridge_1shot",
            "probe/ridge_1shot_se",
        ),
        *("probe/ridge", "probe/knn", "loss/total", "loss/distillation", "loss/contrastive"),
        *("lr", "images_per_s", "train_s"),
    }
    assert metrics["score"] == metrics["probe/ridge_5shot"] and 30 < metrics["score"] < 100
    gamma = trial.config["gamma"]
    assert metrics["loss/total"] == pytest.approx(
        metrics["loss/distillation"] + gamma * metrics["loss/contrastive"], rel=1e-5
    )
    assert metrics["images_per_s"] > 0
    assert 0 < heard.reports[0].metrics["train_s"] < metrics["train_s"]

    weights = best(place)
    assert is_whole(place.folder / "best.safetensors") and weights.pop("sha256")
    facts = {name: weights.pop(name) for name, value in list(weights.items()) if isinstance(value, str)}
    top = max(heard.reports, key=lambda report: report.metrics["score"])
    assert facts == {
        "epoch": str(top.epoch),
        "score": repr(top.metrics["score"]),
        "trial": trial.signature(),
        "raykd": "student",
        "arch": trial.student.arch,
        "options": json.dumps(trial.student.options),
        **{name: json.dumps(values) for name, values in IMAGENET._asdict().items()},
        "channels": '"rgb"',
        "interpolation": '"bilinear"',
    }
    model = timm.create_model(trial.student.arch, num_classes=0, **trial.student.options)
    model.load_state_dict(weights, strict=True)


def test_the_best_student_is_the_one_that_scored(place: Workspace) -> None:
    trial = tiny(epochs=2, **LEAN)
    heard = run(trial, place)
    data = open_data(trial.data, place.cache)
    student = build_backbone(trial.student).eval()
    student.model.load_state_dict(load_file(place.folder / "best.safetensors"))
    student.to(memory_format=torch.channels_last)
    examiner = Examiner(trial.probe, data, trial.data.image_size, torch.device("cpu"))
    score = examiner.evaluate(lambda images: student(channels_last(images)))["score"]
    assert score == max(report.metrics["score"] for report in heard.reports)


@pytest.mark.parametrize("method", ["retro", "moco"])
def test_interrupted_after_any_epoch_and_resumed_gives_the_same_bits(
    method: str, root: Path, place: Workspace, tmp_path: Path
) -> None:
    # Dropout in the student, so that the generators matter too.
    student = {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5, "drop_path_rate": 0.2}}
    trial = tiny(method, student=student)
    whole = run(trial, place)
    for name, how in (("stop-1", {"stop": 1}), ("crash-1", {"crash": 1}), ("crash-2", {"crash": 2})):
        other = Workspace(tmp_path / name, place.cache, place.teachers)
        first = Log(**how)
        torch.manual_seed(99)  # whatever the process did before
        try:
            train(trial, first, other)
        except KeyboardInterrupt:
            assert "crash" in how  # before the engine heard of the epoch
        second = run(trial, other)
        assert second.epochs[0] == how.get("stop", how.get("crash"))  # reported again
        assert {**first.timeless(), **second.timeless()} == whole.timeless()
        assert_same_bits(final(other), final(place))
        assert_same_bits(best(other), best(place))


def test_a_finished_trial_is_reported_once_more_and_not_trained(place: Workspace) -> None:
    trial = tiny(epochs=1, **LEAN)
    first = run(trial, place)
    before = {path: path.stat().st_mtime_ns for path in place.folder.rglob("*")}
    again = run(trial, place)
    assert again.reports == first.reports
    assert {path: path.stat().st_mtime_ns for path in place.folder.rglob("*")} == before


def test_a_damaged_checkpoint_costs_an_epoch_and_no_bit(place: Workspace, tmp_path: Path) -> None:
    trial = tiny(**LEAN)
    run(trial, place)
    other = Workspace(tmp_path / "damaged", place.cache, place.teachers)
    run(trial, other, stop=2)
    newest = max((other.folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert run(trial, other).epochs == [1, 2, 3]
    assert_same_bits(final(other), final(place))


def test_what_is_reported_is_on_the_disk(place: Workspace) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.append(max(path.name for path in (place.folder / "checkpoints").iterdir())[:11])
        assert (place.folder / "best.safetensors").exists()

    run(tiny(epochs=2, **LEAN), place, look=look)
    assert seen == ["epoch-00001", "epoch-00002"]


def test_a_folder_of_another_trial_is_refused(place: Workspace) -> None:
    run(tiny(epochs=1, **LEAN), place)
    with pytest.raises(UserError, match="holds another trial's"):
        train(tiny(epochs=1, seed=1, **LEAN), Log(), place)


def test_probes_come_every_few_epochs_and_at_the_end(place: Workspace) -> None:
    heard = run(tiny(probe={"every": 2, "record": ()}), place)
    assert ["score" in report.metrics for report in heard.reports] == [False, True, True]
    assert all("loss/total" in report.metrics for report in heard.reports)


def test_recording_more_probes_changes_nothing_else(place: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "other", place.cache, place.teachers)
    many = run(tiny(epochs=2, probe={"record": ("logistic", "knn", "rankme", "ridge")}), place)
    few = run(tiny(epochs=2, **LEAN), other)
    assert [r.metrics["loss/total"] for r in many.reports] == [r.metrics["loss/total"] for r in few.reports]
    assert [r.metrics["score"] for r in many.reports] == [r.metrics["score"] for r in few.reports]


def test_numbers_gone_bad_fail_the_trial_with_step_and_terms(place: Workspace) -> None:
    trial = tiny("retro", optim={"optimizer": "momentum", "lr": 1e18})
    prepare(trial, place)
    with pytest.raises(
        TrialFailed, match=r"loss (is not finite|exploded).*step \d+/7: total.*distillation.*contrastive"
    ):
        train(trial, Log(), place)


def test_micro_batches_make_the_step_of_the_whole_batch(place: Workspace, tmp_path: Path) -> None:
    # A network without batch statistics, where the two are the same sum.
    student = {"arch": "test_vit", "options": {"img_size": 16, "patch_size": 4}}

    def made(parts: int, name: str) -> tuple[Log, dict[str, Any]]:
        optim = {"optimizer": "momentum", "lr": 0.05, "accumulate": parts, "clip_grad": 1.0}
        here = Workspace(tmp_path / name, place.cache, place.teachers)
        return run(tiny(student=student, optim=optim, epochs=2, **LEAN), here), final(here)

    (one, weights), (many, others) = made(1, "one"), made(4, "many")
    for a, b in zip(one.reports, many.reports, strict=True):
        assert a.metrics["loss/total"] == pytest.approx(b.metrics["loss/total"], rel=1e-5)
    for path, value in weights.items():
        if path.startswith("/method/"):
            torch.testing.assert_close(value, others[path], rtol=1e-3, atol=1e-4)


def test_gradients_are_clipped(place: Workspace, tmp_path: Path) -> None:
    trial = tiny(
        epochs=1, optim={"optimizer": "momentum", "lr": 1.0, "clip_grad": 1e-6, "weight_decay": 0.0}, **LEAN
    )
    run(trial, place)
    start = build_backbone(trial.student, trial.seed).model.state_dict()
    weights = {path.removeprefix("/method/student.model."): value for path, value in final(place).items()}
    moved = [
        float((weights[name] - value).abs().max())
        for name, value in start.items()
        if name.endswith(("weight", "bias"))
    ]
    assert 0 < max(moved) < 1e-4


def test_half_precision_trains(place: Workspace) -> None:
    heard = run(tiny(epochs=1, optim={"precision": "bfloat16"}, **LEAN), place)
    full = tiny(epochs=1, **LEAN)
    other = run(full, Workspace(place.folder / "full", place.cache, place.teachers))
    half, whole = heard.reports[0].metrics["loss/total"], other.reports[0].metrics["loss/total"]
    assert half != whole and half == pytest.approx(whole, rel=0.05)


def test_images_without_labels_train_and_are_scored_by_rankme(place: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(64):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    data = {"name": "folder", "path": str(tmp_path / "pictures")}
    sections: dict[str, Any] = {
        "data": data,
        "epochs": 1,
        "optim": {"batch_size": 16},
        "config": {"queue_size": 32},
    }
    with pytest.raises(UserError, match="no labels"):
        run(tiny(**sections), place)
    heard = run(tiny(probe={"score": "rankme"}, **sections), place)
    assert {name for name in heard.reports[0].metrics if name.startswith("probe")} == {"probe/rankme"}
    assert heard.reports[0].metrics["score"] > 1


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_a_trial_is_the_same_first_or_after_twenty_others_and_leaves_nothing(
    place: Workspace, tmp_path: Path
) -> None:
    trial = tiny("retro", epochs=1, **LEAN)
    first = run(trial, place)

    torch.manual_seed(5)
    np.random.seed(6)
    random.seed(7)
    torch.set_grad_enabled(False)
    state = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    tensors, threads = live_tensors(), torch.get_num_threads()
    try:
        for i in range(20):
            optim: dict[str, Any] = {"batch_size": 256}
            if i % 7 == 3:
                optim |= {"optimizer": "momentum", "lr": 1e18}
            method = "retro" if i % 7 == 0 else "moco"
            other = tiny(method, epochs=1, seed=i, optim=optim, **LEAN)
            here = Workspace(tmp_path / str(i), place.cache, place.teachers)
            try:
                run(other, here, stop=1 if i % 2 else 0)
            except TrialFailed as error:
                assert i % 7 == 3
                kept = error  # a traceback that an engine holds on to keeps no model alive
        again = run(trial, Workspace(tmp_path / "again", place.cache, place.teachers))
        assert kept.__traceback__ is not None
        assert not torch.is_grad_enabled() and torch.get_num_threads() == threads
    finally:
        torch.set_grad_enabled(True)
    assert again.timeless() == first.timeless()
    assert_same_bits(final(Workspace(tmp_path / "again", place.cache, place.teachers)), final(place))
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[2]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), state[1], strict=True))
    assert live_tensors() <= tensors


def test_prepare_trains_the_teacher_once_and_keeps_it(place: Workspace, tmp_path: Path) -> None:
    trial = tiny("retro")
    fresh = Workspace(place.folder, place.cache, tmp_path / "teachers")
    heard = Log()
    prepare(trial, fresh, heard)
    training = teacher_trial(trial)
    assert training is not None and heard.epochs == [1]
    file = fresh.teachers / f"{training.signature()}.safetensors"
    before = file.stat().st_mtime_ns
    prepare(trial, fresh, heard)
    assert heard.epochs == [1] and file.stat().st_mtime_ns == before
    assert trial.teacher is not None
    teacher = load_teacher(trial.teacher, teacher_path(trial, fresh.teachers))
    weights = final(Workspace(fresh.teachers / training.signature(), fresh.cache, fresh.teachers))
    for name, value in teacher.backbone.model.state_dict().items():
        assert torch.equal(value, weights[f"/method/student.model.{name}"])


def test_no_teacher_is_trained_for_a_trial_that_the_images_do_not_allow(
    place: Workspace, tmp_path: Path
) -> None:
    # A tenth of the 899 images, and not every class has so many.
    asked = {"anchors": "per_class", "anchors_per_class": 89}
    teacher = tiny("retro").model_dump()["teacher"]
    fresh = Workspace(place.folder, place.cache, tmp_path / "teachers")
    heard = Log()
    with pytest.raises(UserError, match=r"config\.anchors_per_class: class \d has 8\d training images"):
        prepare(tiny("rrkd", config=asked, teacher=teacher), fresh, heard)
    assert not heard.reports and not fresh.teachers.exists()


def test_an_unfinished_teacher_is_gone_on_with(place: Workspace, tmp_path: Path) -> None:
    raw = tiny("retro").model_dump()
    raw["teacher"]["train"]["epochs"] = 3
    trial = TrialSpec.model_validate(raw)
    fresh = Workspace(place.folder, place.cache, tmp_path / "teachers")
    with pytest.raises(KeyboardInterrupt):
        prepare(trial, fresh, Log(crash=2))
    heard = Log()
    prepare(trial, fresh, heard)
    assert heard.epochs == [2, 3]
    assert len(list(fresh.teachers.glob("*.safetensors"))) == 1


def command(trial: TrialSpec, root: Path, folder: Path, teachers: Path) -> subprocess.Popen[str]:
    file = folder.with_suffix(".json")
    file.write_text(trial.model_dump_json())
    places = ["--folder", str(folder), "--cache", str(root / "cache"), "--teachers", str(teachers)]
    return subprocess.Popen(
        [sys.executable, "-m", "trainables", str(file), *places, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def said(worker: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_two_processes_that_need_one_teacher_train_it_once(
    root: Path, place: Workspace, tmp_path: Path
) -> None:
    trial = tiny("retro", epochs=1, **LEAN)
    both = [command(trial, root, tmp_path / name, tmp_path / "teachers") for name in ("a", "b")]
    lines = [said(worker) for worker in both]
    assert sum(line["what"] == "teacher" for line in lines[0] + lines[1]) == 1
    ends = [[line for line in part if line["what"] == "trial"] for part in lines]
    scores = {end[-1]["score"] for end in ends}
    heard = run(trial, place)
    assert scores == {heard.reports[-1].metrics["score"]}  # from the command line, the same bits


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    root: Path, place: Workspace, tmp_path: Path
) -> None:
    trial = tiny("retro", epochs=6)
    whole = run(trial, place)
    rng = random.Random(0)
    kills = 0
    while True:
        worker = command(trial, root, tmp_path / "killed", root / "teachers")
        assert worker.stdout is not None
        started = worker.stdout.readline()
        time.sleep(rng.uniform(0, 0.6))
        if kills < 6 and worker.poll() is None:
            os.kill(worker.pid, signal.SIGKILL)
            worker.communicate()
            kills += 1
            continue
        rest = said(worker)
        break
    last = (rest or [json.loads(started)])[-1]
    assert kills >= 3 and last["epoch"] == 6
    assert last["score"] == whole.reports[-1].metrics["score"]
    assert_same_bits(final(Workspace(tmp_path / "killed", place.cache, place.teachers)), final(place))


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("method: [", 2, "cannot be read"),
        ("- 1", 2, "holds no mapping"),
        ("method: retr0", 2, "Did you mean 'retro'"),
        (
            "{method: moco, preset: digits, epochs: 1, student: {arch: test_efficientnet}, "
            "optim: {lr: 1.0e18, optimizer: momentum}}",
            1,
            "not finite|exploded",
        ),
    ],
)
def test_the_command_says_what_is_wrong(
    content: str, code: int, message: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(content)
    places = ["--folder", str(tmp_path / "folder"), "--cache", str(root / "cache")]
    assert main([str(file), *places]) == code
    err = capsys.readouterr().err
    assert re.search(message, err) and "Traceback" not in err


def test_a_mistake_is_found_before_a_teacher_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trial.yaml"
    taught = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}
    trial = {"method": "retro", "preset": "digits", "student": {"arch": "test_efficientnet"}}
    file.write_text(json.dumps({**trial, "teacher": taught, "epochs": 1, "probe": {"score": "ridgee"}}))
    assert main([str(file), "--folder", str(tmp_path / "trial"), "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert "probe.score: no such probe" in said.err and not said.out
    assert not (tmp_path / "trial" / "teachers").exists()
