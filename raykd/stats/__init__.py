"""The statistics of a study: pure functions over arrays of scores, taken from scipy where it has them.

Scores are points, and higher is better. A failed trial is NaN: it is left out, and counted.
"""
