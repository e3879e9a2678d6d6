"""The source `parquet`: Parquet files in the Hugging Face image layout, `image: {bytes, path}` and `label`.

`parts/tables.py` says which file belongs to which split. The column `label`, `labels` or `fine_label` has
integers or words (`table_labels.py`).
"""

from __future__ import annotations

from pathlib import Path

from trainables.data.sources.parts.columns import ParquetTable
from trainables.data.sources.parts.tables import Table, TableSource


class Parquet(TableSource):
    """The data source `parquet`."""

    name = "parquet"
    summary = "a folder of Parquet files in the Hugging Face image layout (image: {bytes, path}, label)"
    endings = (".parquet",)
    content = "parquet-files"

    def table(self, path: Path) -> Table:
        return ParquetTable(path)


SOURCES = (Parquet(),)
