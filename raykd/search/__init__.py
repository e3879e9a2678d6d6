"""What is tried next and what goes on: Optuna's ask and tell, the judge; and which axes have mattered.

May import `stats`, `spec`, `records` and `lanes`.
"""
