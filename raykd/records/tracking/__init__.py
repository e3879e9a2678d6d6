"""Experiment trackers (Weights & Biases, MLflow) as views of the ledger: one run a trial.

`run.py` says what a run holds: it follows from the ledger alone. `feed.py` listens to the recorder and hands
runs to a process of its own (`writer.py`), which makes the tracker hold them (`wandb_runs.py`,
`mlflow_runs.py`). Writing a run again changes nothing, so what is missing after an outage, a crash or a
resume is written by the same call. `written.py` remembers what need not be looked at again.
"""
