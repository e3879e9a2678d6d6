"""What users write and what it means: YAML, axes, sections, arms, `SweepSpec`; checked before a start.

May import `storage`. Needs neither torch nor Ray.
"""
