"""Traps that other users lay in a storage where everyone can make folders: told before Ray."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import SMALL
from ledger_records import head

from raykd.cli import main
from raykd.records.ledger import Ledger
from raykd.records.tables import write_tables
from raykd.records.views import read
from raykd.storage.open_storage import open_storage, open_sweep
from trainables.core.errors import UserError

NOBODY = 65_534


@pytest.fixture
def storage() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rk-links-") as folder:
        Path(folder).chmod(0o1777)
        (Path(folder) / "spec.yaml").write_text(SMALL)
        yield open_storage(str(Path(folder) / "sweeps")).folder


Refused = Callable[..., None]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    return lambda arguments, *words: _refused(capsys, arguments, *words)


def _refused(capsys: pytest.CaptureFixture[str], arguments: tuple[str | Path, ...], *words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert ended.value.code == 2, said
    assert said.count("raykd:") == 1 and "Traceback" not in said, said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("name", ["driver.lock", "log.txt", "ledger.jsonl", "trials", "tensorboard", ""])
def test_a_link_in_a_sweeps_place_is_refused(name: str, storage: Path, refused: Refused) -> None:
    private = storage.parent / "private"
    private.mkdir()
    (private / "diary").write_text("do not touch")
    trap = storage / "small" / name if name else storage / "small"
    trap.parent.mkdir(parents=True)
    trap.symlink_to(private if name in ("trials", "tensorboard", "") else private / "diary")
    for verb, what in (("run", storage.parent / "spec.yaml"), ("resume", "small")):
        if verb == "resume" and name != "ledger.jsonl":
            continue  # no sweep of that name
        refused((verb, what, "--storage", storage), str(trap), "is a link")
    assert (private / "diary").read_text() == "do not touch"
    assert [path.name for path in private.iterdir()] == ["diary"]
    assert [path.name for path in (storage / "small").iterdir()] == [name or "diary"]


@pytest.mark.parametrize("name", ["driver.lock", "log.txt", "ledger.jsonl"])
def test_a_pipe_in_a_files_place_is_not_waited_for(name: str, storage: Path, refused: Refused) -> None:
    (storage / "small").mkdir(parents=True)
    os.mkfifo(storage / "small" / name)
    refused(("run", storage.parent / "spec.yaml", "--storage", storage), name, "is a pipe")
    if name == "ledger.jsonl":
        refused(("status", "small", "--storage", storage), name, "is a pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders for another user")
def test_another_users_folder_is_refused_and_can_be_looked_at(storage: Path, refused: Refused) -> None:
    folder = storage / "small"
    with Ledger.create(folder) as ledger:
        ledger.append(**{k: v for k, v in head().items() if k != "time"})
    for path in (folder, *folder.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    folder.chmod(0o777)
    there = sorted(path.name for path in folder.iterdir())
    refused(
        ("resume", "small", "--storage", storage),
        str(folder),
        f"belongs to nobody (user id {NOBODY}), and you are root",
    )
    with pytest.raises(UserError, match="belongs to"):
        open_sweep(folder).own()
    assert read(folder).sweep is not None
    assert open_sweep(folder).driver() is None
    with pytest.raises(UserError, match="belongs to"):
        write_tables(read(folder), folder)
    assert sorted(path.name for path in folder.iterdir()) == there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders for another user")
def test_teachers_of_another_user_teach_nobody_else(storage: Path) -> None:
    assert open_storage(storage).teachers() == storage / ".teachers"
    (storage / ".teachers").mkdir(parents=True)
    assert open_storage(storage).teachers() == storage / ".teachers"
    os.chown(storage / ".teachers", NOBODY, NOBODY)
    assert open_storage(storage).teachers() == storage / f".teachers-{os.geteuid()}"


def test_links_above_the_storage_are_followed(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "mnt")
    sweep = open_storage(str(tmp_path / "data")).sweep("small")
    with Ledger.create(sweep) as ledger:
        ledger.append(**{k: v for k, v in head().items() if k != "time"})
    assert sweep.resolved().path == tmp_path / "mnt" / "small"
    assert read(sweep).sweep is not None
