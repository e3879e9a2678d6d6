"""What leaves raykd, a trial as a student with its card; and what comes in, a checkpoint as a teacher.

May import `storage`, `spec` and `records`.
"""
