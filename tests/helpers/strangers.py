"""Servers of other users, and such as are no Ray of ours: what may wait at an address."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

STRANGER = 64001


@contextlib.contextmanager
def listening_as(uid: int) -> Iterator[int]:
    """The port of a server that takes connections and never answers, another user's. Needs root."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with socket.create_server(("127.0.0.1", 0)) as server:
                os.write(writes, str(server.getsockname()[1]).encode())
                signal.pause()
        finally:
            os._exit(0)
    try:
        yield int(os.read(reads, 20))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reads)
        os.close(writes)


@contextlib.contextmanager
def cluster_of(version: str | None, token: str | None = None) -> Iterator[str]:
    """The address of what speaks Ray's protocol, of this version, asks for this token, and has no nodes.

    The calls that it got lie in `cluster_of.calls`: (method, what the caller gave as its token).
    """
    import grpc
    from ray.core.generated import gcs_service_pb2 as messages

    cluster_of.calls = []  # type: ignore[attr-defined]

    def answer(method: str, context: Any) -> bytes:
        given = dict(context.invocation_metadata()).get("authorization")
        cluster_of.calls.append((method, given))  # type: ignore[attr-defined]
        if token is not None and given != f"Bearer {token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        if method == "InternalKVGet":
            facts = json.dumps({"ray_version": version}).encode() if version else b""
            reply: Any = messages.InternalKVGetReply(value=facts)
        else:
            reply = messages.GetAllNodeInfoReply()
        return bytes(reply.SerializeToString())

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            method = details.method.rpartition("/")[2]
            return grpc.unary_unary_rpc_method_handler(lambda _, context: answer(method, context))

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
