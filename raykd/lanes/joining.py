"""Whether the Ray cluster at an address can be joined: who owns it, whether it answers, if it wants a token.

This is checked before `ray.init`, which would run work as another user, end the process on an error, or wait
for a minute if nothing answers. The checks are single calls of Ray's protocol with time limits.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from raykd.lanes.token import MODE, NEW, authentication, mend, token_file
from raykd.storage import owners
from trainables.core.errors import UserError, first_line

AUTO = "auto"
_CONNECT_S = 5.0
_ANSWER_S = 20.0  # for an answer of the head, which is slow when it is busy
_NODE_S = 5.0  # for a node that `ray start` has just started
_OWN = "`--address local` for a Ray of your own"


class Entry(NamedTuple):
    """How a cluster is joined."""

    mode: str  # what RAY_AUTH_MODE must be
    remarks: list[str]  # what the user should know of it


class _NoToken(Exception):
    """The cluster asks for a token, and got none or a wrong one."""


def running_here(folder: Path | None = None) -> str | None:
    """The address of the cluster that this user's `ray start` started on this machine, if it still runs.

    Ray's own "auto" would also join the private cluster of another `raykd run`, and end with it. Every user
    can write the file that names the address, so the file of another user is not used. `folder`: see
    `read_address_file`.
    """
    from ray._private import services

    found = read_address_file(folder)
    if found is None or found.uid != os.geteuid() or found.address not in services.find_gcs_addresses():
        return None
    return found.address if _owner_of(found.address) in (None, os.geteuid()) else None


def strangers_here() -> str | None:
    """A text that names the cluster in Ray's address file if it is another user's; None if there is none."""
    from ray._private import services

    found = read_address_file()
    if found is None or found.address not in services.find_gcs_addresses():
        return None
    others = [uid for uid in (_owner_of(found.address), found.uid) if uid is not None and uid != os.geteuid()]
    return f"the Ray cluster at {found.address} is {owners.user(others[0])}'s" if others else None


def look(address: str) -> Entry:
    """How to join the cluster at `address`.

    Raises `UserError`, in one line, if no Ray cluster answers there, if the cluster or its node on this
    machine is another user's, if it runs another version of Ray, if a token is missing or wrong, and if this
    machine is no node of it.
    """
    host, port = _parsed(address)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError, OverflowError) as error:
        raise _refused(address, f"no cluster answers ({error})") from None
    uid = owners.listener(host, port)
    if uid is not None and uid != os.geteuid():
        whose = owners.user(uid)
        raise _refused(address, f"the cluster there is {whose}'s, and your work would run as {whose}")
    entry = _answer(address)
    remarks = [*entry.remarks]
    asked = os.environ.get(MODE, "").lower()
    if entry.mode == "disabled":
        if asked == "token":
            raise UserError(
                MODE, f"the cluster at {address} asks nobody for a token", value=asked, expected=NEW
            )
        if uid is not None:
            remarks.append(
                f"the cluster at {address} asks nobody for a token, so every user of this machine can run "
                f"code as you; {NEW}"
            )
    return Entry(entry.mode, remarks)


def failed(address: str, error: Exception) -> UserError:
    """The refusal with what `ray.init` said when it did not join."""
    return _refused(address, f"it cannot be joined: {first_line(error)}")


def _answer(address: str) -> Entry:
    """Check the cluster without a token first: a token goes only to a cluster that asks for one."""
    with authentication("disabled"):
        try:
            return Entry("disabled", _check(address))
        except _NoToken:
            pass
    file = token_file()
    remark = mend(file) if file is not None else None
    expected = "the cluster's own: in RAY_AUTH_TOKEN, or in a file of yours that RAY_AUTH_TOKEN_PATH names"
    if not _has_token():
        raise UserError(
            "RAY_AUTH_TOKEN",
            f"the cluster at {address} asks for a token, and there is none "
            f"({f'no {file}' if file is not None else 'RAY_AUTH_TOKEN is empty'})",
            expected=expected,
        )
    with authentication("token"):
        try:
            remarks = _check(address)
        except _NoToken:
            where = "RAY_AUTH_TOKEN" if file is None else str(file)
            problem = f"is not the token of the cluster at {address}"
            raise UserError(where, problem, expected=expected) from None
    return Entry("token", [*([remark] if remark else []), *remarks])


def _check(address: str) -> list[str]:
    """Check the cluster's version and its node on this machine. Returns remarks for the user.

    Raises `_NoToken` if the cluster wants another token.
    """
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    asked: Any = gcs_service_pb2
    stubs: Any = gcs_service_pb2_grpc
    channel: Any = init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        version = stubs.InternalKVGcsServiceStub(channel).InternalKVGet(
            asked.InternalKVGetRequest(namespace=b"cluster", key=b"CLUSTER_METADATA"), timeout=_ANSWER_S
        )
        theirs = _version(version.value)
        if theirs not in (None, ray.__version__):
            raise _refused(
                address,
                f"the cluster runs Ray {theirs}, and this is Ray {ray.__version__}",
                f"the same Ray on both sides, or {_OWN}",
            )
        return _check_node(address, stubs.NodeInfoGcsServiceStub(channel), asked.GetAllNodeInfoRequest)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise _NoToken from None
        said = "no answer" if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED else error.details()
        raise _refused(address, f"what answers there is no Ray cluster ({said})") from None
    finally:
        channel.close()


def _check_node(address: str, nodes: Any, request: Any) -> list[str]:
    """Refuse if this machine has no node of the cluster, or if another user started it. Returns remarks."""
    from ray import NodeID
    from ray._private import services
    from ray.core.generated import gcs_pb2

    states: Any = gcs_pb2
    deadline = time.monotonic() + _NODE_S
    while True:
        # `find_node_ids` reads the command lines of all users' processes, which may hold anything.
        ids = [id for id in services.find_node_ids() if re.fullmatch("[0-9a-f]{56}", id)]
        here = [request.NodeSelector(node_id=NodeID.from_hex(id).binary()) for id in ids]
        alive = request(node_selectors=here, state_filter=states.GcsNodeInfo.GcsNodeState.ALIVE)
        found = nodes.GetAllNodeInfo(alive, timeout=_ANSWER_S).node_info_list if here else ()
        sockets = [Path(node.raylet_socket_name) for node in found]
        if sockets:
            break
        if time.monotonic() > deadline:
            start = f"`ray start --address={address}` here first, or {_OWN}"
            raise _refused(address, "this machine is no node of that cluster", start)
        time.sleep(0.5)
    for path in sockets:
        for uid in (owners.owner(path), owners.owner(path.parent.parent)):  # the session's folder
            if uid is not None and uid != os.geteuid():
                problem = f"this machine's node of that cluster is {owners.user(uid)}'s"
                raise _refused(address, problem)
    above = {path.parent.parent.parent for path in sockets}  # Ray's temporary folder
    return [
        f"others can put what they like in the place of Ray's folder of sockets: {folder} {why}; "
        "`ray start --temp-dir=DIR` takes a folder of yours"
        for folder in sorted(above)
        if (why := owners.replaceable(folder))
    ]


def _has_token() -> bool:
    import ray._raylet
    from ray.exceptions import AuthenticationError

    raylet: Any = ray._raylet
    try:
        return bool(raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))
    except AuthenticationError:  # a file that is named, and is not there, or empty
        return False


def _version(metadata: bytes) -> str | None:
    try:
        found = json.loads(metadata).get("ray_version")
    except (ValueError, AttributeError):
        return None
    return str(found) if found is not None else None


def _parsed(address: str) -> tuple[str, int]:
    """Host and port of an address. `UserError` for what is no HOST:PORT."""
    if address == AUTO:
        strangers = strangers_here()
        none = f"{strangers}, and none of yours" if strangers else "none"
        raise _refused(address, f"no cluster answers ({none} was started on this machine by `ray start`)")
    if "://" in address:
        scheme = address.partition("://")[0]
        problem = f"a sweep's driver runs on a node of its cluster, and does not join by {scheme}://"
        raise _refused(address, problem, "HOST:PORT, typed on a node of that cluster, or `ray submit`")
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise _refused(address, "no cluster answers (this is no HOST:PORT)")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _refused(address: str, problem: str, expected: str = "") -> UserError:
    field = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") == address else "--address"
    expected = expected or f"HOST:PORT of a running Ray cluster of yours, or {_OWN}"
    return UserError(field, problem, value=address, expected=expected)


class AddressFile(NamedTuple):
    """What Ray's address file says, and the user id of its owner."""

    path: Path
    address: str
    uid: int


def read_address_file(folder: Path | None = None) -> AddressFile | None:
    """Ray's address file, in `folder` or where Ray looks for it; None if there is none, or a link."""
    from ray._common.utils import get_ray_address_file

    path = Path(get_ray_address_file(str(folder) if folder else None))
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            return AddressFile(path, file.read(1000).strip(), os.fstat(file.fileno()).st_uid)
    except (OSError, UnicodeDecodeError):
        return None


def _owner_of(address: str) -> int | None:
    host, _, port = address.rpartition(":")
    return owners.listener(host.strip("[]"), int(port)) if port.isdigit() else None
