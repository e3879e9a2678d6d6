"""Loading a checkpoint's weights into networks: backbone, projection head, classifier.

A backbone is loaded only if every weight of the file has a place in the architecture and the reverse, and if
both compute the same function. Shapes do not determine the number of attention heads or the padding of the
stem, so these are checked separately. Any mismatch is an error; nothing is loaded in part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, classifier_prefixes
from trainables.networks.heads import build_head
from trainables.networks.stems import STEM
from trainables.networks.timm_names import timms_names
from trainables.teachers.architecture import guess_arch
from trainables.teachers.pretrained.layouts import LAYOUTS
from trainables.teachers.pretrained.layouts.base import BACKBONE, CLASSIFIER
from trainables.teachers.pretrained.read import ReadCheckpoint
from trainables.teachers.pretrained.roles import attention_heads
from trainables.teachers.twins import are_twins

# Layers of a projection head. They must not be dropped as a classifier's.
_PROJECTION = re.compile(r"(fc|head)\.\d+\.")


@dataclass(frozen=True)
class _Fit:
    """Differences between a file's backbone and an architecture's, as names of weights."""

    needed: Sequence[str]
    missing: Sequence[str]
    other: Sequence[str]  # with another shape
    strange: Sequence[str]  # not part of the architecture
    dropped: Sequence[str]  # part of a classifier

    @property
    def wrong(self) -> int:
        """The number of weights that do not fit."""
        return len(self.missing) + len(self.other) + len(self.strange)


def fill_backbone(backbone: Backbone, read: ReadCheckpoint) -> None:
    """Load all weights of the file's backbone. `UserError` if any does not fit; then nothing is loaded."""
    given, fit = _best_naming(backbone, read)
    if fit.wrong:
        raise _misfit(backbone, read, given, fit)
    _check_name(backbone, read)
    _check_attention(backbone, read, given)
    _check_stem(backbone, read)
    _check_finite(backbone, read, given)
    with torch.no_grad():
        for name, value in backbone.model.state_dict().items():
            if name in given:
                value.copy_(given[name])


