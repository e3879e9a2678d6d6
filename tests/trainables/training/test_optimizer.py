"""Learning rates by formula, optimizers that survive a checkpoint, and settings that are refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import get_optimizer_class
from torch import nn

from trainables.core.errors import UserError
from trainables.spec.trial import OptimSpec
from trainables.training.checkpoints import Checkpoints
from trainables.training.optimizer import Schedule, _can_fuse, check_optim, load_optimizer, make_optimizer


def rates(epochs: int, updates: int, **fields: Any) -> list[float]:
    spec = OptimSpec(**{"lr": 0.1, **fields})
    optimizer = make_optimizer(nn.Linear(3, 3), spec)
    schedule = Schedule(optimizer, spec, epochs, updates)
    found = []
    for update in range(epochs * updates):
        schedule.set(update)
        assert {group["lr"] for group in optimizer.param_groups} == {schedule.lr}
        found.append(schedule.lr)
    return found


def test_cosine_falls_with_every_update() -> None:
    expected = [0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi * t / 12)) for t in range(12)]
    assert rates(4, 3, min_lr=0.001) == pytest.approx(expected)


def test_warm_up_is_linear_and_never_zero() -> None:
    found = rates(4, 5, warmup_epochs=1)
    assert found[0] == pytest.approx(0.1 / 5)
    steps = [b - a for a, b in itertools.pairwise(found[:5])]
    assert steps == pytest.approx([steps[0]] * 4)
    assert max(found) <= 0.1


def test_cosine_after_warmup_begins_at_the_peak_and_ends_with_the_last_epoch() -> None:
    """As in lightly-train, solo-learn, Barlow Twins and BYOL; timm's `cosine` is 3 updates on by then."""
    found = rates(5, 3, schedule="cosine_after_warmup", warmup_epochs=1, min_lr=0.001)
    falling = [0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi * t / 12)) for t in range(12)]
    assert found[3:] == pytest.approx(falling)
    assert found[0] == pytest.approx(0.1 / 3) and found[0] < found[1] < found[2] < found[3] == 0.1
    assert rates(5, 3, warmup_epochs=1)[3] == pytest.approx(0.05 * (1 + math.cos(math.pi * 3 / 15)))
    assert rates(4, 3, schedule="cosine_after_warmup") == rates(4, 3)  # nothing to leave out


def test_constant_step_and_multistep_change_where_an_epoch_begins() -> None:
    assert rates(3, 4, schedule="constant") == [0.1] * 12
    stepped = rates(6, 3, schedule="step", decay_epochs=(2,), decay_rate=0.5)
    assert stepped == pytest.approx([0.1 * 0.5 ** (t // 6) for t in range(18)])
    multi = rates(5, 3, schedule="multistep", decay_epochs=(1, 3), decay_rate=0.2)
    assert multi == pytest.approx([0.1 * 0.2 ** ((t >= 3) + (t >= 9)) for t in range(15)])


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "momentum", "lars", "lamb", "lion", "adan", "muon", "rmsprop"]
)
def test_an_optimizer_goes_on_from_a_checkpoint_to_the_bit(name: str, tmp_path: Path) -> None:
    spec = OptimSpec(optimizer=name, lr=0.01)

    def make() -> tuple[nn.Module, torch.optim.Optimizer, Schedule]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        optimizer = make_optimizer(net, spec)
        return net, optimizer, Schedule(optimizer, spec, 1, 10)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule, update: int) -> None:
        schedule.set(update)
        optimizer.zero_grad()
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(update))
        net(x).square().mean().backward()
        optimizer.step()

    net, optimizer, schedule = make()
    for update in range(4):
        step(net, optimizer, schedule, update)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    Checkpoints(tmp_path).save(1, state)
    loaded = Checkpoints(tmp_path).load()
    assert loaded is not None
    net2, optimizer2, schedule2 = make()
    net2.load_state_dict(loaded[1]["net"])
    optimizer2.load_state_dict(loaded[1]["optimizer"])
    schedule2.load_state_dict(loaded[1]["schedule"])
    for update in range(4, 8):
        step(net, optimizer, schedule, update)
        step(net2, optimizer2, schedule2, update)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), net2.parameters(), strict=True))


