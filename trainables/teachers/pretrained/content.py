"""Finding the weights in a loaded file: their container, their parts and the file's other content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.core.errors import UserError
from trainables.teachers.pretrained.layouts.base import CONTAINERS, PAIR
from trainables.teachers.pretrained.records import NumpyArray
from trainables.teachers.pretrained.roles import unwrapped

_DEPTH = 5  # levels of nested containers that are searched
# Tensors may be views that repeat few stored numbers. They may have at most _CLAIM times the stored bytes, or
# at most _SMALL bytes.
_CLAIM, _SMALL = 4, 64 << 20

_AVERAGED = re.compile(r"(^|_)(ema|swa|averaged?|avg|shadow)(_|$)|(^|_)ema", re.IGNORECASE)
# Names of content that is not a network: states of optimizers, loops and losses, settings.
_ASIDE = re.compile(
    r"optim|solver|sched|scaler|^amp$|loops?$|callbacks|loss|criterion|hyper_?param|^(args|opt|cfg|config|hparams)$"
    r"|rng|random|metric|meters?$|history|sampler|loader|center$|norm_?stats|mean_?std",
    re.IGNORECASE,
)
# Parts of one network, or networks of one training, that scripts save side by side.
_PARTS = frozenset((
    "backbone", "encoder", "target_encoder", "context_encoder", "momentum_encoder", "encoder_q",
    "encoder_k", "base_encoder", "trunk", "visual", "feature_extractor", "features", "projector",
    "projection", "projection_head", "head", "heads", "classifier", "fc", "linear", "predictor",
    "prototypes", "decoder", "neck", "queue", "student", "teacher", "online", "target",
    "online_network", "target_network", "online_encoder", "model_s", "model_t",
))  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The weights in a file."""

    container: str | None  # path of names to the weights, joined by dots; None if the file is flat
    tensors: Mapping[str, Tensor]  # by the names in the file; `PART.NAME` for parts side by side
    beside: frozenset[str]  # all names at the file's top level


class _Set(NamedTuple):
    """One state dict in the file."""

    path: tuple[str, ...]
    tensors: dict[str, Tensor]


def find_weights(content: Mapping[Any, Any], path: Path, field: str) -> Found:
    """The weights in `content`. Averaged weights come first, as in timm, then those under the usual names.

    Parts of one network that lie side by side become one set; their keys get the part's name as prefix.
    Raises `UserError` at `field` if there are no weights, or several sets with equal claim.
    """
    beside = frozenset(name for name in content if isinstance(name, str))
    sets = _merged(list(_sets(content, ())))
    if not sets:
        raise _unusable(path, field, _nothing(content), _EXPECTED)
    best = min(_rank(one.path) for one in sets)
    found = [one for one in sets if _rank(one.path) == best]
    if len(found) > 1:
        largest = max(found, key=_size)
        # The largest is the network if all others are small; sets of similar size are several networks.
        if any(one is not largest and 4 * _size(one) > _size(largest) for one in found):
            listed = ", ".join(f"`{'.'.join(one.path)}` ({len(one.tensors)} tensors)" for one in found)
            problem = f"holds several sets of weights, and nothing says which is the teacher: {listed}"
            raise _unusable(
                path, field, problem, "a file with one of them: `torch.save(content[NAME], 'weights.pth')`"
            )
        found = [largest]
    chosen = found[0]
    if any(name.endswith("flat_param") for name in chosen.tensors):
        problem = "holds weights that FSDP has flattened, and no names of layers"
        raise _unusable(path, field, problem, "a full state dict (`StateDictType.FULL_STATE_DICT`)")
    _check_claims(chosen.tensors, path, field)
    return Found(".".join(chosen.path) or None, chosen.tensors, beside)


def _unusable(path: Path, field: str, problem: str, expected: str) -> UserError:
    return UserError(field, problem, value=str(path), expected=expected)


