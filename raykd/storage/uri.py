"""The URIs that `--storage` takes, and the pyarrow file system that each stands for.

Credentials come from where the storage's own tools read them: environment variables, files, the machine's
role. A URI with a secret in it is refused: it would be kept in logs and in the shell's history.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from trainables.core.errors import UserError
from trainables.core.storage_retry import reason

_S3 = {"scheme": str, "endpoint_override": str, "region": str, "tls_ca_file_path": str}
_S3_FLAGS = ("force_virtual_addressing", "anonymous")
_GOOGLES = ("gs", "gcs")
_RETRY_S = 2
_SECRET = re.compile(r"secret|password|token|sig$|key$|credential", re.IGNORECASE)


def shown(uri: str, key: str = "") -> str:
    """The URI of a file of the storage, for messages: without the options."""
    return "/".join(filter(None, (uri.partition("?")[0].rstrip("/"), key)))


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it. `UserError` for one that cannot be, or holds a secret."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    owner = parts.netloc.rpartition("@")[0]
    secret = [name for name in options if _SECRET.search(name)]
    if secret or ":" in owner or (owner and parts.scheme == "s3"):
        raise UserError(
            "--storage", f"{bare} came with a secret in it, which logs and the shell's history would keep",
            expected="credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), in the "
            "storage's own files (~/.aws), or a role of the machine",
        )  # fmt: skip
    if parts.scheme in ("s3", *_GOOGLES) and not parts.netloc:
        raise UserError("--storage", "names no bucket", value=uri, expected=f"{parts.scheme}://BUCKET/FOLDER")
    if parts.scheme == "s3":
        return _open_s3(parts.netloc, parts.path, options)
    if parts.scheme in _GOOGLES and "retry_limit_seconds" not in options:
        # `with_retry` tries again, and says so; Arrow would try for 15 minutes in silence.
        uri += f"{'&' if parts.query else '?'}retry_limit_seconds={_RETRY_S}"
    try:
        files, root = fs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise UserError(
            "--storage", f"cannot be used: {reason(OSError(str(error)))}", value=bare,
            expected="a folder, or a URI such as s3://BUCKET/FOLDER or gs://BUCKET/FOLDER",
        ) from None  # fmt: skip
    return files, str(root)


def _open_s3(bucket: str, path: str, options: dict[str, str]) -> tuple[fs.FileSystem, str]:
    for name in options:
        if name not in (*_S3, *_S3_FLAGS):
            raise UserError("--storage", "no such option", value=name, choices=(*_S3, *_S3_FLAGS))
    given: dict[str, Any] = {name: options[name] for name in _S3 if name in options}
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if address and "endpoint_override" not in given:
        at = urlsplit(address)
        given |= {"scheme": at.scheme or "https", "endpoint_override": at.netloc}
    given |= {name: options[name].lower() in ("1", "true", "") for name in _S3_FLAGS if name in options}
    placed = ("AWS_REGION", "AWS_DEFAULT_REGION")
    if not {"region", "endpoint_override"} & given.keys() and not any(map(os.environ.get, placed)):
        with contextlib.suppress(OSError):  # `Remote.check` says what is wrong
            given["region"] = fs.resolve_s3_region(bucket)
    # `with_retry` tries again, and says so: Arrow's ten tries, with longer and longer pauses, are silent.
    files = fs.S3FileSystem(
        **given,
        connect_timeout=5,
        request_timeout=20,
        allow_delayed_open=True,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )
    return files, f"{bucket}{path}"