def test_biases_and_norms_are_not_decayed_and_frozen_weights_are_left_out() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].requires_grad_(False)
    optimizer = make_optimizer(net, OptimSpec(weight_decay=0.3))
    decayed = {g["weight_decay"]: [tuple(p.shape) for p in g["params"]] for g in optimizer.param_groups}
    assert decayed == {0.0: [(4,), (4,), (4,)], 0.3: [(4, 4)]}


@pytest.mark.parametrize(("name", "coefficient"), [("larc", 0.02), ("larc", None), ("lars", 0.02)])
def test_the_trust_coefficient_sets_the_length_of_a_step(name: str, coefficient: float | None) -> None:
    """Published: min(eta |w| / (|g| + wd |w|) / lr, 1) of g + wd w, times lr; LARS does not clip."""
    layer = nn.Linear(6, 5)
    weight = layer.weight.detach().clone()
    bias = layer.bias.detach().clone()
    spec = OptimSpec(optimizer=name, lr=0.45, weight_decay=5e-5, trust_coefficient=coefficient)
    gradient = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) * weight.norm() / 100
    layer.weight.grad, layer.bias.grad = gradient, torch.ones(5)
    make_optimizer(layer, spec).step()
    eta = 1e-3 if coefficient is None else coefficient
    local = eta * weight.norm() / (gradient.norm() + 5e-5 * weight.norm())
    ratio = min(local / 0.45, torch.tensor(1.0)) if name == "larc" else local
    want = weight - 0.45 * ratio * (gradient + 5e-5 * weight)
    torch.testing.assert_close(layer.weight.detach(), want)
    torch.testing.assert_close(layer.bias.detach(), bias - 0.45)  # biases are neither decayed nor scaled


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adamx"}, "optim.optimizer: no such optimizer.*Did you mean 'adam"),
        ({"optimizer": "adahessian"}, "second derivatives"),
        ({"optimizer": "fusedadam"}, "optim.optimizer: cannot be used here"),
        ({"trust_coefficient": 0.02}, "optim.trust_coefficient: optimizer 'adamw' has none.*larc, lars"),
        ({"batch_size": 1024}, "larger than the 800 images.*at most 800"),
        ({"batch_size": 127}, "2 workers x 1 micro-batches.*a multiple of 2"),
        ({"batch_size": 8, "accumulate": 4}, "at least 2 images in each part"),
        ({"min_lr": 0.5}, "optim.min_lr: is above lr"),
        ({"warmup_epochs": 16}, "leave nothing of 16 epochs"),
        ({"schedule": "step"}, r"every N epochs.*\[N\]"),
        ({"schedule": "multistep"}, "needs epochs, rising"),
        ({"schedule": "multistep", "decay_epochs": (9, 3)}, "needs epochs, rising"),
        ({"schedule": "multistep", "decay_epochs": (0, 3)}, "count from 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, Any], message: str) -> None:
    check_optim(OptimSpec(), 16, 800, 2)
    with pytest.raises(UserError, match=message):
        check_optim(OptimSpec(**fields), 16, 800, 2)


@pytest.mark.parametrize(
    ("name", "fused"), [("adamw", True), ("sgd", True), ("momentum", True), ("larc", False), ("lamb", False)]
)
def test_torchs_own_optimizers_can_be_fused(name: str, fused: bool) -> None:
    assert _can_fuse(name) == fused
    if fused:  # the argument reaches torch's class
        kind, momentum = get_optimizer_class(name), {} if name == "adamw" else {"momentum": 0.9}
        made = kind([torch.nn.Parameter(torch.ones(2))], lr=0.1, fused=True, **momentum)
        assert made.defaults["fused"]


def test_a_checkpoint_of_a_gpu_goes_on_with_this_devices_implementation() -> None:
    def made(**options: Any) -> torch.optim.Optimizer:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([parameter], lr=0.1, **options)
        parameter.grad = torch.ones(3)
        optimizer.step()
        return optimizer

    saved, mine = made(fused=True).state_dict(), made()
    load_optimizer(mine, saved)
    (group,) = mine.param_groups
    assert group["fused"] is None and group["lr"] == 0.1
    assert saved["param_groups"][0]["fused"] is True
    mine.step()
