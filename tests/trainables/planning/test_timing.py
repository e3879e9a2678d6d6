"""Timing a few steps: real ones of every kind of method, without data, teacher or a trace left behind."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from tiny_trials import tiny

from trainables.planning.compute import epoch_steps
from trainables.planning.timing import measure
from trainables.spec.trial import TrialSpec
from trainables.training.run import Run

torch.set_num_threads(1)
TEACHER = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}


@pytest.mark.parametrize(
    "trial",
    [
        tiny("retro"),
        tiny("rrkd", teacher=TEACHER, config={"anchors": "best_per_class"}),
        tiny("moco", optim={"batch_size": 256, "accumulate": 2}, data={"name": "digits", "image_size": 96}),
    ],
    ids=["queue and head", "anchors of the data", "micro-batches in part"],
)
def test_steps_and_probes_are_timed(trial: TrialSpec) -> None:
    state, began = torch.get_rng_state(), time.perf_counter()
    found = measure(trial)
    spent = time.perf_counter() - began
    assert 0 < found.step_s < spent * 16 and found.probe_s > 0 and found.device in ("cpu", "cuda")
    whole = 3 * epoch_steps(trial) * found.step_s + 3 * found.probe_s
    assert found.of(trial) == pytest.approx(whole)
    rarely = trial.model_copy(update={"probe": trial.probe.model_copy(update={"every": 2})})
    assert found.of(rarely) == pytest.approx(whole - found.probe_s)
    assert torch.equal(torch.get_rng_state(), state)


def test_turns_that_other_processes_take_are_not_a_trial_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleep stands for them: the thread waits and does nothing. They are said beside the figure."""
    if torch.cuda.is_available():
        pytest.skip("a GPU is timed by the clock")
    trial = tiny("retro")
    alone, micro_batch = measure(trial), Run.micro_batch

    def waits(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return micro_batch(*arguments, **named)

    monkeypatch.setattr(Run, "micro_batch", waits)
    crowded = measure(trial)
    assert crowded.step_s < 3 * alone.step_s and crowded.busy > 1.5
