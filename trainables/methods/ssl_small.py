"""SSL-Small: MoCo-v2 with settings for small networks. No teacher.

Shi et al. 2021, "On the efficacy of small self-supervised contrastive models without distillation signals"
(arXiv 2107.14762); `WOWNICE/ssl-small`.

    q = u(g(f(x1)))     k = sg u(g_m(f_m(x2)))     L = CE0(q, k; Q, .1)

It differs from MoCo-v2 by a colder softmax, a head twice as wide as the student's features, Linear(d,
2d)-ReLU- Linear(2d, 128), stronger colours (view recipe `ssl_small`), a larger batch and a longer training.
The paper's last step, to begin at weights from a few epochs of SEED, is a setting of the student and not of
the method: `student: {arch: ..., train: {method: seed, epochs: 5, teacher: ...}}` (docs/students.md).

    raykd run search_spaces/ssl_small.yaml
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainables.methods.base import Presets
from trainables.methods.moco import Moco, MocoConfig
from trainables.methods.parts.recipes import momentum_sgd, on_digits


class SslSmallConfig(MocoConfig):
    """Settings of SSL-Small: MoCo-v2's with other defaults."""

    temperature: float = Field(0.1, gt=0, description="of the contrastive softmax")
    head_ratio: float = Field(
        2.0, gt=0, description="width of the head's hidden layer, as a multiple of the student's features"
    )


class SslSmall(Moco[SslSmallConfig]):
    """MoCo-v2 for small networks; see the head of this file."""

    name = "ssl_small"
    summary = "SSL-Small: MoCo-v2 with a colder softmax, a wider head and stronger views; no teacher"
    presets: ClassVar[Presets] = {
        "paper": {
            "config": {"queue_size": 65536, "momentum": 0.999, "temperature": 0.1, "head_ratio": 2.0},
            "optim": momentum_sgd(lr=0.06, weight_decay=1e-4, batch_size=512, schedule="cosine"),
            "views": {"recipe": "ssl_small"},
            "epochs": 800,
        },
        "digits": {
            "config": {"queue_size": 512, "momentum": 0.99, "temperature": 0.1, "head_ratio": 2.0},
            **on_digits(lr=5e-3),
        },
    }