def _check_finite(backbone: Backbone, read: ReadCheckpoint, given: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite: the training diverged, or saving in half precision overflowed."""
    bad = [name for name, weights in given.items() if not bool(torch.isfinite(weights).all())]
    if bad:
        problem = (
            f"{len(bad)} of its {len(given)} weights hold numbers that are not finite, the first {bad[0]}"
        )
        path, expected = str(read.facts.path), "a network whose training did not diverge"
        raise UserError(f"{backbone.field}.checkpoint", problem, value=path, expected=expected)


def load_head(backbone: Backbone, read: ReadCheckpoint) -> nn.Module | None:
    """The projection head in the file; None if there is none. `UserError` if it does not fit the backbone."""
    if not read.facts.head:
        return None
    try:
        head = build_head(read.facts.head)
        head.load_state_dict(_with_counters(head, read.head))
        head.eval()(torch.zeros(2, backbone.feature_dim))
    except (RuntimeError, KeyError, TypeError) as error:  # KeyError, TypeError: layers of a newer raykd
        problem = f"its head does not fit {backbone.arch}, with features of {backbone.feature_dim}: "
        problem += str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{backbone.field}.checkpoint", problem, value=str(read.facts.path)) from None
    return head


def load_classifier(backbone: Backbone, read: ReadCheckpoint) -> nn.Linear | None:
    """The file's classifier if it is one linear layer on the backbone's features; else None.

    None also for a classifier with further layers, such as LeViT's batch normalisation: the linear layer
    alone would give other logits.
    """
    named = read.classifier
    if not named or _best_naming(backbone, read)[1].dropped:
        return None
    classes, width = named["weight"].shape
    if width != backbone.feature_dim:
        return None
    classifier = nn.Linear(width, classes, bias="bias" in named)
    classifier.load_state_dict(dict(named))
    return classifier


def _best_naming(backbone: Backbone, read: ReadCheckpoint) -> tuple[Mapping[str, Tensor], _Fit]:
    """The file's backbone under the naming that fits best, and its differences. timm's is tried last."""
    named = (_in_channels(backbone, given) for given in read.backbones)
    fits = [(given, _fit(backbone, read, given)) for given in named]
    best = min(fits, key=lambda found: found[1].wrong)
    for weights in (*read.backbones, read.weights) if best[1].wrong else ():
        # A network that sees images of a size of its own may have another grid than the file's.
        resample = backbone.inputs.image_size is not None or backbone.field == "student"
        renamed = timms_names(backbone.model, _in_channels(backbone, weights), resample=resample)
        if renamed is not None and not (fit := _fit(backbone, read, renamed, classifies=True)).wrong:
            return renamed, fit
    return best


def _in_channels(backbone: Backbone, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights for a network of grey images: of the first layer's, the sum over red, green and blue.

    As timm's `adapt_input_conv`: on three equal channels the network computed this.
    """
    if backbone.in_chans != 1:
        return given
    config = getattr(backbone.model, "pretrained_cfg", None) or {}
    first = config.get("first_conv") or ()
    layers = [f"{name}.weight" for name in ([first] if isinstance(first, str) else first)]
    coloured = [
        name for name in layers if name in given and given[name].ndim > 1 and given[name].shape[1] == 3
    ]
    return {**given, **{name: given[name].float().sum(1, keepdim=True) for name in coloured}}


def _fit(
    backbone: Backbone, read: ReadCheckpoint, given: Mapping[str, Tensor], classifies: bool = False
) -> _Fit:
    own = backbone.model.state_dict()
    # Old files lack the batch counters, and no result depends on them.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    # Classifier weights are dropped only if no prefix separates them from the backbone's.
    flat = not read.layout.roles[BACKBONE]
    drops = classifies or (flat and (CLASSIFIER in read.facts.roles or read.layout is LAYOUTS[-1]))
    prefixes = _classifiers(backbone, own) if drops else ()
    surplus = [name for name in given if name not in own]
    dropped = [n for n in surplus if n.startswith(prefixes or ("\0",)) and not _PROJECTION.match(n)]
    return _Fit(
        needed=needed,
        missing=[name for name in needed if name not in given],
        other=[name for name in needed if name in given and given[name].shape != own[name].shape],
        strange=[name for name in surplus if name not in dropped],
        dropped=dropped,
    )


def _classifiers(backbone: Backbone, own: Collection[str]) -> tuple[str, ...]:
    """Prefixes of the classifier's weights, and their parent modules if the backbone has no weights there."""
    prefixes = classifier_prefixes(backbone)
    parents = {prefix.partition(".")[0] + "." for prefix in prefixes}
    return (*prefixes, *(p for p in parents if not any(name.startswith(p) for name in own)))


def _misfit(backbone: Backbone, read: ReadCheckpoint, given: Mapping[str, Tensor], fit: _Fit) -> UserError:
    facts = read.facts
    claim = f"; the file says it is {facts.arch}" if facts.arch and facts.arch != backbone.arch else ""
    fitting = len(fit.needed) - len(fit.missing) - len(fit.other)
    parts = [f"only {fitting} of {len(fit.needed)} weights of {backbone.arch} are in the file"]
    if not fit.missing and not fit.other:
        parts = [f"the file holds more than {backbone.arch}"]
    if fit.missing:
        parts.append(f"first missing: {fit.missing[0]}")
    if fit.other:
        first = fit.other[0]
        needed = backbone.model.state_dict()[first].shape
        shapes = f"{tuple(given[first].shape)} in the file, {tuple(needed)} needed"
        parts.append(f"first of another shape: {first}, {shapes}")
    if fit.strange:
        parts.append(f"{len(fit.strange)} it has no place for, first {fit.strange[0]}")
    remark = f"; {facts.remark}" if facts.remark else ""
    guess = guess_arch(read)
    expected = "the architecture and options that the file was made with"
    if guess is not None:
        expected += f": by names and shapes it is {guess.arch}"
        expected += f" with options {guess.options}" if guess.options else ""
    if fit.other and given[fit.other[0]].shape[1:2] == (1,) and backbone.in_chans == 3:
        expected += "; for a network of grey images, `options: {in_chans: 1}`"
    if list(fit.other) == ["pos_embed"] and not fit.missing:
        expected += f"; for images of another size, `{backbone.field}: {{image_size: N}}`"
    return UserError(
        f"{backbone.field}.arch",
        "; ".join(parts)
        + f" ({facts.path}, origin {facts.origin}, roles {facts.roles_text()}{claim}{remark})",
        value=backbone.arch,
        expected=expected,
    )


def _check_name(backbone: Backbone, read: ReadCheckpoint) -> None:
    """Refuse an architecture if the file names another one with the same names and shapes of weights."""
    named = read.facts.arch
    if named is None or not are_twins(backbone.arch, named):
        return
    raise UserError(
        f"{backbone.field}.arch",
        f"the file says it is {named}, which has weights of the same names and shapes and computes otherwise "
        f"({read.facts.path})",
        value=backbone.arch,
        expected=f"`arch: {named}`; if the file is wrong there, its weights saved alone: "
        "`torch.save(state_dict, 'weights.pth')`",
    )


def _check_attention(backbone: Backbone, read: ReadCheckpoint, given: Mapping[str, Tensor]) -> None:
    """Refuse a transformer whose number of attention heads differs from that in this origin's code."""
    heads = attention_heads(read.layout, given)
    blocks = getattr(backbone.model, "blocks", None)
    if heads is None or blocks is None:
        return
    own = blocks[0].attn.num_heads
    if own != heads:
        raise UserError(
            f"{backbone.field}.options.num_heads",
            f"{read.facts.origin}'s transformer of this width has {heads} attention heads, which no shape "
            f"tells, and {backbone.arch} has {own}",
            value=own,
            expected=f"`options: {{num_heads: {heads}}}`",
        )


def _check_stem(backbone: Backbone, read: ReadCheckpoint) -> None:
    """Refuse a stem with another padding or stride than in the file's network. Shapes do not show them."""
    mine, theirs = (options.get(STEM) for options in (backbone.options, read.facts.options))
    if read.facts.origin.startswith("raykd") and mine != theirs:
        raise UserError(
            f"{backbone.field}.options.{STEM}",
            f"the file's network has {f'`{STEM}: {theirs}`' if theirs else 'no such stem'}, which shapes do "
            "not always tell",
            value=mine,
            expected=f"`options: {{{STEM}: {theirs}}}`" if theirs else f"no `{STEM}`",
        )
    stem = getattr(backbone.model, "conv1", None)
    padding = read.layout.small_stem_padding
    if padding is None or not isinstance(stem, nn.Conv2d) or stem.kernel_size != (3, 3):
        return
    if stem.padding != (padding, padding):
        raise UserError(
            f"{backbone.field}.options.{STEM}",
            f"{read.facts.origin}'s 3x3 stem pads images by {padding}, which no shape tells, and this one by "
            f"{stem.padding[0]}",
            value=backbone.options.get(STEM),
            expected=f"`options: {{{STEM}: small_padding{padding}}}`",
        )


def _with_counters(head: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` with the batch counters that old files lack."""
    counters = {k: v for k, v in head.state_dict().items() if k.endswith("num_batches_tracked")}
    return {**counters, **weights}
