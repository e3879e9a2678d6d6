"""Which Ray cluster is joined, whose it must be, and who can read the token: all asked before Ray is."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import SMALL
from strangers import STRANGER, cluster_of, listening_as

from raykd.cli import main
from raykd.lanes import joining, token
from raykd.lanes.cluster import LOCAL, check_joinable, ray_address
from raykd.storage import owners
from trainables.core.errors import UserError

root = pytest.mark.skipif(os.geteuid() != 0, reason="to be another user needs root")
TOKEN = "a-token-that-is-long-enough-for-anybody"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, and no word about Ray."""
    for name in (token.MODE, token.TOKEN, token.PATH, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(joining, "_ANSWER_S", 1.0)
    monkeypatch.setattr(joining, "_NODE_S", 0.1)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders keep other users out
        monkeypatch.setenv("HOME", folder)
        monkeypatch.setenv("RAY_TMPDIR", f"{folder}/t")
        Path(folder).chmod(0o755)
        yield Path(folder)


def note(home: Path, address: str) -> Path:
    """Ray's address file."""
    path = home / "t" / "ray" / "ray_current_cluster"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(address)
    return path


# Whose it is --------------------------------------------------------------------------------------


@root
def test_another_user_s_server_is_not_even_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening_as(STRANGER) as port:
        for host in ("127.0.0.1", "localhost"):
            assert owners.listener(host, port) == STRANGER
        with pytest.raises(UserError, match=rf"^--address: .*uid {STRANGER}'s.*--address local"):
            check_joinable(f"127.0.0.1:{port}")
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(UserError, match=r"^RAY_ADDRESS: "):
            check_joinable(ray_address(None))


@root
@pytest.mark.parametrize("whose", ["the note", "the server"])
def test_a_note_of_or_to_another_user_s_cluster_is_passed_over(
    whose: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private import services

    with listening_as(STRANGER) as port, socket.create_server(("127.0.0.1", 0)) as mine:
        address = f"127.0.0.1:{port if whose == 'the server' else mine.getsockname()[1]}"
        path = note(home, address)
        if whose == "the note":
            os.chown(path, STRANGER, STRANGER)
        monkeypatch.setattr(services, "find_gcs_addresses", lambda: {address})
        assert ray_address(None) == LOCAL
        with pytest.raises(UserError, match=f"at {address} is uid {STRANGER}'s, and none of yours"):
            check_joinable(ray_address("auto"))


@root
def test_the_verbs_say_in_one_line_whose_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, storage = home / "small.yaml", home / "sweeps"
    spec.write_text(SMALL)
    with listening_as(STRANGER) as port:
        for line in (["run", str(spec), "--storage", str(storage)], ["doctor"]):
            with pytest.raises(SystemExit) as ended:
                main([*line, "--address", f"127.0.0.1:{port}"])
            said = capsys.readouterr().err
            assert ended.value.code == 2 and said.count("\n") == 1 and f"uid {STRANGER}'s" in said, said
    assert not storage.exists()


def test_whose_a_port_is(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as v4, socket.create_server(("0.0.0.0", 0)) as every:
        assert owners.listener("127.0.0.1", v4.getsockname()[1]) == os.geteuid()
        assert owners.listener("127.0.0.1", every.getsockname()[1]) == os.geteuid()
        assert owners.listener("192.0.2.1", every.getsockname()[1]) is None, "that is another machine"
    assert owners.listener("127.0.0.1", 1) is None
    if socket.has_ipv6:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as v6:
            assert owners.listener("::1", v6.getsockname()[1]) == os.geteuid()


# What answers -------------------------------------------------------------------------------------


def test_a_server_that_is_no_ray_is_said_in_time(home: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UserError, match=r"no Ray cluster \(no answer\)"),
    ):
        check_joinable(f"127.0.0.1:{silent.getsockname()[1]}")
    web = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match="what answers there is no Ray cluster"):
            check_joinable(f"127.0.0.1:{web.server_port}")
    finally:
        web.shutdown()
        web.server_close()


@pytest.mark.parametrize(
    "address",
    [
        "ray://127.0.0.1:10001",
        "http://127.0.0.1:8265",
        "nowhere",
        ":",
        ":6379",
        "a:b",
        "127.0.0.1:99999",
        "h:²",
    ],
)
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UserError, match="--address: ") as error:
        check_joinable(address)
    assert "\n" not in str(error.value) and repr(address) in str(error.value)


def test_another_version_is_refused_with_both() -> None:
    import ray

    with (
        cluster_of("2.0.0") as address,
        pytest.raises(UserError, match=rf"runs Ray 2\.0\.0, and this is Ray {ray.__version__}.*the same Ray"),
    ):
        check_joinable(address)


def test_a_machine_that_is_no_node_is_told_how_to_become_one() -> None:
    with (
        cluster_of(None) as address,
        pytest.raises(UserError, match=f"no node of that cluster.*`ray start --address={address}`"),
    ):
        check_joinable(address)


# The token ----------------------------------------------------------------------------------------


