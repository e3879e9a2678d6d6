"""Weights by name: timm's and torchvision's own, and those of a repository of the Hugging Face hub.

    found = named_weights("vit_small_patch14_dinov2.lvd142m", {}, "teacher")
    found.checkpoint                # the file in the hub's cache, below the hash of its commit
    named_weights("hf-hub:timm/vit_small_patch14_dinov2.lvd142m", {}, "teacher").arch

A file in the local cache is taken as it is, without a network. Otherwise it is downloaded to the cache. A
trial knows a network by the hash of its file, so weights that change under a name make other trials.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlparse

import timm
import torch

from trainables.core.checksums import save_with_checksum
from trainables.core.errors import UserError, first_line
from trainables.networks.backbones import Backbone, build_backbone
from trainables.networks.zoo import RAYKD, TORCHVISION, check_name
from trainables.spec.network_spec import ModelSpec, WeightsSpec

W = TypeVar("W", bound=WeightsSpec)
HUB = ("hf-hub:", "hf_hub:")  # timm's words before OWNER/REPOSITORY, or OWNER/REPOSITORY@REVISION
_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them
_CONFIG = "config.json"


class NamedWeights(NamedTuple):
    """Weights that were found under a name, and the network that they are for."""

    arch: str  # timm's, with the tag of the weights, or torchvision/NAME
    options: dict[str, Any]  # of its constructor: those of the repository, then the user's
    checkpoint: Path


def named_weights(arch: str, options: Mapping[str, Any], field: str) -> NamedWeights:
    """The weights that `arch` names, from the local cache or the network.

    `arch` is a timm model (with or without the tag of its weights), torchvision/NAME or
    hf-hub:OWNER/REPOSITORY. Raises `UserError` at `field` for a name without weights, and for weights that
    are neither in the cache nor to be had.
    """
    stand_ins = _stand_ins.get()
    if stand_ins is not None and arch in stand_ins:
        return NamedWeights(arch, dict(options), stand_ins[arch])
    try:
        found = _found(arch, field)
    except UserError as error:
        if stand_ins is None or error.field != f"{field}.pretrained":
            raise
        stand_ins.add(arch, ModelSpec(arch=arch, options=dict(options)), error)
        return NamedWeights(arch, dict(options), stand_ins[arch])
    return found._replace(options={**found.options, **options})


class StandIns(dict[str, Path]):
    """Files of random weights for names whose weights cannot be had: name -> file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.why: list[UserError] = []  # of each name

    def add(self, arch: str, model: ModelSpec, why: UserError) -> None:
        """Write a file of random weights for this name."""
        file = self.folder / f"{len(self)}.safetensors"
        write_backbone(build_backbone(model, 0), file)
        self[arch] = file
        self.why.append(why)


@contextlib.contextmanager
def stand_ins(folder: Path) -> Iterator[StandIns]:
    """Inside, weights by name that cannot be had are random ones, in files in `folder`: for plans."""
    made = StandIns(folder)
    before = _stand_ins.set(made)
    try:
        yield made
    finally:
        _stand_ins.reset(before)


_stand_ins: ContextVar[StandIns | None] = ContextVar("stand_ins", default=None)


def write_backbone(backbone: Backbone, file: Path) -> None:
    """Write a network as raykd writes students."""
    weights = {name: tensor.contiguous() for name, tensor in backbone.model.state_dict().items()}
    save_with_checksum(weights, file, {"raykd": "student", **backbone.written})


def is_name(text: str) -> bool:
    """Whether this may be a name for `named_weights`, and not a path."""
    return text.startswith((*HUB, TORCHVISION)) or timm.is_model(text)


def with_file(spec: W, field: str) -> W:
    """`spec` with the file, architecture and options that its name stands for, if it is `pretrained`."""
    if not spec.pretrained:
        return spec
    found = named_weights(spec.arch, spec.options, field)
    return spec.model_copy(update={**found._asdict(), "pretrained": False})


@functools.lru_cache(maxsize=64)  # each trial of a sweep asks
def _found(arch: str, field: str) -> NamedWeights:
    if arch.startswith(HUB):
        return _of_repository(arch, field)
    if arch.startswith(TORCHVISION):
        return _of_torchvision(arch, field)
    if arch.startswith(RAYKD):
        expected = "`checkpoint: FILE`, or a training by raykd (`train`)"
        raise UserError(f"{field}.pretrained", "nobody publishes weights of", value=arch, expected=expected)
    check_name(arch, field)
    name = arch.partition(".")[0]
    config = timm.get_pretrained_cfg(arch) if timm.is_model_pretrained(arch) else None
    if config is None or not (config.hf_hub_id or config.url):
        choices = timm.list_pretrained(f"{name}.*")
        problem = "timm has no weights of this name"
        other = None if choices else "another architecture, or `checkpoint: FILE`"
        raise UserError(f"{field}.arch", problem, value=arch, expected=other, choices=choices)
    tagged = f"{name}.{config.tag}" if config.tag else name
    if config.hf_hub_id:
        files: Sequence[str] = (config.hf_hub_filename,) if config.hf_hub_filename else _FILES
        repository, _, revision = str(config.hf_hub_id).partition("@")
        return NamedWeights(tagged, {}, _from_hub(repository, revision or None, files, arch, field))
    return NamedWeights(tagged, {}, _from_url(str(config.url), arch, field))


