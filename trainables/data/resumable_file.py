"""An Arrow file that is written on from where a process was killed.

Beside the file lies a journal, one line for each record batch that is whole: where it ends, its checksum, and
what the writer has to know to continue. A new process reads the batches of the lines that hold, gives them to
an Arrow writer again, and the bytes that are in the file already are not written again. So the result is the
file that one process would have written.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainables.core.files import opened

JOURNAL = ".journal"  # after the file's name
_MAGIC = 8  # bytes before the first message of an Arrow file
_BLOCK = 1 << 24
Note = dict[str, Any]


class ResumableFile(io.RawIOBase):
    """A file to write Arrow batches to; `found` are the notes of those that are there, one a batch.

    After `writer.write_batch`, `note` makes the batch last. Before the first new batch, give the batches of
    `whole_batches` to the writer, one for each note in `found`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        journal = path.with_name(path.name + JOURNAL)
        self.found, self._kept = _found(path, journal)
        self._at = self._crc = 0
        self._file = opened(path, "r+b" if self.found else "wb")
        self._file.truncate(self._kept)
        self._file.seek(self._kept)
        self._journal = opened(journal, "r+" if self.found else "w")
        for _ in self.found:
            self._journal.readline()
        self._journal.truncate(self._journal.tell())

    def whole_batches(self) -> Iterator[pa.RecordBatch]:
        """The batches in the file, one for each note."""
        if self.found:
            mapped = mmap.mmap(self._file.fileno(), self._kept, access=mmap.ACCESS_READ)
            stream = pa.ipc.open_stream(pa.py_buffer(mapped)[_MAGIC:])
            for _ in self.found:
                yield stream.read_next_batch()

    def note(self, facts: Note) -> None:
        """Record that everything written so far is whole, and `facts` with it."""
        self._file.flush()
        line = {"end": self._at, "crc": self._crc, "arrow": pa.__version__, "facts": facts}
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        self._crc = 0

    def write(self, data: Any) -> int:
        """Write, or skip what is in the file already."""
        view = memoryview(data).cast("B")
        new = max(0, self._at + len(view) - max(self._at, self._kept))
        if new:
            self._crc = zlib.crc32(view[len(view) - new :], self._crc)
            self._file.write(view[len(view) - new :])
        self._at += len(view)
        return len(view)

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in the file."""
        return self._at

    def finish(self) -> None:
        """Make the file durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files; what has a note stays."""
        if not self.closed:
            self._file.close()
            self._journal.close()
        super().close()


def _found(path: Path, journal: Path) -> tuple[list[Note], int]:
    """The notes of the batches that are whole, and where the last one ends."""
    notes: list[Note] = []
    end = 0
    try:
        with opened(path) as file, opened(journal, "r") as lines:
            for text in lines:
                line = json.loads(text)
                # Another version of Arrow may write a batch in another way.
                if not text.endswith("\n") or line["arrow"] != pa.__version__:
                    break
                if _crc(file, line["end"] - end) != line["crc"]:
                    break
                end = line["end"]
                notes.append(line["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, or torn in the middle of a line
        pass
    return notes, end


def _crc(file: Any, size: int) -> int:
    """The CRC-32 of the next bytes of a file; -1 if it has less."""
    crc = 0
    while size > 0:
        block = file.read(min(size, _BLOCK))
        if not block:
            return -1
        crc, size = zlib.crc32(block, crc), size - len(block)
    return crc
