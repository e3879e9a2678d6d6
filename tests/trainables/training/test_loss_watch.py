"""A loss gone bad ends the trial with the step and the terms; a good one is averaged."""

from __future__ import annotations

import math

import pytest
import torch

from trainables.core.errors import TrialFailed
from trainables.methods.base import Losses
from trainables.training.loss_watch import LOOK_EVERY, LossWatch


def step(total: float, **terms: float) -> list[Losses]:
    return [Losses(torch.tensor(total), {name: torch.tensor(value) for name, value in terms.items()})]


def test_means_over_steps_and_micro_batches() -> None:
    watch = LossWatch(1, 60, None)
    for i in range(60):
        watch.add(step(float(i), a=1.0) + step(float(i) + 2, a=3.0))
    assert watch.means() == pytest.approx({"loss/total": 30.5, "loss/a": 2.0})
    assert watch.first_loss == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_names_step_and_terms(bad: float) -> None:
    watch = LossWatch(3, 60, 5.0)
    watch.add(step(1.0, dis=0.5, con=0.5))
    watch.add(step(1.0, dis=bad, con=0.25))
    watch.add(step(math.nan, dis=math.nan, con=math.nan))  # the first bad step is the one that is told
    with pytest.raises(
        TrialFailed, match=r"not finite at epoch 3, step 2/60: total 1, dis -?(nan|inf), con 0.25"
    ):
        watch.means()


def test_an_explosion_is_measured_by_the_first_step() -> None:
    watch = LossWatch(1, 60, None)
    watch.add(step(7.0))
    watch.add(step(6.9e4))
    watch.means()
    watch = LossWatch(2, 60, watch.first_loss)
    watch.add(step(7.1e4))
    with pytest.raises(TrialFailed, match=r"exploded \(the first step's was 7\) at epoch 2, step 1/60"):
        watch.means()
    small = LossWatch(1, 60, 1e-9)  # a loss that starts near nothing may grow
    small.add(step(50.0))
    small.means()


def test_the_look_comes_while_the_epoch_runs() -> None:
    watch = LossWatch(1, 1000, 1.0)
    with pytest.raises(TrialFailed, match="step 3/1000"):
        for i in range(LOOK_EVERY):
            watch.add(step(math.nan if i >= 2 else 1.0))