def _of_repository(arch: str, field: str) -> NamedWeights:
    """Weights of a repository whose `config.json` names one of timm's architectures."""
    identifier = next(arch.removeprefix(word) for word in HUB if arch.startswith(word))
    repository, _, revision = identifier.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        expected = "hf-hub:OWNER/REPOSITORY, or hf-hub:OWNER/REPOSITORY@REVISION"
        raise UserError(f"{field}.arch", "is no repository of the hub", value=arch, expected=expected)
    path = _from_hub(repository, revision or None, [_CONFIG], arch, field)
    try:
        content = json.loads(path.read_text())
        name, arguments = content["architecture"], content.get("model_args") or {}
        tag = (content.get("pretrained_cfg") or content).get("tag") or ""
        if not (isinstance(name, str) and isinstance(arguments, dict) and isinstance(tag, str)):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        problem = f"the {_CONFIG} of this repository names no architecture of timm"
        expected = "a repository of a timm model, or `arch: NAME` with `checkpoint: FILE`"
        raise UserError(f"{field}.arch", problem, value=arch, expected=expected) from None
    check_name(name, field)
    tagged = f"{name}.{tag}" if tag and timm.is_model_pretrained(f"{name}.{tag}") else name
    weights = _from_hub(repository, revision or None, _FILES, arch, field)
    return NamedWeights(tagged, arguments, weights)


def _of_torchvision(arch: str, field: str) -> NamedWeights:
    from torchvision.models import get_model_weights

    check_name(arch, field)
    weights = get_model_weights(arch.removeprefix(TORCHVISION))
    if not len(weights):
        expected = "another architecture, or `checkpoint: FILE`"
        raise UserError(f"{field}.arch", "torchvision has no weights of it", value=arch, expected=expected)
    best = getattr(weights, "DEFAULT", next(iter(weights)))
    return NamedWeights(arch, {}, _from_url(best.url, arch, field))


def _from_hub(repository: str, revision: str | None, files: Sequence[str], arch: str, field: str) -> Path:
    """The first of these files that the repository has, in the hub's cache, below the hash of its commit."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def wanted(local: bool) -> Path | None:
        for file in files:
            try:
                return Path(hf_hub_download(repository, file, revision=revision, local_files_only=local))
            except LocalEntryNotFoundError:
                if not local:
                    raise
            except EntryNotFoundError:
                continue
        return None

    if (there := wanted(local=True)) is not None:
        return there
    try:
        _find_host(constants.ENDPOINT)
        found = wanted(local=False)
    except Exception as error:  # of the network, the hub, or the user's rights: their kinds differ by version
        needed = " ".join(dict.fromkeys([files[0], _FILES[0]] if arch.startswith(HUB) else files[:1]))
        at = f" --revision {revision}" if revision else ""
        raise UserError(
            f"{field}.pretrained",
            f"{arch}: {files[0]} of {repository} is not in {constants.HF_HUB_CACHE}, and the hub does not "
            f"give it: {_why(error)}",
            expected=f"`hf download {repository} {needed}{at}` where there is a network, and what it writes "
            "below `models--…` in that cache here (HF_HOME moves it); or `checkpoint: FILE`",
        ) from None
    if found is None:
        problem = f"the repository has no {' and no '.join(files)}"
        raise UserError(f"{field}.arch", problem, value=arch, expected="`checkpoint: FILE`")
    return found


def _from_url(url: str, arch: str, field: str) -> Path:
    """A file that torch keeps in its own cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(urlparse(url).path).name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # torchvision's names end in the beginning of their hash.
        hashed = torch.hub.HASH_REGEX.search(path.name)
        torch.hub.download_url_to_file(url, str(path), hashed[1] if hashed else None, progress=False)
    except Exception as error:  # the network's, and torch's for a file that arrived damaged
        raise UserError(
            f"{field}.pretrained",
            f"{arch}: {path.name} is not in {folder}, and cannot be downloaded: {_why(error)}",
            expected=f"the file of {url} in that folder (TORCH_HOME moves it), or `checkpoint: FILE`",
        ) from None
    return path


def _find_host(url: str) -> None:
    """Raise `OSError` where the host has no address: the hub's client would try for half a minute."""
    if not urllib.request.getproxies():
        socket.getaddrinfo(urlparse(url).hostname, None)


def _why(error: Exception) -> str:
    """The first line of the error at the root."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"[:200]
