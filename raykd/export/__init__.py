"""Exporting a trial's student with its model card, and inspecting a checkpoint as a teacher.

May import `storage`, `spec` and `records`.
"""
