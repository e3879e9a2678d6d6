"""What users write and what it means: YAML, axes, sections, arms, `SearchSpec` and `StudySpec`, their checks.

It needs neither torch nor Ray.
"""
