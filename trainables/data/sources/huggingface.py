"""The source `huggingface`: a data set that the package `datasets` saved, or Parquet files from the hub.

    DIR/state.json, DIR/data-00000-of-00002.arrow         `Dataset.save_to_disk(DIR)`: all training data
    DIR/dataset_dict.json, DIR/train/state.json, …        `DatasetDict.save_to_disk(DIR)`: the splits by name
    DIR/data/train-00000-of-00003.parquet, …              a data set repository of the hub, or its snapshot

The folder may lie on a local disk or a mounted bucket. The package itself is not needed. The image column has
the fields `bytes` and `path`; the label column is `label`, `labels` or `fine_label`, and its class names are
those of the features. Beside a `state.json` only the files that it names are read: caches are not.
"""

from __future__ import annotations

import json
from pathlib import Path

from trainables.core.errors import UserError
from trainables.data.sources.parts.columns import ArrowTable, ParquetTable
from trainables.data.sources.parts.tables import Table, TableSource

_ARROW, _PARQUET = ".arrow", ".parquet"
_STATE = "state.json"


class HuggingFace(TableSource):
    """The data source `huggingface`."""

    name = "huggingface"
    summary = "a folder written by `save_to_disk` of the package datasets, or a hub folder of Parquet files"
    endings = (_ARROW, _PARQUET)
    content = "data set"

    def table(self, path: Path) -> Table:
        return (ParquetTable if path.suffix.lower() == _PARQUET else ArrowTable)(path)

    def belongs(self, folder: Path, paths: list[str]) -> list[str]:
        named: dict[str, set[str] | None] = {}  # by folder; None: it has no state
        kept = []
        for path in paths:
            above, _, name = path.rpartition("/")
            if above not in named:
                named[above] = _files_of(folder / above)
            files = named[above]
            if name in files if files is not None else not name.startswith("cache-"):
                kept.append(path)
        if not kept:
            raise UserError("data.path", f"no file of {folder} belongs to a saved data set")
        return kept


def _files_of(folder: Path) -> set[str] | None:
    """The files that `state.json` of a folder names; None if it has none."""
    path = folder / _STATE
    try:
        state = json.loads(path.read_bytes())
        if state.get("_indices_data_files"):
            again = "a data set saved again by a newer version of datasets"
            raise UserError("data.path", f"{path} selects rows by a file of indices", expected=again)
        return {str(file["filename"]) for file in state["_data_files"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("data.path", f"{path} cannot be read: {error}") from error


SOURCES = (HuggingFace(),)
