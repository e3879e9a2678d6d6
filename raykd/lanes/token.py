"""Ray's authentication token, and who can read it.

Ray writes the token of a new cluster to `~/.ray/auth_token` with the mode that the umask gives. So a Ray that
raykd starts gets a token that is in no file: it is in the environment of the daemons, which `/proc` shows to
their user alone. The token of a cluster that is joined is where its user put it; its mode is corrected.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raykd.process.environment import setting
from raykd.storage import owners
from trainables.core.errors import UserError

MODE, TOKEN, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
NEW = "`ray get-auth-token --generate` makes one, before `ray start`"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def fresh() -> str:
    """A token for one run, 256 bits; the value of RAY_AUTH_TOKEN where it is set."""
    return os.environ.get(TOKEN, "").strip() or secrets.token_hex(32)


@contextmanager
def authentication(mode: str, token: str | None = None) -> Iterator[None]:
    """Ray asks for a token (`mode` "token") or does not ("disabled") in this process and those it starts.

    `token` is passed in the environment; without it Ray looks for a token in its usual places.
    """
    wanted = {MODE: mode} if token is None else {MODE: mode, TOKEN: token}
    try:
        with setting(wanted):
            _read_again()
            yield
    finally:
        _read_again()


def _read_again() -> None:
    """Let Ray read mode and token again: it caches both."""
    import ray._raylet

    raylet: Any = ray._raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def token_file() -> Path | None:
    """The file that Ray would read a token from; None where the environment has the token itself."""
    if os.environ.get(TOKEN, "").strip():
        return None
    return Path(os.environ.get(PATH) or Path.home() / ".ray" / "auth_token")


def exposed(file: Path) -> str | None:
    """A text that says how others can read or change a token's file; None if they cannot."""
    try:
        status = file.stat()
    except OSError:
        return None
    if owners.is_anothers(status.st_uid):
        return f"it is {owners.user(status.st_uid)}'s"
    if status.st_mode & _OTHERS and owners.may_enter(file):
        return f"its mode is {stat.S_IMODE(status.st_mode):04o}"
    folder = file.parent
    if owners.is_anothers(folder.stat().st_uid):
        return f"its folder {folder} is {owners.user(folder.stat().st_uid)}'s"
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.stat().st_mode & stat.S_ISVTX:
        return f"others can write in its folder {folder}"
    return None


def mend(file: Path) -> str | None:
    """Take all rights to the token's file from other users. Returns a remark on what was wrong, or None.

    `UserError` for a file of another user's, and for one whose mode cannot be changed.
    """
    wrong = exposed(file)
    try:
        status = file.stat()
    except OSError:
        return None  # it is not there, or it cannot be read: Ray says so
    given = False  # by the administrator of the machine, as a Secret of Kubernetes is
    try:
        if status.st_uid == os.geteuid():
            if status.st_mode & _OTHERS:
                file.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
            folder = file.parent
            if folder.name == ".ray" and folder.stat().st_uid == os.geteuid():
                folder.chmod(0o700)
        else:
            given = status.st_uid == 0
        still = exposed(file)
    except OSError as error:
        given = error.errno == errno.EROFS
        still = f"{wrong}, and its modes cannot be changed ({error.strerror})" if wrong else None
    if still and given:
        return f"other users of this machine can read Ray's token in {file} ({still})"
    if still:
        raise UserError(
            PATH if os.environ.get(PATH) else str(file),
            f"other users can know this token ({still})",
            value=str(file),
            expected=f"a file of yours with mode 0600 in a folder of yours; {NEW}",
        )
    return wrong and (
        f"other users could read Ray's token in {file} ({wrong}), so they may have it; it is yours alone "
        f"now. For a new one: `ray stop`, `rm {file}`, `ray get-auth-token --generate`, `ray start`"
    )
