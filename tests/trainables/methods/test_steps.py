"""What a step of any method must be for a GPU: nothing waits for the device, and all steps are alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_sync import waits
from small_methods import make_batch, make_method, train_steps
from torch import nn

from trainables.methods import load_method, methods
from trainables.methods.parts.momentum_encoder import keys_of
from trainables.methods.parts.queue import Queue

EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    "retro code": ("retro", {"fidelity": "code", "adapter": "mbconv"}),
    "retro tuned": ("retro", {"head": "tuned", "mean_student": False}),
    "rrkd queue": ("rrkd", {"anchors": "queue", "centre": True, "matching": "soft_ce"}),
    "rrkd best": ("rrkd", {"anchors": "best_per_class", "ce_weight": 1.0}),
    "compress 1q": ("compress", {"variant": "1q"}),
}
CASES = {**{name: (name, {}) for name in methods()}, **EXTRA}
each_case = pytest.mark.parametrize("case", list(CASES))


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: int(x.sum()),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_what_waits_is_found(act: Any) -> None:
    x = torch.ones(3)
    with waits() as found:
        act(x)
    assert found


@each_case
def test_nothing_in_a_step_makes_the_host_wait(case: str) -> None:
    name, config = CASES[case]
    method = make_method(name, **config)
    train_steps(method, 1)  # what is made once, in the first step, may wait
    batch = make_batch(method, seed=1)
    parameters = [p for p in method.parameters() if p.requires_grad]
    with waits() as found:
        with torch.autocast("cpu", torch.bfloat16):
            losses = method(batch)
        losses.total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        with torch.no_grad():
            method.after_step(0.5)
    assert found == []


def test_the_order_of_shuffled_keys_is_known_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("trainables.methods.parts.momentum_encoder.world_size", lambda: 2)
    monkeypatch.setattr(
        "trainables.methods.parts.momentum_encoder.shuffled",
        lambda encode, images, seed: seeds.append(seed) or encode(images),
    )
    queue, restored = Queue(4, 2).train(), Queue(4, 2).train()
    norm = nn.BatchNorm1d(2)

    def step(queue: Queue) -> None:
        with waits() as found:
            queue.hold(keys_of(lambda x: x, norm, torch.ones(2, 2), queue, 3))
            queue.advance()
        assert found == []

    for _ in range(3):
        step(queue)
    restored.load_state_dict(queue.state_dict())
    assert restored.count == queue.count == int(queue.seen) == 6  # read once
    step(queue)
    step(restored)
    assert seeds == [3_000_009 + seen for seen in (0, 2, 4, 6, 6)]


@each_case
def test_a_method_says_whether_its_steps_are_alike(case: str) -> None:
    """The same parameters get a gradient in every step."""
    name, config = CASES[case]
    method = make_method(name, **config)
    used = []
    for seed in range(3):
        method.zero_grad(set_to_none=True)
        method(make_batch(method, seed=seed)).total.backward()
        method.after_step(0.1)
        used.append({name for name, parameter in method.named_parameters() if parameter.grad is not None})
    assert (used[0] == used[1] == used[2]) == load_method(name).static_graph
