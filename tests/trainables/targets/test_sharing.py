"""Teachers' answers are shared: the same bits as without, no pass twice, and nobody waits for the dead."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trials import Log, asked, assert_same_bits, final, process_group, run, tiny

from trainables.methods import load_method, methods
from trainables.spec.trial import TrialSpec
from trainables.targets.room import FOLDER, files
from trainables.targets.sharing import EpochTargets
from trainables.teachers.teacher import Ask
from trainables.training.loop import prepare, train
from trainables.training.run import Run
from trainables.training.workspace import Workspace

TRAINED = {
    "method": "moco",
    "preset": "digits",
    "epochs": 1,
    "config": {"queue_size": 128},
    "optim": {"batch_size": 64},
}
TEACHER = {"arch": "test_resnet", "train": TRAINED}
WAYS = ("off", "empty", "ready")  # of the answers
# 202 training images: 3 steps of 64, 2 epochs.
SMALL: dict[str, Any] = {
    "teacher": TEACHER,
    "data": {"validation": 0.85},
    "epochs": 2,
    "probe": {"record": (), "every": 2},
}
# The conformance test gives every method ready answers; of these one a kind is trained by default.
ONE_A_KIND = ("retro", "rekd_style", "kd")
ASKING = [
    pytest.param(name, marks=() if name in ONE_A_KIND else pytest.mark.slow)
    for name, kind in methods().items()
    if kind.asks(kind.Config())
]


def trial_of(method: str, **sections: Any) -> TrialSpec:
    small = {"batch_size": 64, **sections.pop("optim", {})}
    fields = load_method(method).Config.model_fields
    queue = {"config": {"queue_size": 128}} if "queue_size" in fields else {}
    return tiny(method, **{**SMALL, **queue, **sections, "optim": small})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded digits and the trained teacher."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("targets")


def place(root: Path, folder: Path, targets: Any = "off") -> Workspace:
    return Workspace(folder, root / "cache", root / "teachers", targets=targets)


def in_store(root: Path) -> list[Path]:
    return sorted(held.path for held in files(root / "cache" / FOLDER))


@pytest.fixture
def passes() -> Iterator[list[str]]:
    """What teachers were asked in this process, one entry a pass."""
    found: list[str] = []
    with asked(lambda what, _: found.append(what)):
        yield found


@pytest.mark.parametrize("method", ASKING)
def test_the_same_bits_with_and_without_and_a_second_trial_asks_nothing(
    method: str, root: Path, tmp_path: Path, passes: list[str]
) -> None:
    trial = trial_of(method)
    asks = len(load_method(method).asks(load_method(method).Config(**trial.config)))
    alone = run(trial, place(root, tmp_path / "alone"))
    steps = len(passes)
    assert steps == 2 * 3 * asks
    first = place(root, tmp_path / "first", "auto")
    assert run(trial, first).timeless() == alone.timeless()
    assert len(passes) <= 2 * steps  # another method may have asked the same before
    passes.clear()
    second = place(root, tmp_path / "second", "auto")
    stopped = Log(stop=1)
    train(trial, stopped, second)  # and goes on in the middle
    assert {**stopped.timeless(), **run(trial, second).timeless()} == alone.timeless()
    assert passes == []
    for other in (first, second):
        assert_same_bits(final(other), final(place(root, tmp_path / "alone")))


def test_a_vit_s_class_token_gives_the_same_bits_and_keeps_no_other_token(
    root: Path, tmp_path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`projector` puts the features through batch norm, which gives other bits for strided rows."""
    vit = {**TEACHER, "arch": "test_vit", "options": {"img_size": 16, "patch_size": 4}}
    trial = trial_of("projector", teacher=vit)
    given: list[torch.Tensor] = []
    give = EpochTargets.give

    def heard(self: EpochTargets, answers: Mapping[Ask, torch.Tensor]) -> None:
        given.extend(answers.values())
        give(self, answers)

    monkeypatch.setattr(EpochTargets, "give", heard)
    places = {name: place(root, tmp_path / name, "off" if name == "off" else "auto") for name in WAYS}
    logs = {name: run(trial, where).timeless() for name, where in places.items()}
    assert len(passes) == 2 * 2 * 3  # of `off` and `empty`
    for name in WAYS[1:]:
        assert logs[name] == logs["off"]
        assert_same_bits(final(places[name]), final(places["off"]))
    assert given
    for answer in given:
        assert answer.untyped_storage().nbytes() == answer.numel() * answer.element_size()