def tensors_in(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Name -> tensor for the tensors directly in `content`; numpy's arrays of numbers become tensors."""
    found = {}
    for key, value in content.items():
        if isinstance(value, NumpyArray) and value.value is not None and value.value.dtype.kind in "biuf":
            value = torch.from_numpy(value.value.astype(value.value.dtype.newbyteorder("=")))
        if isinstance(key, str) and isinstance(value, Tensor):
            found[key] = value
    return found


def _sets(content: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[_Set]:
    own = tensors_in(content)
    alone = not any(isinstance(value, Mapping) and value for value in content.values())
    # A single tensor beside containers (a queue, a centre) is not a network.
    if own and (path or any("." in name for name in own) or alone):
        yield _Set(path, own)
    if len(path) < _DEPTH:
        for name, value in content.items():
            if isinstance(name, str) and isinstance(value, Mapping) and not _ASIDE.search(name):
                yield from _sets(value, (*path, name))


def _merged(sets: list[_Set]) -> list[_Set]:
    """`sets`, with parts that lie side by side merged into one set."""
    parents: dict[tuple[str, ...], list[_Set]] = {}
    for one in sets:
        at = next((n for n, name in enumerate(one.path) if name in _PARTS), None)
        if at is not None and not any(_AVERAGED.search(name) for name in one.path[at:]):
            parents.setdefault(one.path[:at], []).append(one)
    merged = list(sets)
    for parent, parts in parents.items():
        names = list(dict.fromkeys(one.path[len(parent)] for one in parts))
        if len(names) < 2 and names[0] not in PAIR:
            continue  # a single part is like a container such as `model`
        merged = [one for one in merged if all(one is not part for part in parts)]
        together: dict[str, Tensor] = {}
        for part in parts:
            # Unwrap each part by itself: DINO wraps only its teacher, and only with batch normalisation.
            for key, tensor in unwrapped(part.tensors).items():
                together[f"{part.path[len(parent)]}.{key}"] = tensor
        shown = next((name for name in PAIR if name in names), ", ".join(names))
        merged.append(_Set((*parent, shown), together))
    return merged


def _rank(path: tuple[str, ...]) -> tuple[int, int]:
    """The preference of a set, by its path; the smallest is preferred."""
    if any(_AVERAGED.search(name) for name in path):
        return 0, 0
    places = [CONTAINERS.index(name) for name in path if name in CONTAINERS]
    if places:
        return 1, min(places)
    if not path:
        return 3, 0
    return (2, 0) if any(part in _PARTS for name in path for part in name.split(", ")) else (4, 0)


def _size(one: _Set) -> int:
    return sum(tensor.numel() for tensor in one.tensors.values())


def _check_claims(named: Mapping[str, Tensor], path: Path, field: str) -> None:
    """Refuse tensors that are far larger than their storage, such as views that repeat few numbers."""
    tensors = [t for t in named.values() if t.layout is torch.strided and t.device.type == "cpu"]
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    storages = {one.data_ptr(): one.nbytes() for one in (tensor.untyped_storage() for tensor in tensors)}
    held = sum(storages.values())
    if claimed > max(_SMALL, _CLAIM * held):
        problem = f"cannot be read: its tensors claim {claimed / 1e6:.0f} MB and hold {held / 1e6:.1f} MB"
        raise _unusable(path, field, problem, "weights that are all in the file")


_EXPECTED = f"a state dict, or one under a name such as {', '.join((*CONTAINERS[:6], *PAIR))}"


def _nothing(content: Mapping[Any, Any]) -> str:
    """An error text that lists the content of a file without named weights."""
    unnamed = [
        f"`{name}` is a list of {len(value)} tensors"
        for name, value in content.items()
        if isinstance(value, list | tuple) and value and all(isinstance(one, Tensor) for one in value)
    ]
    if unnamed:
        return f"holds its weights without their names: {'; '.join(unnamed)}"
    held = [f"{name} ({_kind(value)})" for name, value in content.items()][:8]
    more = ", ..." if len(content) > len(held) else ""
    return f"holds no weights; it holds {', '.join(held) + more if held else 'nothing'}"


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
