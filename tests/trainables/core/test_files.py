"""Files that are opened in folders where others make files, too: no link is followed, no pipe waited for."""

from __future__ import annotations

import os
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainables.core.errors import UserError
from trainables.core.files import (
    guard,
    is_own_file,
    open_file,
    opened,
    own_folder,
    read_bytes,
    remove,
    replacing,
)

ALICE, BOB = 30_001, 30_002
TWO_USERS = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two other users")


@pytest.fixture(autouse=True)
def _nothing_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have guarded a folder above."""
    monkeypatch.setattr("trainables.core.files._GUARDED", {})


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return guard(tmp_path / "storage")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder where everyone makes files and removes only their own, as /tmp or a cluster's scratch."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rk-shared-") as folder:
        Path(folder).chmod(0o1777)
        yield guard(Path(folder))


def as_user(uid: int, work: Callable[[], object]) -> str:
    """What `work` raised in a process of that user, "" for nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            work()
            said = ""
        except (UserError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


WRITES: dict[str, Callable[[Path], object]] = {
    **{mode: (lambda path, mode=mode: opened(path, mode).close()) for mode in ("wb", "ab", "w", "a", "rb+")},
    "lock": lambda path: os.close(open_file(path, os.O_RDWR | os.O_CREAT, 0o644)),
}


@pytest.mark.parametrize("mode", WRITES)
@pytest.mark.parametrize("inside", [True, False], ids=["in a storage", "elsewhere"])
def test_no_file_is_written_through_a_link(mode: str, inside: bool, storage: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("do not touch")
    folder = own_folder(storage / "sweep") if inside else tmp_path
    (folder / "log.txt").symlink_to(private)
    with pytest.raises(UserError, match=r"is a link to .*private"):
        WRITES[mode](folder / "log.txt")
    (folder / "new").symlink_to(tmp_path / "made")
    if mode != "rb+":
        with pytest.raises(UserError, match="is a link"):
            WRITES[mode](folder / "new")
    assert private.read_text() == "do not touch" and not (tmp_path / "made").exists()


@pytest.mark.parametrize("at", ["sweep", "sweep/trials", "sweep/trials/0a1b2c3d"])
def test_no_folder_on_the_way_is_a_link(at: str, storage: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "trials" / "0a1b2c3d").mkdir(parents=True)
    (other / "0a1b2c3d").mkdir()
    (storage / at).parent.mkdir(parents=True)
    (storage / at).symlink_to(other)
    for name in ("a.pt", "trials/b.pt"):
        (other / name).write_text("keep")
    before = sorted(other.rglob("*"))
    path = storage / "sweep" / "trials" / "0a1b2c3d" / "x.pt"
    for work in (lambda: own_folder(path.parent), lambda: opened(path, "wb"), lambda: remove(path)):
        with pytest.raises(UserError, match="is a link"):
            work()
    with pytest.raises(UserError, match="is a link"), replacing(path):
        raise AssertionError
    assert sorted(other.rglob("*")) == before


def test_links_above_the_storage_are_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "mnt")
    storage = guard(tmp_path / "data" / "sweeps")
    with replacing(storage / "s" / "file") as path:
        path.write_text("here")
    assert read_bytes(storage / "s" / "file") == b"here"
    assert (tmp_path / "mnt" / "sweeps" / "s" / "file").read_text() == "here"


def test_replacing_takes_the_place_of_a_link(storage: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("do not touch")
    own_folder(storage / "s")
    (storage / "s" / "table").symlink_to(private)
    with replacing(storage / "s" / "table") as path:
        path.write_text("new")
    assert private.read_text() == "do not touch"
    assert not (storage / "s" / "table").is_symlink() and (storage / "s" / "table").read_text() == "new"
    assert [path.name for path in (storage / "s").iterdir()] == ["table"]


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "rb+"])
def test_what_is_no_regular_file_is_refused_at_once(mode: str, storage: Path) -> None:
    folder = own_folder(storage / "s")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(UserError, match=f"is a {name}"):
                opened(folder / name, mode)
    with pytest.raises((UserError, IsADirectoryError)):
        opened(folder / "folder", mode)
    with pytest.raises(UserError, match="is a device"):
        opened(Path("/dev/null"), mode)


