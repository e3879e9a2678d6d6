"""A linear classifier on a network that stays as it is, or that is fine-tuned with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.core.errors import UserError
from trainables.methods.base import Batch, Context, Losses
from trainables.methods.parts.classifier import cross_entropy
from trainables.methods.parts.frozen_student import freeze_student
from trainables.methods.supervised import Supervised, SupervisedConfig
from trainables.networks.backbones import Backbone
from trainables.spec.trial import OptimSpec

_WEIGHT_STD = 0.01  # of the classifier's first weights, as in MoCo's and SwAV's code; its biases are 0


class LinearFit(Supervised):
    """The cross-entropy of a linear classifier on a frozen network, which stays in eval mode.

    It is no method to choose: without a `name` of its own it is not registered.
    """

    def __init__(self, network: Backbone, context: Context) -> None:
        super().__init__(SupervisedConfig(), network, None, context)

    def build(self) -> None:
        """Make the classifier, with small weights."""
        super().build()
        nn.init.normal_(self.classifier.weight, std=_WEIGHT_STD)
        nn.init.zeros_(self.classifier.bias)
        self.prepare_student()

    def prepare_student(self) -> None:
        """Freeze the network."""
        freeze_student(self)

    def train(self, mode: bool = True) -> LinearFit:
        """Keep the network in eval mode."""
        super().train(mode)
        self.student.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        """The cross-entropy on the labels."""
        view = (batch.views_for(self.student.inputs) if batch.views_for is not None else batch.views)[0]
        loss = cross_entropy(self.logits(view), batch.labels)
        return Losses(loss, {"cross_entropy": loss})

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) views -> (B, classes)."""
        with torch.no_grad():
            features = self.student(images)
        classified: Tensor = self.classifier(features)
        return classified


class FineTuning(LinearFit):
    """The same with a network that learns, too.

    `head_lr` is the classifier's learning rate as a multiple of the others'. A layer's is `layer_decay` times
    that of the layer above it; the classifier is the topmost layer. `running`: batch normalisation uses its
    running statistics, which do not change.
    """

    def __init__(
        self,
        network: Backbone,
        context: Context,
        head_lr: float = 1.0,
        layer_decay: float = 1.0,
        running: bool = False,
    ) -> None:
        self.__dict__.update(head_lr=head_lr, layer_decay=layer_decay, running=running)
        super().__init__(network, context)

    def prepare_student(self) -> None:
        """Give every parameter of the network a gradient: a teacher's had none."""
        self.student.requires_grad_(True)

    def train(self, mode: bool = True) -> FineTuning:
        """Set the mode; with `running` batch normalisation stays in eval mode."""
        nn.Module.train(self, mode)
        for module in self.student.modules() if self.__dict__["running"] else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) views -> (B, classes)."""
        classified: Tensor = self.classifier(self.student(images))
        return classified

    def parameter_groups(self, optim: OptimSpec) -> list[dict[str, Any]]:
        """The classifier's weights and biases, then the network's parameters by layer."""
        spared = 0.0 if not optim.decay_norms else optim.weight_decay
        head = {"lr_scale": self.__dict__["head_lr"]}
        return [
            {**head, "weight_decay": optim.weight_decay, "params": [self.classifier.weight]},
            {**head, "weight_decay": spared, "params": [self.classifier.bias]},
            *layer_groups(self.student.model, optim, self.__dict__["layer_decay"]),
        ]


def layer_groups(model: nn.Module, optim: OptimSpec, layer_decay: float) -> list[dict[str, Any]]:
    """Groups of a network without its classifier, whose learning rates decay from layer to layer.

    `lr_scale` is that of `timm.optim.param_groups_layer_decay` for the network with its classifier, whose own
    is 1: `layer_decay` for the layer below it, then its square, and so on. With 1 there are two
    groups, with and without weight decay. Raises `UserError` for a network whose layers timm does not know.
    """
    kept = () if optim.decay_norms else tuple(getattr(model, "no_weight_decay", tuple)())
    groups: list[dict[str, Any]]
    if layer_decay == 1:
        if optim.decay_norms:
            groups = [{"params": list(model.parameters()), "weight_decay": optim.weight_decay}]
        else:
            groups = param_groups_weight_decay(model, optim.weight_decay, no_weight_decay_list=kept)
        return [group for group in groups if group["params"]]
    if not has_layers(model):
        problem = "needs an order of layers, and timm knows none of this network"
        raise UserError("layer_decay", problem, value=layer_decay, expected="[1], or a network of timm")
    groups = param_groups_layer_decay(
        model,
        optim.weight_decay,
        no_weight_decay_list=kept,
        weight_decay_exclude_1d=not optim.decay_norms,
        layer_decay=layer_decay,
    )
    factor = layer_decay ** _layers_below_the_classifier(model)
    return [{**group, "lr_scale": factor * group["lr_scale"]} for group in groups]


def _layers_below_the_classifier(model: Any) -> int:
    """1 where the classifier is a layer of its own; 0 where a norm before it belongs to the same layer."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "classifier"
    classifier = f"{named if isinstance(named, str) else named[0]}.weight"
    names = [*model.named_parameters(), (classifier, None)]
    whole: Any = SimpleNamespace(named_parameters=lambda: names)  # all that timm asks a module for
    layers: dict[str, int] = dict(group_parameters(whole, model.group_matcher(coarse=False), reverse=True))
    return layers.pop(classifier) - max(layers.values())


def has_layers(model: nn.Module) -> bool:
    """Whether timm knows the order of a network's layers."""
    return hasattr(model, "group_matcher")
