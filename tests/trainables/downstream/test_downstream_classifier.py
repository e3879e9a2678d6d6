"""The classifiers of tasks: what they train, and at which learning rate."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from trainables.core.errors import UserError
from trainables.downstream.classifier import FineTuning, LinearFit, layer_groups
from trainables.methods.base import Batch, Context
from trainables.networks.backbones import build_backbone
from trainables.spec.inputs import Inputs
from trainables.spec.trial import ModelSpec, OptimSpec
from trainables.training.optimizer import Schedule, make_optimizer

CONTEXT = Context(100, 8, 5, 32, seed=0)
OPTIM = OptimSpec(optimizer="momentum", lr=0.1, weight_decay=0.01)


def rates(method: nn.Module, optim: OptimSpec = OPTIM) -> dict[str, tuple[float, float]]:
    """Name -> learning rate at the first update, and weight decay."""
    optimizer = make_optimizer(method, optim)
    Schedule(optimizer, optim, 2, 3).set(0)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(found) == sum(parameter.requires_grad for parameter in method.parameters())
    return found


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_learning_rates_decay_from_layer_to_layer_as_in_timm(arch: str) -> None:
    backbone = build_backbone(ModelSpec(arch=arch, options={"img_size": 32} if "vit" in arch else {}), 0)
    found = rates(FineTuning(backbone, CONTEXT, head_lr=20, layer_decay=0.5))
    options = {"img_size": 32} if "vit" in arch else {}
    whole = timm.create_model(arch, num_classes=5, **options)
    names = {id(parameter): name for name, parameter in whole.named_parameters()}
    kept = getattr(whole, "no_weight_decay", set)()
    for group in param_groups_layer_decay(whole, 0.01, no_weight_decay_list=kept, layer_decay=0.5):
        for parameter in group["params"]:
            name = f"student.model.{names[id(parameter)]}"
            if name in found:  # all but the classifier
                assert found[name] == (pytest.approx(0.1 * group["lr_scale"]), group["weight_decay"]), name
    assert found["classifier.weight"] == (pytest.approx(2.0), 0.01)
    assert found["classifier.bias"] == (pytest.approx(2.0), 0.0)
    assert len({rate for rate, _ in found.values()}) > 3


def test_without_decay_all_layers_learn_alike() -> None:
    found = rates(FineTuning(build_backbone(ModelSpec(arch="test_resnet"), 0), CONTEXT))
    assert {rate for rate, _ in found.values()} == {0.1} and {decay for _, decay in found.values()} == {
        0.0,
        0.01,
    }
    every = OPTIM.model_copy(update={"decay_norms": True})
    found = rates(FineTuning(build_backbone(ModelSpec(arch="test_resnet"), 0), CONTEXT), every)
    assert {decay for _, decay in found.values()} == {0.01}


def test_a_frozen_network_learns_nothing_and_is_not_saved() -> None:
    backbone = build_backbone(ModelSpec(arch="test_resnet"), 0)
    fit = LinearFit(backbone, CONTEXT).train()
    assert sorted(rates(fit), reverse=True) == ["classifier.weight", "classifier.bias"]
    assert not any(module.training for module in backbone.modules()) and fit.training
    assert set(fit.state_dict()) == {"classifier.weight", "classifier.bias"}
    state = {name: value + 1 for name, value in fit.state_dict().items()}
    fit.load_state_dict(state)
    assert torch.equal(fit.classifier.bias, state["classifier.bias"])


def test_a_teacher_is_fine_tuned_and_sees_images_of_its_size() -> None:
    backbone = build_backbone(ModelSpec(arch="test_resnet"), 0).requires_grad_(False)
    backbone.feed(Inputs(image_size=48))
    sizes: list[int] = []

    def shown(inputs: Inputs) -> list[torch.Tensor]:
        sizes.append(inputs.image_size or 0)
        return [torch.randn(4, 3, 48, 48)]

    tuning = FineTuning(backbone, CONTEXT)
    losses = tuning(Batch([torch.randn(4, 3, 32, 32)], torch.arange(4), torch.arange(4), None, shown))
    losses.total.backward()
    assert sizes == [48] and all(p.grad is not None for p in backbone.parameters())


def test_layers_that_nobody_knows_are_refused() -> None:
    backbone = build_backbone(ModelSpec(arch="raykd/resnet9"), 0)
    with pytest.raises(UserError, match="layer_decay: needs an order of layers"):
        layer_groups(backbone.model, OPTIM, 0.7)
    assert rates(FineTuning(backbone, CONTEXT))
