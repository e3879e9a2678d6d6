"""Which configuration is tried next, which trials go on, and which axes have mattered.

May import `stats`, `spec`, `records` and `lanes`.
"""
