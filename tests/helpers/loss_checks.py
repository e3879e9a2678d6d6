"""Checks that every loss must pass: where its gradient goes, and that autocast around it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[..., Tensor]


def check_gradient(loss: Loss, reached: Sequence[Tensor], unreached: Sequence[Tensor] = ()) -> list[Tensor]:
    """Check that the gradient of `loss(*reached, *unreached)` goes to `reached` alone and is right.

    It is compared with finite differences in double precision. Returns the gradients of `reached`.
    """
    own = [x.detach().double().requires_grad_() for x in reached]
    others = [x.detach().double().requires_grad_() for x in unreached]
    loss(*own, *others).backward()
    assert all(x.grad is not None and x.grad.any() for x in own)
    assert all(x.grad is None for x in others)
    fixed = [x.detach() for x in others]
    assert torch.autograd.gradcheck(lambda *x: loss(*x, *fixed), own)
    return [x.grad for x in own if x.grad is not None]


def check_half_precision(function: Loss, *inputs: Tensor) -> None:
    """Check that autocast to bfloat16 around `function` changes no bit of its result."""
    plain = function(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function(*inputs), plain)
