"""Training settings that the presets of several methods share: optimizer, views and epochs.

presets = {"paper": {"config": {...}, **MOCO_V2}, "digits": {"config": {...}, **on_digits(lr=5e-3)}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def momentum_sgd(lr: float, weight_decay: float, batch_size: int, **schedule: Any) -> dict[str, Any]:
    """Section `optim` for code that calls `torch.optim.SGD(model.parameters(), lr, 0.9, weight_decay=...)`.

    `schedule` are further fields of the section.
    """
    return {
        "optimizer": "momentum",
        "decay_norms": True,
        "lr": lr,
        "sgd_momentum": 0.9,
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        **schedule,
    }


# `facebookresearch/moco` and the methods built on it.
MOCO_V2: Mapping[str, Any] = {
    "optim": momentum_sgd(lr=0.03, weight_decay=1e-4, batch_size=256, schedule="cosine"),
    "views": {"recipe": "moco_v2"},
    "epochs": 200,
}

# CIFAR-100 as in `HobbitLong/RepDistiller`, the usual settings for comparing supervised distillation.
REPDISTILLER: Mapping[str, Any] = {
    "optim": momentum_sgd(
        lr=0.05,
        weight_decay=5e-4,
        batch_size=64,
        schedule="multistep",
        decay_epochs=(150, 180, 210),
        decay_rate=0.1,
    ),
    "views": {"recipe": "cifar"},
    "epochs": 240,
}

# `mengjian0502/solo-learn-sparse`, `scripts/pretrain/imagenet-100/barlowACL.sh`: LARS with clipping is LARC.
SLIM_IMAGENET_100: Mapping[str, Any] = {
    "optim": {
        "optimizer": "larc",
        "trust_coefficient": 0.02,
        "lr": 0.45,  # 0.3 at a batch of 256
        "sgd_momentum": 0.9,
        "weight_decay": 5e-5,
        "batch_size": 384,
        "schedule": "cosine_after_warmup",
        "warmup_epochs": 10,
    },
    "views": {"recipe": "solo_learn"},
    "epochs": 400,
}


def lightly_train(optimizer: str, lr: float, weight_decay: float) -> dict[str, Any]:
    """The training of lightly-train's distillations, as its documentation and package (0.18) say.

    `lr` is that for a batch of 1536. It is scaled by the root of the batch, and the batch is 128 by default.
    The cosine begins after the warm-up, which is a tenth of the epochs there where they are fewer than 100.
    Resized crops of at least .14 of the area. Its blur, of at most .1 pixels, changes nothing. Its crops are
    resized by OpenCV's `INTER_AREA`, which blurs less where it enlarges; here they are bilinear.
    """
    batch = 128
    return {
        "optim": {
            "optimizer": optimizer,
            "lr": float(f"{lr * (batch / 1536) ** 0.5:.4g}"),
            "weight_decay": weight_decay,
            "batch_size": batch,
            "clip_grad": 1.0,
            "schedule": "cosine_after_warmup",
            "warmup_epochs": 10,
        },
        "views": {
            "recipe": "moco_v2",
            "operations": {"crop": 0.86, "jitter": (0.4, 0.4, 0.2, 0.1), "blur": 0.0},
        },
        "epochs": 100,
    }


def on_digits(lr: float = 2e-3, batch_size: int = 128, epochs: int = 16) -> dict[str, Any]:
    """A training of minutes on scikit-learn's digits.

    In so few steps AdamW is better than SGD, and views are best at half strength.
    """
    return {
        "optim": {"optimizer": "adamw", "lr": lr, "batch_size": batch_size, "schedule": "cosine"},
        "views": {"recipe": "digits", "strength": 0.5},
        "epochs": epochs,
    }