def test_trials_that_ask_the_same_have_one_series_and_others_have_not(root: Path, tmp_path: Path) -> None:
    def series(method: str = "rkd", **changed: Any) -> dict[Ask, str]:
        trial = trial_of(method, **{"views": {"recipe": "light"}, **changed})
        where = place(root, tmp_path / "trial", "auto")
        prepare(trial, where)
        shared = Run(trial, where).targets
        assert shared is not None
        return {ask: one.key for ask, one in shared.series.items()}

    base = series()
    assert set(base) == {Ask("features", 0)}
    assert series("kd") == base and series("compress") == base
    assert series("retro").keys() == {Ask("embed", 0), Ask("embed", 1)}
    assert series("seed").items() < series("retro").items()
    # Only the second view.
    second = series("retro", views={"recipe": "light", "second": {"flip": 0.25}})
    assert [ask for ask in second if second[ask] != series("retro")[ask]] == [Ask("embed", 1)]
    same: dict[str, Any] = {
        "lr": {"optim": {"lr": 1e-4}},
        "student": {"student": {"arch": "test_resnet"}},
        "probe": {"probe": {"record": ["knn"]}},
        "more epochs": {"epochs": 5},
    }
    for name, changed in same.items():
        assert series(**changed) == base, name
    other: dict[str, Any] = {
        "seed": {"seed": 6},
        "strength": {"views": {"recipe": "light", "strength": 0.25}},
        "recipe": {"views": {"recipe": "cifar"}},
        "operation": {"views": {"recipe": "light", "operations": {"flip": 0.25}}},
        "batch": {"optim": {"batch_size": 32}},
        "micro-batch": {"optim": {"accumulate": 2}},
        "precision": {"optim": {"precision": "bfloat16"}},
        "part": {"data": {"validation": 0.85, "split_seed": 1}},
        "teacher": {"teacher": {**TEACHER, "train": {**TRAINED, "seed": 1}}},
    }
    found = {name: series(**changed)[Ask("features", 0)] for name, changed in other.items()}
    assert len({*found.values(), base[Ask("features", 0)]}) == len(found) + 1, found


def test_batch_statistics_and_feature_maps_are_not_shared(root: Path, tmp_path: Path) -> None:
    before = in_store(root)
    run(trial_of("rkd", teacher={**TEACHER, "batch_norm": "batch"}), place(root, tmp_path / "a", "auto"))
    run(trial_of("at"), place(root, tmp_path / "b", "auto"))
    assert in_store(root) == before


def test_bfloat16_answers_are_kept_bit_by_bit(root: Path, tmp_path: Path, passes: list[str]) -> None:
    trial = trial_of("seed", optim={"precision": "bfloat16"}, seed=7)
    heard = [
        run(trial, place(root, tmp_path / name, room)).timeless()
        for name, room in (("off", "off"), ("one", "auto"), ("two", "auto"))
    ]
    assert heard[0] == heard[1] == heard[2] and len(passes) == 2 * 2 * 3


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "another's"])
def test_a_damaged_shard_is_computed_again(
    damage: str, root: Path, tmp_path: Path, passes: list[str]
) -> None:
    trial = trial_of("rkd", seed=8)
    whole = run(trial, place(root, tmp_path / "whole", "auto"))
    passes.clear()
    mine = sorted(in_store(root), key=lambda path: path.stat().st_mtime_ns)[-2:]
    content = mine[0].read_bytes()
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 1
    mine[0].unlink()
    mine[0].write_bytes(
        {
            "flipped": bytes(broken),
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "another's": mine[1].read_bytes(),
        }[damage]
    )
    assert run(trial, place(root, tmp_path / "again", "auto")).timeless() == whole.timeless()
    assert len(passes) == 3  # of the one epoch
    assert mine[0].read_bytes() == content
    assert run(trial, place(root, tmp_path / "third", "auto")).timeless() == whole.timeless()
    assert len(passes) == 3


