"""SACL: which view takes which way, both forms of cross-distillation, and what is left at the end."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_methods import STUDENT, make_batch, make_method, train_steps
from tiny_trials import run, tiny, workspace
from torch import Tensor

from trainables.core.errors import UserError
from trainables.methods.base import Method
from trainables.methods.parts.barlow import barlow_loss
from trainables.networks.backbones import build_backbone
from trainables.planning.check import TrialChecker
from trainables.planning.compute import step_flops
from trainables.training.resolve import resolve


def head_on_slice(method: Method, features: Tensor) -> Tensor:
    """The head's first layer by the columns of the slim features alone."""
    first, *others = method.head
    z = features @ first.weight[:, : features.shape[1]].T + first.bias
    for layer in others:
        z = layer(z)
    return z


@pytest.mark.parametrize("form", ["off", "alpha", "lambda"])
def test_a_step_is_the_formula(form: str) -> None:
    method = make_method("sacl", xd_form=form, alpha=0.7, xd_weight=0.4, loss_scale=0.2, host_width=1.5)
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    losses, again = method(batch), copy.deepcopy(method)
    a, b = batch.views
    z_a, z_b = again.head(again.host(again.student, a)), head_on_slice(again, again.student(b))
    hat_a, hat_b = head_on_slice(again, again.student(a)), again.head(again.host(again.student, b))
    plain = barlow_loss(z_a, z_b, method.config)
    cross = (barlow_loss(z_a, hat_a, method.config) + barlow_loss(z_b, hat_b, method.config)) / 2
    total = {"off": plain, "alpha": 0.7 * plain + 0.3 * cross, "lambda": plain + 0.4 * cross}[form]
    torch.testing.assert_close(losses.total, total, rtol=1e-4, atol=1e-4)


def test_no_gradient_through_the_exchanged_encoders() -> None:
    """By finite differences: only what the online embeddings change counts."""
    method = make_method("sacl", xd_form="lambda", xd_weight=1.0)
    batch = make_batch(method)
    method(batch).total.backward()
    a, b = batch.views
    grads = {key: p.grad.clone() for key, p in method.named_parameters()}
    method.zero_grad()
    with torch.no_grad():
        hats = head_on_slice(method, method.student(a)), method.head(method.host(method.student, b))
    z_a, z_b = method.head(method.host(method.student, a)), head_on_slice(method, method.student(b))
    cross = sum(barlow_loss(z, hat, method.config) for z, hat in zip((z_a, z_b), hats, strict=True)) / 2
    (barlow_loss(z_a, z_b, method.config) + cross).backward()
    for key, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[key], rtol=1e-2, atol=1e-3, msg=key)


@pytest.mark.parametrize(
    ("form", "dense"), [("off", "barlow"), ("alpha", "xd"), ("lambda", "xd")], ids=lambda value: str(value)
)
def test_a_host_as_wide_as_the_student_is_the_dense_method(form: str, dense: str) -> None:
    settings = {} if form == "off" else {"xd_form": form}
    slim, plain = make_method("sacl", host_width=1.0, xd_form=form), make_method(dense, **settings)
    assert train_steps(slim, 3) == train_steps(plain, 3)
    for key, parameter in plain.named_parameters():
        assert torch.equal(slim.get_parameter(key), parameter)
    assert slim.host is None


def test_what_is_probed_is_a_plain_student() -> None:
    method = make_method("sacl").train()
    train_steps(method, 2)
    plain = build_backbone(STUDENT, 7)
    plain.model.load_state_dict(method.student.model.state_dict())
    images = make_batch(method).views[0]
    assert torch.equal(plain.eval()(images), method.eval().features(images, "backbone"))


def test_the_saved_student_is_one_without_a_host(tmp_path: Path) -> None:
    trial = tiny("sacl", epochs=1, config={"hidden": 32, "head_dim": 16})
    place = workspace(tmp_path)
    run(trial, place)
    build_backbone(trial.student).model.load_state_dict(load_file(place.folder / "best.safetensors"))
    # Twice the width is four times the arithmetic of most layers; both passes of each view are counted.
    costs = [
        step_flops(tiny(name, config={"hidden": 32, "head_dim": 16, **more}))
        for name, more in (("barlow", {}), ("sacl", {"xd_form": "off"}), ("sacl", {"xd_form": "alpha"}))
    ]
    assert 1.5 * costs[0] < costs[1] < 2.5 * costs[0]
    # Both ways again, forwards only: a third of what was there, but for the stem's missing gradient.
    assert costs[2] / costs[1] == pytest.approx(4 / 3, rel=0.05)


@pytest.mark.parametrize(
    ("student", "config", "message"),
    [
        ({"arch": "test_convnext"}, {}, r"student\.arch: cannot be the slice of a wider network"),
        ({"arch": "test_resnet"}, {"host_width": 1.01}, r"config\.host_width: leaves no whole channels"),
        ({"arch": "test_resnet"}, {"host_width": 0.5}, r"config\.host_width"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    student: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    raw = {"method": "sacl", "student": student, "epochs": 1, "data": {"image_size": 32}, "config": config}
    with pytest.raises(UserError, match=message):
        TrialChecker().check(resolve(raw))
