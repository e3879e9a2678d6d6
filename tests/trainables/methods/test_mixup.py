"""Mixup: mixtures by numpy, the same for any number of workers and after a resume, and only where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_sync import waits
from small_methods import make_batch, make_method, train_steps
from tiny_trials import Log, run, tiny, workspace

from trainables.methods import load_method, methods
from trainables.methods.parts import mixup
from trainables.methods.parts.mixup import Mixup
from trainables.teachers.teacher import Ask
from trainables.training.loop import train

MIXING = [name for name, kind in methods().items() if kind.mixes(kind.Config())]
IMAGES = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))


def by_numpy(images: torch.Tensor, seed: int, number: int, alpha: float = 1.0) -> np.ndarray:
    """The mixtures of micro-batch `number`, of all images of the global micro-batch."""
    generator = np.random.default_rng([seed, number, 0x6D6978])
    share, order = generator.beta(alpha, alpha), generator.permutation(len(images))
    return share * images.numpy() + (1 - share) * images.numpy()[order]


@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_mixtures_are_those_of_the_formula(alpha: float) -> None:
    mix = Mixup(alpha, seed=3)
    for number in range(3):
        np.testing.assert_allclose(mix(IMAGES), by_numpy(IMAGES, 3, number, alpha), rtol=1e-5, atol=1e-6)
    assert mix.state.tolist() == [3, 3]


def test_a_share_of_alpha_1_is_uniform() -> None:
    mix = Mixup(1.0, seed=0)
    shares = [mix.drawn(2)[0] for _ in range(2000)]
    # The standard errors of mean and variance are .0065 and .0017.
    assert np.mean(shares) == pytest.approx(1 / 2, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / 12, abs=0.006)


def test_nothing_is_mixed_or_counted_in_eval_mode_and_at_alpha_0() -> None:
    for mix in (Mixup(1.0, 3).eval(), Mixup(0.0, 3)):
        assert mix(IMAGES) is IMAGES
        assert mix.state.tolist() == [3, 0]


def test_each_of_two_workers_mixes_its_share_of_the_global_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    want = Mixup(1.0, 3)(IMAGES)
    monkeypatch.setattr(mixup, "world_size", lambda: 2)
    monkeypatch.setattr(mixup, "gather", lambda _: IMAGES)
    for number in range(2):
        monkeypatch.setattr(mixup, "rank", lambda number=number: number)
        own = slice(3 * number, 3 * number + 3)
        assert torch.equal(Mixup(1.0, 3)(IMAGES[own]), want[own])


def test_no_generator_moves_and_none_moves_it() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = Mixup(1.0, 3)(IMAGES)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(Mixup(1.0, 3)(IMAGES), one)
    assert not torch.equal(Mixup(1.0, 4)(IMAGES), one)


def test_a_restored_one_goes_on_and_reads_the_device_once() -> None:
    mix, restored = Mixup(1.0, 3), Mixup(1.0, 99)
    for _ in range(2):
        mix(IMAGES)
    restored.load_state_dict(mix.state_dict())
    assert torch.equal(restored(IMAGES), mix(IMAGES))
    with waits() as found:
        again = restored(IMAGES)
    assert found == [] and torch.equal(again, mix(IMAGES))


def test_the_layout_is_that_of_the_images() -> None:
    last = IMAGES.contiguous(memory_format=torch.channels_last)
    mixed = Mixup(1.0, 3)(last)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed, Mixup(1.0, 3)(IMAGES))


@pytest.mark.parametrize("name", MIXING)
def test_teacher_and_student_see_the_same_mixture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_method(name)
    seen: dict[str, list[torch.Tensor]] = {"student": [], "teacher": []}

    def keep(side: str) -> Any:
        return lambda _, given: seen[side].append(given[0])

    method.student.model.register_forward_pre_hook(keep("student"))
    method.teacher.backbone.model.register_forward_pre_hook(keep("teacher"))
    batch = make_batch(method)
    method(batch)
    (student,), (teacher,) = seen["student"], seen["teacher"]
    assert torch.equal(student, teacher)
    np.testing.assert_allclose(student, by_numpy(batch.views[0], 3, 0), rtol=1e-4, atol=1e-5)


def test_the_methods_that_mix_do_so_by_default_and_not_at_alpha_0() -> None:
    assert set(MIXING) == {"queue_pseudo_labels", "patch_regression", "global_local"}
    for name in MIXING:
        kind = load_method(name)
        assert kind.asks(kind.Config()) == frozenset()
        method = make_method(name, mixup_alpha=0.0)
        train_steps(method, 2)
        assert method.mixup.state.tolist() == [3, 0]


def test_without_mixtures_the_teachers_features_are_shared() -> None:
    kind = load_method("queue_pseudo_labels")
    assert kind.asks(kind.Config(mixup_alpha=0.0)) == {("features", 0)}
    method = make_method("queue_pseudo_labels", mixup_alpha=0.0)
    batch = make_batch(method)._replace(targets={})
    method(batch)
    assert set(batch.targets or ()) == {Ask("features", 0)}


def test_a_trial_that_was_stopped_goes_on_with_the_same_mixtures(tmp_path: Path) -> None:
    moco = {"method": "moco", "preset": "digits", "epochs": 1, "config": {"queue_size": 128}}
    trial = tiny(
        "queue_pseudo_labels",
        teacher={"arch": "test_resnet", "train": {**moco, "optim": {"batch_size": 64}}},
        config={"queue_size": 128},
        optim={"batch_size": 64},
        data={"validation": 0.85},
        epochs=2,
    )
    whole = run(trial, workspace(tmp_path, "whole")).timeless()
    stopped = Log(stop=1)
    train(trial, stopped, workspace(tmp_path, "stopped"))
    again = run(trial, workspace(tmp_path, "stopped")).timeless()
    assert {**stopped.timeless(), **again} == whole
