"""A shard: the answers to a run of images in one Arrow file, with a checksum. It is whole, or it is not read.

The file is an Arrow IPC file: `id` int64, `target` fixed_size_binary: the raw bytes of the tensor's rows, of
whatever type it is (bfloat16 has no type in Arrow). Metadata of the schema: dtype, what was asked, checksum.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainables.core.checksums import CHECKSUM, checksum
from trainables.core.files import is_own_file, opened, replacing

_TYPES = {
    str(t).removeprefix("torch."): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}
_DTYPE = "dtype"
_log = logging.getLogger(__name__)
_whole: set[tuple[str, int, int, int]] = set()  # files that this process compared with their checksum


def write_shard(path: Path, ids: np.ndarray, rows: Tensor, about: Mapping[str, str]) -> None:
    """Write the answers `rows` (N, D), on the CPU, to the images `ids` (N,).

    `about` is what `read_shard` will compare. The file is not synced: after a crash of the machine its
    checksum tells that it is not whole. Raises `OSError` as the disk does.
    """
    facts = {**about, _DTYPE: str(rows.dtype).removeprefix("torch.")}
    rows = rows.contiguous()
    facts[CHECKSUM] = checksum({"id": torch.from_numpy(ids), "target": rows}, facts)
    raw = rows.view(torch.uint8).numpy()
    kind = pa.binary(raw.shape[1])
    target = pa.FixedSizeBinaryArray.from_buffers(kind, len(raw), [None, pa.py_buffer(raw)])
    schema = pa.schema([pa.field("id", pa.int64()), pa.field("target", kind)], metadata=facts)
    batch = pa.record_batch([pa.array(ids), target], schema=schema)
    with (
        replacing(path, durable=False) as temporary,
        opened(temporary, "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        writer.write_batch(batch)


def read_shard(path: Path, ids: np.ndarray, about: Mapping[str, str]) -> Tensor | None:
    """The answers (N, D) to the images `ids`, a copy; None if the file is not there, damaged or another's."""
    try:
        return _read(path, ids, about)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a flipped bit in Arrow's footer can raise anything
        _log.warning("the teacher's answers in %s cannot be used and are computed again: %s", path, error)
        return None


def _read(path: Path, ids: np.ndarray, about: Mapping[str, str]) -> Tensor | None:
    if not is_own_file(path):
        return None
    status = path.stat()
    stamp = (str(path), status.st_ino, status.st_mtime_ns, status.st_size)
    with pa.memory_map(str(path)) as mapped:
        file = pa.ipc.open_file(mapped)
        facts = {key.decode(): value.decode() for key, value in (file.schema.metadata or {}).items()}
        batch = file.get_batch(0)
        found = batch.column("id").to_numpy()
        if {key: facts.get(key) for key in about} != dict(about) or not np.array_equal(found, ids):
            raise ValueError("it holds other answers than its name says")
        column = batch.column("target")
        raw = np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * column.type.byte_width)
        rows = torch.from_numpy(raw.reshape(len(column), -1).copy()).view(_TYPES[facts[_DTYPE]])
    if stamp not in _whole:
        if facts.get(CHECKSUM) != checksum({"id": torch.from_numpy(found.copy()), "target": rows}, facts):
            raise ValueError("its content is not what was written")
        _whole.add(stamp)
    return rows
