"""The verbs of the command line: each one parses, calls, prints.

May import every room but `stats` and `lanes`, and each verb only when it runs.
"""

from __future__ import annotations

from raykd.cli.app import VERBS, main

__all__ = ["VERBS", "main"]
