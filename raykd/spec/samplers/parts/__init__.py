"""Optuna's samplers where raykd has one of its own. They import Optuna: import them late."""
