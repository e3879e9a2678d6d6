"""Networks of timm, torchvision and raykd by name, without classifiers, and access to their feature maps."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import timm
from torch import Tensor, nn

from trainables.core import plugins
from trainables.core.errors import UserError, first_line
from trainables.networks import plugin_networks, small_networks, torchvision_models
from trainables.networks.stems import STEM, check_stem, put_small_stem

TORCHVISION = "torchvision/"
RAYKD = "raykd/"
OURS = ("num_classes", "pretrained", "weights", "checkpoint_path", "features_only")
CHANNELS = "in_chans"
_STAGES = 4


def create(arch: str, options: Mapping[str, Any], field: str) -> nn.Module:
    """The network without its classifier, drawn from the global generator. Raises `UserError` at `field`."""
    check_name(arch, field)
    for name in options:
        if name in OURS:
            raise UserError(f"{field}.options.{name}", "is raykd's own to set", value=options[name])
    if CHANNELS in options:
        _check_channels(arch, options[CHANNELS], field)
    own = {name: value for name, value in options.items() if name != STEM}
    stem = options.get(STEM)
    if STEM in options:
        check_stem(stem, arch, field)
    if arch.startswith(RAYKD):
        return small_networks.create(arch.removeprefix(RAYKD), own, field)
    if plugin_networks.place_of(arch) is not None:
        return plugin_networks.create(arch, own, field)
    try:
        if arch.startswith(TORCHVISION):
            model = torchvision_models.create(arch.removeprefix(TORCHVISION), own, field)
        else:
            model = timm.create_model(arch, pretrained=False, num_classes=0, **own)
    except UserError:
        raise
    except Exception as error:
        where = f"{field}.options" if own else f"{field}.arch"
        raise UserError(where, f"{arch} cannot be built: {first_line(error)}", value=own or arch) from None
    if stem is not None:
        put_small_stem(model, stem, arch, field)
    return model


def _check_channels(arch: str, count: object, field: str) -> None:
    """Raise `UserError` for channels that no image has, and for a network whose channels cannot be chosen."""
    where = f"{field}.options.{CHANNELS}"
    if not timm.is_model(arch):
        expected = "timm's model of that family, or no such option: it sees red, green and blue"
        raise UserError(
            where, f"is an option of timm's networks, and {arch} is none", value=count, expected=expected
        )
    if isinstance(count, bool) or count not in (1, 3):
        problem = "no image has so many channels: all are kept as red, green and blue"
        raise UserError(where, problem, value=count, expected="1, for their luminance, or none")


def architectures() -> list[str]:
    """The names of all architectures: timm's, torchvision's, raykd's, those of entry points."""
    return [
        *timm.list_models(),
        *(TORCHVISION + name for name in torchvision_models.names()),
        *(RAYKD + name for name in small_networks.NETWORKS),
        *(entry.name for entry in plugins.entry_points(plugins.MODELS) if not timm.is_model(entry.name)),
    ]


def check_name(arch: str, field: str) -> None:
    """Raise `UserError` with the nearest names where there is no such architecture."""
    if plugin_networks.place_of(arch) is not None:
        plugin_networks.find(arch, field)
        return
    if arch.startswith(TORCHVISION):
        known, prefix = torchvision_models.names(), TORCHVISION
    elif arch.startswith(RAYKD):
        known, prefix = list(small_networks.NETWORKS), RAYKD
    elif timm.is_model(arch):
        return
    else:
        known, prefix = timm.list_models(), ""
    name = arch.removeprefix(prefix)
    if prefix and name in known:
        return
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    raise UserError(
        f"{field}.arch",
        "no such architecture",
        value=arch,
        expected="a timm model name, torchvision/NAME or raykd/NAME (`raykd list students`)"
        + (f"; the nearest: {', '.join(prefix + n for n in near)}" if near else ""),
    )


def raw_features(model: nn.Module, images: Tensor) -> Any:
    """The model's features before pooling, in the model's own layout."""
    timms = getattr(model, "forward_features", None)
    if timms is not None:
        return timms(images)
    layout = torchvision_models.layout(model)
    if layout is None:
        return model(images)  # of a user's network that has no map
    with watched(model, [layout.map]) as seen:
        model(images)
    return seen[layout.map]


