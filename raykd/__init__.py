"""The engine: searches and ablates distillation recipes over a Ray cluster. It knows Ray, Optuna and Arrow,
and names no method: what a trial trains is in `trainables`.

Its rooms, each built on some of those before it (`tests/test_imports.py` has the table):

  process   this process: its signals and its standard streams
  stats     intervals, tests, designs: pure functions over arrays
  storage   where sweeps lie: folders, object stores, the lock of a driver
  spec      what users write, and what it means
  records   what happened: the ledger, the history, tables, TensorBoard
  lanes     where trials run: Ray, warm worker groups, the broker
  searching what is tried next, what goes on, which axes matter
  console   what the terminal shows, and how things are worded
  export    a trial as a student for others; a checkpoint as a teacher
  ablation  studies: designs, the guard, rounds of replicates, conclusions
  runs      from a spec to its results: plan, run, resume, repair
  report    one HTML page of a sweep or a study
  doctor    checks of this machine or of a cluster
  cli       the verbs
"""
