"""What the checkpoints look like that people bring as teachers: one row of a table for each origin.

A row recognises a checkpoint by its keys, after the words that say nothing (`module` of DataParallel,
`_orig_mod` of torch.compile) are taken out. It says which part of a network each key belongs to: its role.
A new origin is a new row in one of the files of this folder, or a new file with its rows in `LAYOUTS`.

The first row that fits a checkpoint is taken. The files of this folder are asked by their `ORDER`, the
smallest first (a file without one: before all others), and the rows of a file from top to bottom. So a row
stands before those that would fit its checkpoints as well. One key is no evidence of an origin whose
checkpoints look like others' (`fc`): such a row asks for more keys, or for what lies beside the weights. The
last row of all fits every checkpoint.
"""

from __future__ import annotations

from trainables.core.discovery import by_name, rows
from trainables.teachers.pretrained.layouts.base import Layout

__all__ = ["LAYOUTS", "Layout"]

LAYOUTS: tuple[Layout, ...] = tuple(
    by_name(rows(__name__, "LAYOUTS", Layout), lambda layout: layout.origin).values()
)
