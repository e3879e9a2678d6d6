"""A sweep or a study from its spec to its results: planned, tuned, run, resumed, repaired.

May import every room but `stats`, `report`, `doctor` and `cli`.
"""
