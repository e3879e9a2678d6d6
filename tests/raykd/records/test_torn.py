"""Torn files: every kind of file that a sweep holds is cut, emptied, changed by a bit or taken away.

The damaged piece is recognised, the one before it is used or it is made again, and nothing wrong is computed.
Of ledgers see also `test_repair.py`, of stores `test_data.py`, of what users bring `test_bad_input.py`.
"""

from __future__ import annotations

import fnmatch
import io
import random
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
import torch
from bad_input import STUDY
from command import SMALL, raykd
from simulated import drive, train_all

import trainables.data.store
import trainables.data.store_images
from raykd import cli
from raykd.ablation.study import build_study
from raykd.records.dashboard import JOURNAL
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.records.tables import write_tables
from raykd.runs.sweep import _views
from raykd.spec.document import parse_yaml
from raykd.spec.search import SearchSpec, build_sweep
from trainables.core.checksums import is_whole, read_with_checksum
from trainables.core.files import cache_folder
from trainables.data.data_sets import open_data, store_folder
from trainables.training.loop import prepare, train
from trainables.training.run import BEST
from trainables.training.workspace import EpochReport, Workspace

TIMING = ("images_per_s", "train_s")
KINDS = (  # every file below a storage
    ".teachers/*.safetensors", ".teachers/*.lock", ".teachers/*/checkpoints/epoch-*.pt",
    ".teachers/*/best.safetensors", "small/ledger.jsonl", "small/driver.lock", "small/trials.parquet",
    "small/curves.parquet", "small/optuna.journal", "small/tensorboard/*tfevents*",
    "small/trials/*/checkpoints/epoch-*.pt", "small/trials/*/best.safetensors",
)  # fmt: skip


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def short(content: bytes) -> bytes:
    return content[:-1]


def empty(content: bytes) -> bytes:
    return b""


def flipped(content: bytes) -> bytes:
    if not content:  # the lock of a driver that has ended
        return b"?"
    where = random.Random(len(content)).randrange(len(content))
    return content[:where] + bytes([content[where] ^ 4]) + content[where + 1 :]


DAMAGE = (half, short, empty, flipped)
Damage = Callable[[bytes], bytes]


def damage(path: Path, how: Damage) -> None:
    path.write_bytes(how(path.read_bytes()))


@pytest.fixture(scope="module")
def spec() -> SearchSpec:
    raw = parse_yaml(SMALL, "")
    return build_sweep({**raw, "references": [], "scheduler": {"name": "none"}})


