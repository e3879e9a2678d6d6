"""`python -m raykd.cli`, the same as `raykd`."""

from __future__ import annotations

from raykd.cli import main

main()