def written(path: Path, mode: int, folder: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(TOKEN + "\n")
    path.chmod(mode)
    path.parent.chmod(folder)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_used_where_there_is_one_and_only_where_it_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / ".ray" / "auth_token"
    monkeypatch.setenv(token.MODE, "disabled")  # the cluster knows better
    with cluster_of(None, TOKEN) as address:
        with pytest.raises(UserError, match=f"asks for a token, and there is none .no {file}"):
            check_joinable(address)
        monkeypatch.setenv(token.PATH, str(home / "nowhere"))
        with pytest.raises(UserError, match=f"there is none .no {home / 'nowhere'}"):
            check_joinable(address)
        monkeypatch.delenv(token.PATH)
        written(file, 0o644)
        with pytest.raises(UserError, match="no node of that cluster"):  # it let us in
            check_joinable(address)
        assert mode(file) == 0o600 and mode(file.parent) == 0o700
        monkeypatch.setenv(token.TOKEN, "another")
        with pytest.raises(UserError, match=r"^RAY_AUTH_TOKEN: is not the token"):
            check_joinable(address)
        monkeypatch.delenv(token.TOKEN)
        file.write_text("another")
        with pytest.raises(UserError, match=f"^{file}: is not the token"):
            check_joinable(address)
    assert os.environ[token.MODE] == "disabled" and token.TOKEN not in os.environ
    with cluster_of(None) as address, pytest.raises(UserError, match="no node"):
        check_joinable(address)
    assert {given for _, given in cluster_of.calls} == {None}, "a token that is not asked for stays here"
    monkeypatch.setenv(token.MODE, "token")
    with cluster_of(None) as address, pytest.raises(UserError):
        check_joinable(address)


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "home_mode", "wrong"),
    [
        (0o644, 0o755, 0o755, "mode is 0644"),
        (0o640, 0o755, 0o711, "mode is 0640"),
        (0o666, 0o777, 0o755, "mode is 0666"),
        (0o600, 0o777, 0o755, "others can write in its folder"),
        (0o600, 0o755, 0o755, None),
        (0o644, 0o700, 0o755, None),
        (0o644, 0o755, 0o700, None),
    ],
)
def test_a_token_is_its_owner_s_alone_afterwards(
    file_mode: int, folder_mode: int, home_mode: int, wrong: str | None, home: Path
) -> None:
    """Said where others could really reach it, with the way to a new one; mended always."""
    file = written(home / ".ray" / "auth_token", file_mode, folder_mode)
    home.chmod(home_mode)
    if not owners.may_enter(home):
        pytest.skip("the temporary folder keeps everybody out")
    remark = token.mend(file)
    assert mode(file) == 0o600 and mode(file.parent) == 0o700
    assert token.mend(file) is None
    if wrong is None:
        assert remark is None
    else:
        assert remark is not None and wrong in remark and "get-auth-token --generate" in remark


@root
def test_a_token_of_another_user_s_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(home / "shared" / "token", 0o600)
    os.chown(file, STRANGER, STRANGER)
    monkeypatch.setenv(token.PATH, str(file))
    with pytest.raises(UserError, match=f"^{token.PATH}: other users can know.*uid {STRANGER}'s"):
        token.mend(file)
    os.chown(file, 0, 0)
    os.chown(file.parent, STRANGER, STRANGER)
    with pytest.raises(UserError, match=f"its folder .* is uid {STRANGER}'s"):
        token.mend(file)


def test_a_run_s_own_token_is_new_each_time_and_in_no_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._raylet import AuthenticationTokenLoader

    one, two = token.fresh(), token.fresh()
    assert one != two and len(one) == len(two) == 64
    monkeypatch.setenv(token.MODE, "disabled")
    with token.authentication("token", one):
        assert is_token_auth_enabled()
        assert AuthenticationTokenLoader.instance().get_raw_token() == one
    assert not is_token_auth_enabled() and os.environ[token.MODE] == "disabled"
    assert token.TOKEN not in os.environ and not (home / ".ray").exists()
    monkeypatch.setenv(token.TOKEN, "mine")  # of who wants to open the dashboard
    assert token.fresh() == "mine"


# Ray's folders ------------------------------------------------------------------------------------


def test_what_ray_gives_to_everybody_is_taken_back(tmp_path: Path) -> None:
    session = tmp_path / "ray" / "session"
    session.mkdir(parents=True)
    for folder in (session.parent, session):
        folder.chmod(0o777)
    owners.keep_closed(session)
    assert mode(session) == 0o700 and mode(session.parent) == 0o1777
    owners.keep_closed(tmp_path / "gone" / "session")


@root
def test_a_folder_in_which_others_can_rename_what_is_ours(tmp_path: Path, monkeypatch: Any) -> None:
    assert owners.replaceable(tmp_path) is None and owners.replaceable(tmp_path / "gone") is None
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)  # the folder is root's now
    for of_mode, said in ((0o755, None), (0o1777, None), (0o777, "is open to everybody")):
        tmp_path.chmod(of_mode)
        assert owners.replaceable(tmp_path) == said
    os.chown(tmp_path, STRANGER + 1, 0)
    assert owners.replaceable(tmp_path) == f"is uid {STRANGER + 1}'s"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_cache_and_the_scratch_folders_are_their_owner_s_alone(tmp_path: Path, umask: int) -> None:
    from raykd.storage.scratch import scratch_folder

    before = os.umask(umask)
    try:
        owners.make_private(tmp_path / "a" / "b")
        with scratch_folder(tmp_path / "t") as folder:
            assert mode(folder) == 0o700
        assert not list((tmp_path / "t").iterdir())
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
