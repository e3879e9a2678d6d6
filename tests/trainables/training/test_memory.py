"""What settings would take of a device's memory: by formula, by count, and refused with a value that fits."""

from __future__ import annotations

import random
import re
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables.core.errors import UserError
from trainables.methods import load_method
from trainables.methods.base import Context
from trainables.methods.rkd import angle_loss, distance_loss
from trainables.networks.backbones import build_backbone
from trainables.planning.check import TrialChecker
from trainables.spec.trial import ModelSpec, TrialSpec
from trainables.training.memory import GIB, activation_bytes, check_memory, device_memory, heavy
from trainables.training.resolve import resolve

torch.set_num_threads(1)
TEACHER = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}


def trial(method: str, batch: int = 64, **config: Any) -> TrialSpec:
    return resolve(
        {
            "method": method,
            "student": {"arch": "test_efficientnet"},
            "teacher": TEACHER,
            "epochs": 1,
            "config": config,
            "optim": {"batch_size": batch},
        }
    )


def context(of: TrialSpec, **facts: Any) -> Context:
    return replace(TrialChecker().context(of), **facts)


IMAGENET = {"classes": 1000, "image_size": 224, "train_size": 1_281_167}


def test_fixed_anchors_keep_their_images_and_pass_through_the_student() -> None:
    of = trial("rrkd", anchors="per_class", anchors_per_class=13)
    told = context(of, **IMAGENET)
    assert told.teacher is not None
    (need,) = load_method("rrkd").memory(load_method("rrkd").Config(**of.config), told)
    assert need.kept == 4 * 13_000 * (3 * 224**2 + told.teacher.feature_dim) and need.images == 13_000
    (remark,) = heavy(of, load_method("rrkd"), told)
    assert remark.startswith("config.anchors_per_class: the 13000 anchors' images take 7.") and (
        "every checkpoint" in remark
    )
    with pytest.raises(UserError) as alone:
        check_memory(of, load_method("rrkd"), told, 1, 8 * GIB)
    assert alone.value.field == "config.anchors_per_class" and "(got 13)" in str(alone.value)
    with pytest.raises(UserError) as shared:
        check_memory(of, load_method("rrkd"), told, 8, 8 * GIB)
    assert _fits(shared.value) > _fits(alone.value), "workers share the passes through the student"


def test_queues_of_whole_features_are_said() -> None:
    of = trial("compress", queue_size=128_000)
    told = context(of, **IMAGENET)
    assert told.student is not None and told.teacher is not None
    kind = load_method("compress")
    (need,) = kind.memory(kind.Config(**of.config), told)
    assert need.kept == 4 * 128_000 * (told.student.feature_dim + told.teacher.feature_dim)
    one = of.model_copy(update={"config": {**of.config, "variant": "1q"}})
    (less,) = kind.memory(kind.Config(**one.config), told)
    assert less.kept == 4 * 128_000 * told.teacher.feature_dim


def test_the_value_that_fits_is_the_largest_that_does() -> None:
    rng = random.Random(0)
    for _ in range(60):
        method, field, most = rng.choice(
            [
                ("rkd", "optim.batch_size", 4096),
                ("lpkd", "config.neighbours", 4000),
                ("compress", "config.queue_size", 1_000_000),
                ("rrkd", "config.anchor_count", 100_000),
            ]
        )
        value = rng.randrange(most // 10, most)
        of = trial(method, **_setting(field, value))
        told = context(of, **IMAGENET)
        kind, memory, workers = load_method(method), rng.randrange(2**24, 2**30), rng.choice([1, 4])
        try:
            check_memory(of, kind, told, workers, memory)
            continue
        except UserError as error:
            assert error.field == field and f"(got {value})" in str(error)
            fits = _fits(error)
        for change, works in ((fits, True), (fits + 1, False)):
            changed = trial(method, **_setting(field, change))
            told = context(changed, **IMAGENET)
            if works:
                check_memory(changed, kind, told, workers, memory)
            else:
                with pytest.raises(UserError):
                    check_memory(changed, kind, told, workers, memory)


def _setting(field: str, value: int) -> dict[str, Any]:
    section, name = field.split(".")
    if section == "optim":
        return {"batch": value}
    more = {"anchors": "random"} if name == "anchor_count" else {}
    return {"batch": 4096 if name == "neighbours" else 64, name: value, **more}


def _fits(error: UserError) -> int:
    found = re.search(r"at most (\d+)", str(error))
    assert found is not None, error
    return int(found[1])


@pytest.mark.parametrize(("batch", "ours", "theirs"), [(64, 256, 256), (64, 64, 512), (96, 48, 48)])
def test_what_relations_take_is_what_was_counted(batch: int, ours: int, theirs: int) -> None:
    of = trial("rkd", batch)
    told = context(of)
    assert told.student is not None and told.teacher is not None
    told = replace(
        told,
        student=replace(told.student, feature_dim=ours),
        teacher=replace(told.teacher, feature_dim=theirs),
    )
    (need,) = load_method("rkd").memory(load_method("rkd").Config(**of.config), told)
    student, teacher = torch.randn(batch, ours, requires_grad=True), torch.randn(batch, theirs)
    with Live() as live:
        (25 * distance_loss(student, teacher) + 50 * angle_loss(student, teacher)).backward()
    assert 0.7 * live.most < need.step < 1.4 * live.most


class Live(TorchDispatchMode):
    """The most bytes that tensors made inside took at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = call(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (s := tensor.untyped_storage())._cdata not in self._seen:
                self._seen.add(s._cdata)
                self.now += s.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(s, self._gone, s._cdata, s.nbytes())
        return made

    def _gone(self, storage: int, size: int) -> None:
        self._seen.discard(storage)
        self.now -= size


def test_activations_grow_with_the_image_and_leave_the_generators_alone() -> None:
    state = torch.get_rng_state()
    small, large = (activation_bytes(ModelSpec(arch="test_vit2"), side) for side in (32, 64))
    assert torch.equal(state, torch.get_rng_state())
    assert 2.5 < large / small < 6
    weights = sum(p.nbytes for p in build_backbone(ModelSpec(arch="test_efficientnet"), 0).parameters())
    assert activation_bytes(ModelSpec(arch="test_efficientnet"), 8) < 3 * weights


def test_a_trial_is_refused_before_anything_is_trained() -> None:
    fits = trial("rkd", 64)
    TrialChecker(1, 2 * GIB).check(fits)
    with pytest.raises(
        UserError, match=r"^optim\.batch_size: .* would take .* each worker has 1\.0 MiB.*at most \d"
    ):
        TrialChecker(1, 2**20).check(fits)
    with pytest.raises(UserError, match=r"^config\.anchor_count: .* no device has so much"):
        of = trial("rrkd", anchors="random", anchor_count=1_000_000)
        check_memory(of, load_method("rrkd"), context(of, **IMAGENET))
    assert device_memory(torch.device("cpu")) > 2**28
