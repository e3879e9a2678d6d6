"""The engine: searches and ablates distillation recipes over a Ray cluster. It knows Ray, Optuna and Arrow,
and names no method: what a trial trains is in `trainables`.

Its rooms from the ground up, each of which may import those before it (`tests/test_imports.py`): stats,
storage, spec, records, lanes, search, console, export, ablation, runs, report, doctor, cli.
"""
