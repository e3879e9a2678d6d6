"""Tables with columns, in the Hugging Face image layout `image: {bytes, path}` and `label`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainables.core.errors import UserError
from trainables.data.sources.parts.table_labels import read_labels
from trainables.data.sources.parts.tables import Table

BATCH_ROWS = 64
# What Arrow raises for a file that is not what was written; the last where a text in it is no UTF-8.
DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)


class ParquetTable(Table):
    """A Parquet file. It is read in batches, so memory does not grow with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                self._image = _image_column(path, schema)
                self.labels = read_labels(path, schema, rows, lambda name: file.read([name]).column(name))
        except DAMAGED as error:
            raise UserError("data.path", f"{path} cannot be read as Parquet: {error}") from error

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        row = 0
        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[f"{self._image}.bytes"]):
                    for content in batch.column(0).field("bytes"):
                        yield f"{self.path} row {row}", content.as_py() or b""
                        row += 1
        except DAMAGED as error:
            raise UserError("data.path", f"{self.path} cannot be read after row {row}: {error}") from error


class ArrowTable(Table):
    """An Arrow stream, as the package `datasets` writes it, in a memory map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pa.memory_map(str(path)) as mapped:
                file = pa.ipc.open_stream(mapped)
                self._image = _image_column(path, file.schema)
                table = file.read_all()
                self.labels = read_labels(path, file.schema, len(table), table.column)
        except DAMAGED as error:
            raise UserError("data.path", f"{path} cannot be read as Arrow: {error}") from error

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        row = 0
        try:
            with pa.memory_map(str(self.path)) as mapped:
                for batch in pa.ipc.open_stream(mapped):
                    for content in batch.column(self._image).field("bytes"):
                        yield f"{self.path} row {row}", content.as_py() or b""
                        row += 1
        except DAMAGED as error:
            raise UserError("data.path", f"{self.path} cannot be read after row {row}: {error}") from error


def _image_column(path: Path, schema: pa.Schema) -> str:
    fits = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    if not fits:
        columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise UserError(
            "data.path", f"{path} has no images ({columns})", expected="a column image: {bytes, path}"
        )
    return next((name for name in ("image", "img") if name in fits), str(fits[0]))
