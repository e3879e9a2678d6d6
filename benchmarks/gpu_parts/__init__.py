"""The parts of `benchmarks/gpu.py`, and what they measure with. Nothing here imports Ray or raykd."""
