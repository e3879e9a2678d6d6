"""What leaves raykd, a trial as a student with its card; and what comes in, a checkpoint as a teacher.

May import the rooms up to `records`.
"""
