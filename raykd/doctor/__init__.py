"""Checks before anything is spent, of this machine or of a whole cluster, and how to mend what is found.

May import `storage`, `spec` and `lanes`.
"""
