"""The table of checkpoint layouts that teachers may have: one row for each origin.

A row recognises a checkpoint by its keys, after the wrappers' words (`module` of DataParallel, `_orig_mod` of
torch.compile) are removed. It maps each key to the part of a network that it belongs to: its role.
A new origin is a new row in one of the files of this folder, or a new file with its rows in `LAYOUTS`.

The first row that fits a checkpoint is used. The files are tried in the order of their `ORDER`, the smallest
first (a file without one comes before all others), and the rows of a file from top to bottom. So a row must
stand before more general rows that also fit its checkpoints. A common key (`fc`) is not enough evidence of an
origin: such a row asks for more keys, or for content beside the weights. The last row fits every checkpoint.
"""

from __future__ import annotations

from trainables.core.discovery import by_name, rows
from trainables.teachers.pretrained.layouts.base import Layout

__all__ = ["LAYOUTS", "Layout"]

LAYOUTS: tuple[Layout, ...] = tuple(
    by_name(rows(__name__, "LAYOUTS", Layout), lambda layout: layout.origin).values()
)
