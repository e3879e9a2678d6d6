"""SSL-Small: MoCo-v2's step with the paper's settings, its wider head, and what is refused."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from small_methods import make_batch, make_method, train_steps
from torch import nn

from trainables.methods import load_method
from trainables.methods.base import Method
from trainables.methods.moco import Moco
from trainables.methods.ssl_small import SslSmall


def test_a_step_is_the_formula() -> None:
    method = make_method("ssl_small")
    train_steps(method, 1)  # so that student and momentum encoder differ
    batch = make_batch(method, seed=5)
    again, rows = copy.deepcopy(method), method.queue.rows.clone()
    losses = method(batch)
    q = F.normalize(again.head(again.student(batch.views[0])), dim=1)
    k = F.normalize(again.mean.parts["head"](again.mean.parts["student"](batch.views[1])), dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ rows.T], 1) / 0.1
    torch.testing.assert_close(losses.total, (logits.logsumexp(1) - logits[:, 0]).mean())
    assert torch.equal(losses.total, losses.terms["contrastive"])


def test_it_is_moco_with_other_settings_and_a_name_of_its_own() -> None:
    def totals(method: Method) -> list[float]:
        return train_steps(method, 3)

    as_moco = totals(make_method("moco", temperature=0.1, head_ratio=2.0))
    assert totals(make_method("ssl_small")) == as_moco
    assert totals(make_method("ssl_small", temperature=0.2, head_ratio=1.0)) == totals(make_method("moco"))
    assert totals(make_method("moco")) != as_moco
    assert (load_method("ssl_small"), load_method("moco")) == (SslSmall, Moco)
    assert (Moco.Config().temperature, Moco.Config().head_ratio) == (0.2, 1.0)


def test_the_head_is_twice_as_wide_as_the_students_features() -> None:
    head = make_method("ssl_small", head_dim=20).head
    shapes = [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
    assert shapes == [(64, 128), (128, 20)]