@contextlib.contextmanager
def watched_features(model: nn.Module) -> Iterator[list[Any]]:
    """Inside, a forward pass of `model` adds its features before pooling, in its own layout, to the list."""
    seen: list[Any] = []
    timms = getattr(model, "forward_features", None)
    if timms is None:
        layout = torchvision_models.layout(model)
        assert layout is not None, "create() makes no other"
        hook = model.get_submodule(layout.map).register_forward_hook(lambda _, __, out: seen.append(out))
        try:
            yield seen
        finally:
            hook.remove()
        return

    def kept(*given: Any, **options: Any) -> Any:
        seen.append(timms(*given, **options))
        return seen[-1]

    # `forward_features` is a function, not a module that takes a hook. An attribute of the object comes
    # before the class's own, so the model's `forward` calls this one.
    model.__dict__["forward_features"] = kept
    try:
        yield seen
    finally:
        del model.__dict__["forward_features"]


def plain_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks of one of timm's plain vision transformers, shallow to deep; [] for any other."""
    blocks, norm = getattr(model, "blocks", None), getattr(model, "norm", None)
    if not hasattr(model, "num_prefix_tokens") or not isinstance(norm, nn.Module):
        return []
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return []
    return [f"blocks.{number}" for number in range(len(blocks))]


def as_map(model: nn.Module, raw: Any, channels: int | None = None) -> Tensor | None:
    """Features in the model's own layout -> (B, C, h, w); None where they are not a single map.

    `channels` is the number of channels of the map; None: of the map before pooling.
    """
    if not isinstance(raw, Tensor):
        return None
    if raw.ndim == 4:
        channels = channels or getattr(model, "num_features", raw.shape[1])
        last = getattr(model, "output_fmt", "") == "NHWC" or raw.shape[1] != channels == raw.shape[3]
        return raw.permute(0, 3, 1, 2) if last else raw
    if raw.ndim != 3:
        return None
    tokens = raw.shape[1]
    side = int(tokens**0.5)
    prefix = getattr(model, "num_prefix_tokens", tokens - side * side)  # class tokens come first
    side = int((tokens - prefix) ** 0.5)
    if side == 0 or side * side != tokens - prefix:
        return None
    return raw[:, prefix:].transpose(1, 2).reshape(len(raw), raw.shape[2], side, side)


class Stage(NamedTuple):
    """A part of a network whose output is a feature map."""

    module: str  # its name in the network
    channels: int


def find_stages(model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[Stage, ...]]:
    """The features, and at most four stages from shallow to deep; () where the network has no maps.

    In a network that reduces its maps, stages are the last modules at each of the last four resolutions (a
    ResNet's `layer1` to `layer4`). timm lists them; torchvision's are found with a pass of `images`. In other
    networks, such as plain vision transformers, they are four blocks at equal distances up to the last one.
    """
    named = _named_stages(model)
    with watched(model, named) as seen:
        features: Tensor = model(images)
    stages, sides = [], []
    for name, channels in named.items():
        found = as_map(model, seen.get(name), channels or None)
        if found is None or (channels and found.shape[1] != channels):
            if channels:
                return features, ()  # timm's list does not fit its model
            continue
        stages.append(Stage(name, found.shape[1]))
        sides.append(found.shape[2])
    if len(set(sides)) <= 1 < len(sides):
        kept = min(_STAGES, len(stages))
        return features, tuple(stages[len(stages) * (i + 1) // kept - 1] for i in range(kept))
    last = [stage for stage, side, after in zip(stages, sides, [*sides, 0][1:], strict=True) if side != after]
    return features, tuple(last[-_STAGES:])


def _named_stages(model: nn.Module) -> dict[str, int]:
    """Module name -> channels, for modules whose outputs may be stages; 0: the number is not known."""
    layout = torchvision_models.layout(model)
    if layout is not None:
        return dict.fromkeys(torchvision_models.stage_candidates(model, layout), 0)
    told = getattr(model, "feature_info", None) or ()
    modules = {name for name, _ in model.named_modules()}
    named = {one["module"]: one["num_chs"] for one in told}
    return named if modules.issuperset(named) else {}


@contextlib.contextmanager
def watched(model: nn.Module, modules: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Inside, a forward pass of `model` stores the outputs of the named modules in the dict."""
    seen: dict[str, Any] = {}
    hooks = []
    try:
        for name in modules:
            keep = functools.partial(_keep, seen, name)
            hooks.append(model.get_submodule(name).register_forward_hook(keep))
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _keep(seen: dict[str, Any], name: str, _module: nn.Module, _given: Any, output: Any) -> None:
    seen[name] = output