def test_a_store_that_cannot_be_written_changes_nothing(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = trial_of("rkd", seed=9)
    alone = run(trial, place(root, tmp_path / "alone"))
    cache = tmp_path / "cache"
    shutil.copytree(root / "cache" / "images", cache / "images")
    (cache / FOLDER).write_text("a file in the folder's place")
    blocked = Workspace(tmp_path / "blocked", cache, root / "teachers", targets="auto")
    assert run(trial, blocked).timeless() == alone.timeless()
    assert len([record for record in caplog.records if "not shared from here on" in record.message]) == 1


# --- several processes ------------------------------------------------------------------------------------


def _train(trial: TrialSpec, where: Workspace, log: Path, others: int = 0, die_after: int = 0) -> None:
    """Train in this process, and write every pass through the teacher to `log`: what, and which images.

    Begins when as many `others` are ready.
    """
    torch.set_num_threads(1)
    log.parent.mkdir(exist_ok=True)
    log.touch()
    while len(list(log.parent.glob("*.log"))) <= others:
        time.sleep(0.01)
    made = 0

    def write(what: str, images: torch.Tensor) -> None:
        nonlocal made
        with log.open("a") as file:
            file.write(f"{what} {images.double().sum().item()!r}\n")
        made += 1
        if made == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    heard = Log()
    with asked(write):
        train(trial, heard, where)
    torch.save(heard.timeless(), log.with_suffix(".pt"))


def start(*arguments: Any, **named: Any) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_train, args=arguments, kwargs=named)
    process.start()
    return process


def test_two_processes_share_the_work_and_none_waits_for_a_killed_one(root: Path, tmp_path: Path) -> None:
    """Before them one was killed in the middle of a shard, with its lock."""
    trial = trial_of("rkd", seed=10, epochs=2, optim={"batch_size": 32}, data={})
    prepare(trial, place(root, tmp_path / "x"))
    alone = run(trial, place(root, tmp_path / "alone"))
    killed = start(trial, place(root, tmp_path / "killed", "auto"), tmp_path / "x" / "a.log", die_after=3)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert any(path.suffix == ".lock" for path in in_store(root))
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    workers = [start(trial, place(root, tmp_path / log.stem, "auto"), log, others=1) for log in logs]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    passes = [line for log in logs for line in log.read_text().splitlines()]
    assert len(passes) == len(set(passes)) == 2 * (898 // 32)
    assert all(log.read_text() for log in logs), "one of them did all the work"
    for log in logs:
        assert torch.load(log.with_suffix(".pt"), weights_only=True) == alone.timeless()
    assert not [path for path in in_store(root) if path.suffix == ".lock"]


def _group(rank: int, root: Path, folder: Path, trial: TrialSpec) -> None:
    """Without a store, and then with one."""
    process_group(rank, 2, str(folder.with_suffix(".meet")))
    for kind in ("off", "auto"):
        log = folder.with_name(f"{kind}-{rank}") / f"{folder.name}.log"
        _train(trial, place(root, folder.with_name(f"{folder.name}-{kind}"), kind), log, others=1)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_groups_of_two_workers_share_and_get_the_same_bits(root: Path, tmp_path: Path) -> None:
    """Two groups at once."""
    trial = trial_of("retro", seed=11, optim={"optimizer": "momentum", "lr": 0.02})
    prepare(trial, place(root, tmp_path / "x"))
    groups = [
        multiprocessing.get_context("spawn").Process(target=_group, args=(rank, root, tmp_path / name, trial))
        for name in ("one", "two")
        for rank in range(2)
    ]
    for process in groups:
        process.start()
    for process in groups:
        process.join()
        assert process.exitcode == 0
    for rank in range(2):
        logs = [tmp_path / f"auto-{rank}" / f"{name}.log" for name in ("one", "two")]
        passes = [line for log in logs for line in log.read_text().splitlines()]
        assert len(passes) == len(set(passes)) == 2 * 2 * 3
    heard = [torch.load(path, weights_only=True) for path in tmp_path.glob("*-0/*.pt")]
    assert len(heard) == 4 and all(other == heard[0] for other in heard)
    ends = [
        final(place(root, tmp_path / f"{name}-{kind}")) for name in ("one", "two") for kind in ("off", "auto")
    ]
    for end in ends[1:]:
        assert_same_bits(end, ends[0])
