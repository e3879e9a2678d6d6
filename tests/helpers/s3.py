"""A real S3 server on loopback (moto's), behind a gate: shut, it is a storage that is gone for a while."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

BUCKET = "bucket"
KEYS = {
    "AWS_ACCESS_KEY_ID": "raykd-test-key",
    "AWS_SECRET_ACCESS_KEY": "raykd-test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Gate:
    """A TCP relay in front of a server. Shut, it refuses connections and cuts those that are open."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self.port = 0
        self.open()

    def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            for side in [listener, *self._open] if listener else self._open:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
                side.close()
            self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    if listener is not self._listener:
                        client.close()
                        return
                    server = socket.create_connection(("127.0.0.1", self._server))
                    self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with self._lock:
            for side in (source, sink):
                self._open.discard(side)
                side.close()


class S3(Gate):
    """The server, its gate, and one bucket."""

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line a request
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        port = self._moto.get_host_and_port()[1]
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=BUCKET)
        super().__init__(port)

    def uri(self, folder: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{folder}?scheme=http&endpoint_override=127.0.0.1:{self.port}"

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def stop(self) -> None:
        self.shut()
        # What moto keeps is the process's: the next server would begin with it.
        urlopen(Request(f"http://127.0.0.1:{self._server}/moto-api/reset", method="POST")).close()
        self._moto.stop()


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.stop()
