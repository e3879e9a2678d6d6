"""Published settings of linear classifiers on frozen networks and of fine-tuning, as presets of tasks.

Each was read in the source that its comment names. Fields that a user writes beside a preset win over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Preset = Mapping[str, Any]


def _momentum(weight_decay: float = 0.0, batch_size: int = 256, **schedule: Any) -> dict[str, Any]:
    """`optim` for `torch.optim.SGD(..., momentum=0.9)`, which decays biases like weights."""
    return {
        "optimizer": "momentum",
        "sgd_momentum": 0.9,
        "weight_decay": weight_decay,
        "decay_norms": True,
        "batch_size": batch_size,
        **schedule,
    }


def _multistep(*epochs: int, rate: float = 0.1) -> dict[str, Any]:
    return {"schedule": "multistep", "decay_epochs": list(epochs), "decay_rate": rate}


_CROPS = {"recipe": "imagenet"}  # resized crops of at least 8 % of the area, and flips

LINEAR: Mapping[str, Preset] = {
    # `facebookresearch/moco`, main_lincls.py. SEED's main_lincls.py has the same defaults.
    "moco": {"epochs": 100, "lr": [30.0], "optim": _momentum(**_multistep(60, 80)), "views": _CROPS},
    # `Yuting-Gao/DisCo-pytorch`, Reproduction.md (lr) and DisCo/main_lincls.py (halved at these epochs).
    "disco": {
        "epochs": 100,
        "lr": [3.0],
        "optim": _momentum(**_multistep(5, 10, 15, 20, 25, 30, 35, 40, 45, 60, 80, rate=0.5)),
        "views": _CROPS,
    },
    # The same, DisCo/main_lincls_semi.py, for 1 % and 10 % of the labels. It trains the classifier alone, as
    # does the file of that name in RETRO's `beandkay/Reused-Teacher-Projector`.
    "disco_semi": {
        "epochs": 100,
        "lr": [3.0],
        "optim": _momentum(**_multistep(60, 80, rate=0.5)),
        "views": _CROPS,
    },
    # The same, DisCo/cifar_main_lincls.py and Reproduction.md, for CIFAR-10 and CIFAR-100 at 224 pixels.
    "disco_cifar": {
        "epochs": 200,
        "lr": [3.0],
        "optim": _momentum(schedule="constant"),
        "views": _CROPS,
    },
    # `facebookresearch/swav`, eval_linear.py, on 8 GPUs with 32 images each.
    "swav": {
        "epochs": 100,
        "lr": [0.3],
        "optim": _momentum(weight_decay=1e-6, schedule="cosine"),
        "views": _CROPS,
    },
    # `vturrisi/solo-learn`, scripts/linear/imagenet-100/barlow.yaml. SACL-XD's repository is built on it.
    "solo_learn": {"epochs": 100, "lr": [0.1], "optim": _momentum(**_multistep(60, 80)), "views": _CROPS},
}


def _swav_semi(lr: float, head_lr: float) -> Preset:
    return {
        "epochs": 20,
        "lr": [lr],
        "head_lr": head_lr,
        "optim": _momentum(**_multistep(12, 16, rate=0.2)),
        "views": _CROPS,
    }


FINE_TUNING: Mapping[str, Preset] = {
    # raykd's own: three learning rates, of which the validation part chooses.
    "sweep": {
        "epochs": 30,
        "lr": [0.003, 0.01, 0.03],
        "optim": _momentum(schedule="cosine"),
        "views": _CROPS,
    },
    # `facebookresearch/swav`, eval_semisup.py and README.md: learning rate of the network, and of the
    # classifier as a multiple of it (0.2 and 5).
    "swav_10": _swav_semi(0.01, 20.0),
    "swav_1": _swav_semi(0.02, 250.0),
}