@pytest.fixture(scope="module")
def whole(spec: SearchSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a sweep of four real trials."""
    torch.set_num_threads(1)
    storage = tmp_path_factory.mktemp("whole")
    history = train_all(storage / "small", spec)
    assert history.done
    _views(spec, history, storage / "small")
    write_tables(history, storage / "small")
    return storage


@pytest.fixture
def storage(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "storage")
    return tmp_path / "storage"


def call(*arguments: str | Path) -> tuple[int, str]:
    """A verb, in this process: its exit code and what it says."""
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as left:
            return int(left.code or 0), said.getvalue()
    return 0, said.getvalue()


def curves(folder: Path) -> dict[str, dict[int, dict[str, float]]]:
    """trial -> epoch -> metrics that do not depend on the clock."""
    history = History.of(Ledger.read(folder))
    return {
        name: {e: {k: v for k, v in m.items() if k not in TIMING} for e, m in trial.reports.items()}
        for name, trial in history.trials.items()
    }


def studied(folder: Path) -> list[tuple[object, ...]]:
    storage = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(storage))
    return [(t.state, t.values, t.params, t.user_attrs, t.intermediate_values) for t in study.trials]


def test_every_file_of_a_storage_is_of_a_kind_that_is_damaged_here(whole: Path) -> None:
    files = [str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()]
    assert not [file for file in files if not any(fnmatch.fnmatch(file, kind) for kind in KINDS)]
    assert not [kind for kind in KINDS if not fnmatch.filter(files, kind)]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_ledger_is_said_by_every_verb_that_reads_it(storage: Path, how: Damage) -> None:
    path = storage / "small" / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    torn = [*lines[:7], how(lines[7]), *lines[8:]]
    path.write_bytes(b"".join(torn))
    before = path.read_bytes()
    verbs = [("status",), ("best",), ("importance",), ("resume",), ("export", "--out", storage / "out")]
    for verb, *more in verbs if how is not empty else ():
        code, said = call(verb, "small", "--storage", storage, *more)
        assert code == 2 and "raykd resume small --repair" in said and len(said.splitlines()) == 1, said
    assert path.read_bytes() == before
    path.write_bytes(how(b"".join(lines)))
    code, said = call("status", "small", "--storage", storage)
    known = Ledger.read(storage / "small") if code == 0 else []
    assert known == Ledger.read(storage / "small") if code == 0 else "backup" in said or "--repair" in said


@pytest.mark.parametrize("how", DAMAGE)
def test_views_are_written_anew_from_the_ledger(storage: Path, whole: Path, how: Damage) -> None:
    folder, good = storage / "small", whole / "small"
    views = [folder / "trials.parquet", folder / "curves.parquet", folder / JOURNAL]
    events = sorted(folder.rglob("*tfevents*"))
    for path in [*views, *events, folder / "driver.lock"]:
        damage(path, how)
    (events[-1] if how is short else views[0]).unlink()
    code, said = call("resume", "small", "--storage", storage)
    assert code == 0, said
    for name in ("trials.parquet", "curves.parquet"):
        assert pq.read_table(folder / name).equals(pq.read_table(good / name))
    assert studied(folder) == studied(good)
    for path in events:
        assert path.read_bytes() == (good / path.relative_to(folder)).read_bytes(), path


def test_a_number_that_was_changed_in_the_study_is_set_right(storage: Path, whole: Path) -> None:
    path = storage / "small" / JOURNAL
    gamma = History.of(Ledger.read(storage / "small")).best().params["gamma"]  # type: ignore[union-attr]
    text = path.read_text()
    assert str(gamma)[:6] in text
    path.write_text(text.replace(str(gamma)[:6], "0.0042", 1))
    assert call("resume", "small", "--storage", storage)[0] == 0
    assert studied(storage / "small") == studied(whole / "small")


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_teacher_is_made_again_and_is_the_same(
    storage: Path, spec: SearchSpec, how: Damage
) -> None:
    (file,) = (storage / ".teachers").glob("*.safetensors")
    before = read_with_checksum(file)
    damage(file, how)
    assert not is_whole(file)
    assert call("list", "teachers", "--storage", storage)[0] == 0
    trial = spec.trial(History.of(Ledger.read(storage / "small")).best().params, 0)  # type: ignore[union-attr]
    code, said = call("teacher", "inspect", file)
    assert code == 2 and "cannot be read" in said
    epochs: list[int] = []

    def hear(said: EpochReport) -> bool:
        epochs.append(said.epoch)
        return True

    prepare(trial, Workspace(storage / "x", cache_folder(), storage / ".teachers"), hear)
    assert epochs == [2], "from its last checkpoint"
    after = read_with_checksum(file)
    assert after[1] == before[1] and all(torch.equal(after[0][name], t) for name, t in before[0].items())


@pytest.mark.parametrize("how", [half, flipped])
def test_a_damaged_student_is_not_exported_and_its_trial_is_trained_again(
    storage: Path, whole: Path, spec: SearchSpec, how: Damage
) -> None:
    folder = storage / "small"
    best = History.of(Ledger.read(folder)).best()
    assert best is not None
    damage(folder / "trials" / best.trial / BEST, how)
    code, said = call("export", "small", "--storage", storage, "--out", storage / "out")
    assert code == 2 and "is damaged" in said and "raykd resume small --repair" in said, said
    assert not (storage / "out").exists()
    # A trial that goes on finds its student damaged: from the beginning, the same once more.
    heard: dict[int, dict[str, float]] = {}

    def hear(said: EpochReport) -> bool:
        heard[said.epoch] = {k: v for k, v in said.metrics.items() if k not in TIMING}
        return True

    place = Workspace(folder / "trials" / best.trial, cache_folder(), storage / ".teachers")
    train(spec.trial(best.params, 0), hear, place)
    assert heard == curves(whole / "small")[best.trial]
    again, first = (read_with_checksum(s / "small" / "trials" / best.trial / BEST) for s in (storage, whole))
    assert again[1] == first[1] and all(torch.equal(again[0][name], t) for name, t in first[0].items())


def test_an_image_that_changes_under_a_trial_costs_it_nothing(
    storage: Path, whole: Path, spec: SearchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables.data.store, "CHECKED_BYTES", 0)  # as of a large store
    name, curve = next(iter(curves(whole / "small").items()))
    trial = spec.trial(History.of(Ledger.read(storage / "small")).trials[name].params, 0)
    data = open_data(trial.data, tmp_path / "cache")
    pixels = data.train.take(data.train_ids[5:6]).numpy().tobytes()
    path = store_folder(trial.data, tmp_path / "cache") / "train.arrow"
    content = path.read_bytes()
    where = content.index(pixels) + 40
    path.write_bytes(content[:where] + bytes([content[where] ^ 128]) + content[where + 1 :])
    trainables.data.store_images._whole.clear()
    heard: dict[int, dict[str, float]] = {}

    def hear(said: EpochReport) -> bool:
        heard[said.epoch] = {k: v for k, v in said.metrics.items() if k not in TIMING}
        return said.epoch < 2

    train(trial, hear, Workspace(tmp_path / "trial", tmp_path / "cache", storage / ".teachers"))
    assert heard == {epoch: curve[epoch] for epoch in (1, 2)}


def test_a_studys_tables_are_written_anew(tmp_path: Path) -> None:
    study = build_study(parse_yaml(STUDY, ""), tmp_path)
    assert drive(tmp_path / "t", study).done
    assert call("ablate", "t", "--storage", tmp_path)[0] == 0
    tables = {path: path.read_bytes() for path in (tmp_path / "t").glob("ablation.*")}
    assert len(tables) == 3
    for path, how in zip(tables, (half, empty, flipped), strict=True):
        damage(path, how)
    assert call("ablate", "t", "--storage", tmp_path)[0] == 0
    assert {path: path.read_bytes() for path in tables} == tables


@pytest.mark.slow
@pytest.mark.ray(second=True)
def test_a_sweep_with_everything_damaged_at_once_is_resumed(storage: Path, whole: Path) -> None:
    """Through the command line: a bad line, a lost tail, no checkpoints, student, teacher, views."""
    folder = storage / "small"
    before = curves(folder)
    first, second, third, _ = before
    path = folder / LEDGER
    records, lines = Ledger.read(folder), path.read_bytes().splitlines(keepends=True)
    marks = [(r["kind"], r.get("trial"), r.get("epoch")) for r in records]
    bad, end = marks.index(("report", first, 2)), marks.index(("verdict", third, 1))
    lines[bad] = flipped(lines[bad])
    path.write_bytes(b"".join(lines[: end + 1]))  # and whole lines behind it are gone without a trace
    damage(folder / "trials" / second / BEST, flipped)
    for name in (first, second):  # as those of ended trials are
        shutil.rmtree(folder / "trials" / name / "checkpoints")
    damage(next((storage / ".teachers").glob("*.safetensors")), empty)
    for view in ("trials.parquet", JOURNAL, "driver.lock"):
        damage(folder / view, half)
    for events in folder.rglob("*tfevents*"):
        damage(events, flipped)

    refused = raykd("resume", "small", "--storage", storage)
    assert refused.returncode == 2 and "--repair" in refused.stderr, refused.stdout + refused.stderr
    done = raykd("resume", "small", "--storage", storage, "--repair", timeout=420)
    out = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"line {bad + 1} of the ledger was damaged" in out
    assert f"trained again from the epoch that was lost: {first}" in out
    assert f"since the student's file was damaged: {second}" in out
    assert f"trial {third} has a checkpoint of epoch 4, and the ledger knows of 1 epoch:" in out

    code, stands = call("status", "small", "--storage", storage)
    assert code == 0 and f"its ledger was repaired: damaged lines {bad + 1}; trained again" in stands
    history, after = History.of(Ledger.read(folder)), curves(folder)
    assert history.done and history.counts()["finished"] == 4
    for name in (first, second, third):
        assert after[name] == before[name], "the same curve to the last bit, whatever it went through"
    assert all(list(curve) == [1, 2, 3, 4] for curve in after.values())
    for name in after:
        place = folder / "trials" / name
        assert is_whole(place / BEST) and not (place / "checkpoints").exists()
    assert is_whole(next((storage / ".teachers").glob("*.safetensors")))
    assert {row["trial"]: row["score"] for row in pq.read_table(folder / "trials.parquet").to_pylist()} == {
        name: trial.best[0] for name, trial in history.trials.items() if trial.best
    }
    assert len(studied(folder)) == 4
    assert not list(folder.rglob("*.pkl")), "Tune's own state is not kept, so none can be damaged"