def test_files_are_read_through_links_where_the_user_names_them(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "model.pth").symlink_to(tmp_path / "blob")  # as the Hugging Face hub's cache has them
    assert read_bytes(tmp_path / "model.pth") == b"weights" and is_own_file(tmp_path / "model.pth")
    own_folder(storage / "s")
    (storage / "s" / "ledger").symlink_to(tmp_path / "blob")
    with pytest.raises(UserError, match="is a link"):
        read_bytes(storage / "s" / "ledger")


def test_errors_name_the_whole_path(storage: Path) -> None:
    own_folder(storage / "s")
    with pytest.raises(FileNotFoundError) as caught:
        opened(storage / "s" / "none")
    assert caught.value.filename == str(storage / "s" / "none")
    with pytest.raises(FileNotFoundError) as caught:
        opened(storage / "t" / "none")
    assert caught.value.filename == str(storage / "t")
    remove(storage / "t" / "none")
    assert not is_own_file(storage / "t" / "none")


@TWO_USERS
def test_a_folder_of_another_user_is_refused(shared: Path) -> None:
    assert as_user(ALICE, lambda: own_folder(shared / "sweep")) == ""
    (shared / "sweep").chmod(0o777)
    for work in (lambda: own_folder(shared / "sweep"), lambda: own_folder(shared / "sweep" / "trials")):
        said = as_user(BOB, work)
        assert said.startswith("UserError") and f"belongs to user id {ALICE}" in said, said
    assert as_user(ALICE, lambda: own_folder(shared / "sweep")) == ""
    with pytest.raises(UserError, match=f"belongs to user id {ALICE}, and you are root"):
        own_folder(shared / "sweep")


@TWO_USERS
@pytest.mark.parametrize("mode", ["wb", "ab", "rb+"])
def test_a_file_of_another_user_is_not_written(mode: str, shared: Path) -> None:
    path = shared / "log.txt"
    assert as_user(ALICE, lambda: opened(path, "w").close()) == ""
    path.chmod(0o666)
    assert f"belongs to user id {ALICE}" in as_user(BOB, lambda: opened(path, mode).close())
    assert as_user(BOB, lambda: opened(path).close()) == ""  # whoever may look may look
    assert as_user(BOB, lambda: own_folder(shared / "sweep")) == ""  # and has a sweep of their own


@TWO_USERS
def test_what_root_made_is_trusted(shared: Path) -> None:
    (shared / "sweep").mkdir()
    (shared / "sweep").chmod(0o777)
    assert as_user(BOB, lambda: opened(shared / "sweep" / "log.txt", "w").close()) == ""


@TWO_USERS
def test_workers_of_another_user_write_into_a_sweep_that_lets_them(shared: Path) -> None:
    """Ray's workers on other nodes may run as another user than the driver, whose folder it is."""
    assert as_user(ALICE, lambda: own_folder(shared / "sweep" / "trials")) == ""
    guard(shared, owner=ALICE)
    with replacing(shared / "sweep" / "trials" / "student") as path:
        path.write_text("by root")
    assert as_user(ALICE, lambda: opened(shared / "sweep" / "trials" / "student", "rb").close()) == ""


@TWO_USERS
def test_a_cache_may_be_the_groups(shared: Path) -> None:
    guard(shared, shared=True)
    (shared / "data").mkdir()
    os.chown(shared / "data", ALICE, BOB)  # BOB's own group
    for mode, works in ((0o775, True), (0o755, False), (0o777, False)):
        (shared / "data").chmod(mode)
        assert (as_user(BOB, lambda: own_folder(shared / "data")) == "") is works, oct(mode)


def test_a_second_name_of_a_file_is_refused_where_others_could_have_given_it(
    storage: Path, tmp_path: Path
) -> None:
    (tmp_path / "private").write_text("do not touch")
    folder = own_folder(storage / "s")
    os.link(tmp_path / "private", folder / "log.txt")
    folder.chmod(0o777)
    with pytest.raises(UserError, match="2 names"):
        opened(folder / "log.txt", "w")
    assert (tmp_path / "private").read_text() == "do not touch"
    folder.chmod(0o755)  # one's own copy by `cp -al`
    opened(folder / "log.txt", "a").close()


def test_a_file_may_get_its_name_when_it_is_written(storage: Path) -> None:
    with replacing(storage / "sum", lambda: f"sum-{temporary.stat().st_size}") as temporary:
        temporary.write_text("four")
    with pytest.raises(ValueError), replacing(storage / "sum", lambda: "none") as temporary:
        raise ValueError
    assert [path.name for path in storage.iterdir()] == ["sum-4"]
