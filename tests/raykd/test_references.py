"""Which trial stands for a sweep when its data is prepared and its references are measured."""

from __future__ import annotations

from raykd.runs.beside import representative
from raykd.spec.sweep import build_sweep

RAW = {
    "name": "both",
    "preset": "digits",
    "student": {"arch": "test_efficientnet"},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}},
    "epochs": 2,
    "samples": 2,
    "axes": {"gamma": {"log": [0.01, 1]}, "lr": {"log": [1e-3, 1e-2]}},
}


def test_among_several_methods_one_with_a_teacher_stands_for_all() -> None:
    trial = representative(build_sweep({**RAW, "method": ["moco", "retro"]}))
    assert trial.method == "retro" and trial.teacher is not None


def test_without_a_teacher_the_first_method_does() -> None:
    alone = {name: value for name, value in RAW.items() if name not in ("teacher", "axes")}
    assert representative(build_sweep({**alone, "method": "moco"})).method == "moco"
