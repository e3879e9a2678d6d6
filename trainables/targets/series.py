"""A series: one kind of answer of one teacher to one view of every image, the same bits wherever it is made.

The key of a series is a hash of all that can change a bit of the answers: the teacher's file and how it is
fed, the images, the views, seed and batches, the precision, the device and the code that computes them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
import torch
from torch import nn

from trainables.core import plugins
from trainables.data.data_sets import DataSet
from trainables.data.store_images import Images
from trainables.networks.plugin_networks import plugins_of
from trainables.spec.trial import NOT_IDENTITY, TrialSpec
from trainables.teachers.teacher import Teacher, What
from trainables.views.augmented import PlainView
from trainables.views.recipes import recipe_of

FORMAT = 1  # of the files; others are not read
_CPUINFO = Path("/proc/cpuinfo")
_VARIABLES = ("ONEDNN_", "DNNL_", "MKL_", "ATEN_")  # of the environment: they choose kernels of the CPU
# Of /proc/cpuinfo: libraries choose their kernels by these.
_CPU_X86 = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
_CPU_ARM = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features")


@dataclass(frozen=True, eq=False)
class Series:
    """Which answers these are."""

    facts: Mapping[str, Any]  # plain JSON; all that can change a bit
    width: int  # numbers of an answer

    @functools.cached_property
    def key(self) -> str:
        """16 hex digits of the hash of `facts`."""
        text = json.dumps(self.facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def can_be_shared(teacher: Teacher) -> bool:
    """Whether the answers to an image depend on nothing but the image and the file of the teacher.

    Batch statistics depend on the other images of the batch. A teacher without a file has no identity.
    """
    return bool(teacher.sha256) and teacher.batch_norm == "eval"


def augmented(
    trial: TrialSpec,
    data: DataSet,
    teacher: Teacher,
    what: What,
    view: int,
    device: torch.device,
    half: bool,
    compiled: bool,
    workers: int,
) -> Series:
    """The series of a view of the training images as `trial` makes and batches them.

    `half`: whether the teacher is asked under autocast to bfloat16; `compiled`: whether by `torch.compile`.
    """
    optim = trial.optim
    facts = {
        **_common(teacher, what, device, half, trial.data.image_size),
        "compiled": compiled,
        "images": data.train.fingerprint,
        "trained on": _digest(data.train_ids),
        "stored": data.train.size,
        "data": trial.data.model_dump(mode="json", exclude=set(NOT_IDENTITY["data"])),
        "recipe": dataclasses.asdict(recipe_of(trial.views, view)),
        "strength": trial.views.strength,
        "view": view,
        "seed": trial.seed,
        # Which images a step has, and how many one pass has: with another number a convolution gives other
        # bits, with the same number the same bits whichever images there are.
        "batch": (optim.batch_size, optim.accumulate, workers),
    }
    return Series(facts, teacher.width(what))


def plain(
    teacher: Teacher,
    what: What,
    images: Images,
    ids: np.ndarray,
    view: PlainView | int,
    batch: int,
    device: torch.device,
) -> Series:
    """The series of the images `ids` without augmentation, `batch` in a pass; `view` as in `views.plain`."""
    size = view if isinstance(view, int) else view.size
    facts = {
        **_common(teacher, what, device, torch.is_autocast_enabled(device.type), size),
        "images": images.fingerprint,
        "ids": _digest(ids),
        "stored": images.size,
        "view": view,
        "batch": batch,
    }
    return Series(facts, teacher.width(what))


def _common(
    teacher: Teacher, what: What, device: torch.device, half: bool, image_size: int
) -> dict[str, Any]:
    """Of answers to views of `image_size` pixels."""
    return {
        "format": FORMAT,
        "code": _CODE,
        "teacher": teacher.sha256,
        "arch": teacher.backbone.arch,
        "options": teacher.backbone.options,
        "inputs": teacher.backbone.inputs.training(image_size),
        **({"its code": code} if (code := plugins.codes(plugins_of(teacher.backbone.arch))) else {}),
        "channels last": _channels_last(teacher),
        "what": teacher.kind(what),
        "precision": "bfloat16" if half else "float32",
        **_machine(device),
    }


def _machine(device: torch.device) -> dict[str, Any]:
    """What computes: versions, processors, and settings that change roundings."""
    facts: dict[str, Any] = {
        **{name: importlib.metadata.version(name) for name in ("torchvision", "timm")},
        "torch": (str(torch.__version__), torch.version.cuda),
        "numpy": np.__version__,
        "pillow": (PIL.__version__, PIL.features.version("libjpeg_turbo")),
        "cpu": _cpu(),
        "variables": {name: os.environ[name] for name in os.environ if name.startswith(_VARIABLES)},
    }
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        return {
            **facts,
            "device": torch.cuda.get_device_name(device),
            "float32": (torch.get_float32_matmul_precision(), cudnn.allow_tf32),
            "cudnn": (cudnn.version(), cudnn.benchmark, cudnn.deterministic),
        }
    return {
        **facts,
        "device": f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }


def _cpu() -> dict[str, str]:
    """Which processor this is. `get_cpu_capability` alone is the same for AMD's and Intel's AVX-512."""
    try:
        first, *_ = _CPUINFO.read_text().split("\n\n")
    except OSError:
        return {"processor": platform.processor()}
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    return {name: facts[name] for name in (*_CPU_X86, *_CPU_ARM) if name in facts}


def _hash_of_code(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# So that what another version computed is not read. Now, which takes milliseconds, and not when it is asked:
# somebody may edit a file while this process lives.
_CODE = _hash_of_code(Path(__file__).resolve().parents[1])


def _channels_last(network: nn.Module) -> bool:
    kernels = [p for p in network.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    return any(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def _digest(ids: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(ids, dtype=np.int64).tobytes()).hexdigest()
