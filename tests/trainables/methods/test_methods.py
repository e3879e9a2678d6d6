"""The conformance test: what every registered method must do."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from small_methods import (
    TEACHER,
    WIDE_TEACHER,
    adam_steps,
    context,
    make_batch,
    make_method,
    make_teacher,
    train_steps,
)
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.methods import load_method, methods
from trainables.methods.base import NEEDS, TAUGHT, Batch, Method
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.parts.queue import Queue
from trainables.teachers.teacher import Teacher
from trainables.training.resolve import check_names, resolve

METHODS = list(methods())
each_method = pytest.mark.parametrize("name", METHODS)
each_taught = pytest.mark.parametrize("name", [name for name in METHODS if load_method(name).needs & TAUGHT])


def choices() -> list[tuple[str, str, Any]]:
    """(method, field, choice) for every field that has a list of choices."""
    found = []
    for name, kind in methods().items():
        for field, info in kind.Config.model_fields.items():
            if info.annotation is bool:
                found += [(name, field, choice) for choice in (False, True)]
            elif get_origin(info.annotation) is Literal:
                found += [(name, field, choice) for choice in get_args(info.annotation)]
    return found


def fingerprint(module: nn.Module) -> str:
    """Hash of all bits of the module's state."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def submodules(method: Method, kind: type[nn.Module]) -> list[Any]:
    """All submodules of a type."""
    return [module for module in method.modules() if isinstance(module, kind)]


def settings(name: str) -> list[dict[str, Any]]:
    """The default settings, and for every choice of every field the settings with that choice."""
    return [{}, *({field: choice} for method, field, choice in choices() if method == name)]


def raw(name: str, **config: Any) -> dict[str, Any]:
    """A trial of the method as a user writes it."""
    written: dict[str, Any] = {
        "method": name,
        "student": {"arch": "test_resnet"},
        "epochs": 1,
        "config": config,
    }
    if load_method(name).needs & TAUGHT:
        written["teacher"] = {"arch": TEACHER.arch, "train": {"method": "moco", "epochs": 1}}
    return written


@each_method
def test_describes_itself(name: str) -> None:
    kind = load_method(name)
    assert kind.name == name and kind.summary and "\n" not in kind.summary
    assert kind.needs | kind.may_need <= set(NEEDS) and "backbone" in kind.points
    # Settings change what is needed of data and teacher, not whether there is a teacher.
    assert bool(kind.needs & TAUGHT) or not kind.may_need & TAUGHT
    assert typing.cast(Any, __import__(kind.__module__, fromlist=["_"])).__doc__.count("\n") > 3
    check_names(kind)
    for field, info in kind.Config.model_fields.items():
        assert info.description, f"{field} has no description"
        assert not info.is_required(), f"{field} has no default"
    assert set(kind.small) <= set(kind.Config.model_fields)


@each_method
def test_presets_are_trials(name: str) -> None:
    assert {"paper", "digits"} <= set(load_method(name).presets)
    for preset in load_method(name).presets:
        trial = resolve({**{k: v for k, v in raw(name).items() if k != "epochs"}, "preset": preset})
        assert set(trial.config) == set(load_method(name).Config.model_fields)


@each_method
def test_a_misspelt_field_is_refused_with_the_right_word(name: str) -> None:
    for field in load_method(name).Config.model_fields:
        wrong = field[:2] + field[3:]
        with pytest.raises(UserError, match=rf"config\.{wrong}: .*Did you mean '{field}'\?"):
            resolve(raw(name, **{wrong: 1}))


@each_method
def test_losses_are_finite_and_gradients_go_where_declared(name: str) -> None:
    method = make_method(name)
    losses = method(make_batch(method))
    assert losses.total.shape == () and torch.isfinite(losses.total)
    assert losses.terms and all(term.shape == () and torch.isfinite(term) for term in losses.terms.values())
    losses.total.backward()
    without = [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "DDP would wait for these"
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)
    if method.teacher is not None:
        assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


@each_taught
@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_the_teacher_is_the_same_to_the_last_bit(name: str, batch_norm: str) -> None:
    teacher = make_teacher(batch_norm)
    before = fingerprint(teacher)
    method = make_method(name, teacher=teacher)
    train_steps(method, 4)
    assert fingerprint(teacher) == before
    assert not any(parameter is other for parameter in method.parameters() for other in teacher.parameters())


@each_taught
def test_a_teacher_that_is_missing_or_lacks_a_head_is_refused(name: str) -> None:
    method = make_method(name)
    with pytest.raises(UserError, match=r"teacher: .*learns from a teacher"):
        type(method)(method.config, method.student, None, method.context)
    bare = Teacher(make_teacher().backbone, None)
    if "teacher_head" in method.needs:
        with pytest.raises(UserError, match=r"teacher: .*needs its projection head"):
            type(method)(method.config, method.student, bare, method.context)
    else:
        train_steps(make_method(name, teacher=bare), 1)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if "queue_size" in load_method(name).Config.model_fields]
)
def test_a_queue_that_does_not_fit_is_refused(name: str) -> None:
    # The first settings that make a queue.
    asked = next(s for s in settings(name) if submodules(make_method(name, **s), Queue))
    for size, words in (
        (12, "divisible by the global batch of 8"),
        (64, "smaller than the 64 training images"),
    ):
        with pytest.raises(UserError, match=rf"config\.queue_size: .*{words}"):
            make_method(name, queue_size=size, **asked)


@each_method
def test_the_loss_of_a_batch_that_comes_again_falls(name: str) -> None:
    first, *_, last = (step["total"] for step in adam_steps(make_method(name)))
    assert last < 0.6 * first


@each_method
def test_queue_and_momentum_encoder_move_after_the_step(name: str) -> None:
    method = make_method(name)
    queues, encoders = submodules(method, Queue), submodules(method, MomentumEncoder)
    train_steps(method, 1)  # so that student and momentum encoder differ
    before = copy.deepcopy((queues, encoders))
    batch = make_batch(method, seed=9)
    method(batch).total.backward()
    for queue, was in zip(queues, before[0], strict=True):
        assert torch.equal(queue.rows, was.rows)
    method.after_step(0.5)
    for queue, was in zip(queues, before[0], strict=True):
        assert queue.seen == was.seen + len(batch.ids)
        moved = (queue.rows != was.rows).any(1).nonzero().flatten()
        assert moved.tolist() == [(int(was.seen) + i) % len(queue.rows) for i in range(len(batch.ids))]
    for encoder, was in zip(encoders, before[1], strict=True):
        pairs = list(zip(encoder.parameters(), was.parameters(), strict=True))
        assert any(not torch.equal(now, then) for now, then in pairs)
        assert not any(p.requires_grad for p in encoder.parameters())


@each_method
def test_a_restored_method_goes_on_to_the_same_bits(name: str) -> None:
    method = make_method(name)
    train_steps(method, 3)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    restored = make_method(name, context(seed=99))  # other initial weights: all must come from the file
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert train_steps(restored, 3, first=3) == train_steps(method, 3, first=3)
    assert fingerprint(restored) == fingerprint(method)


@each_method
def test_the_seed_gives_the_bits_and_no_generator_moves(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, other = make_method(name), make_method(name), make_method(name, context(seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)


@each_method
def test_probing_changes_nothing(name: str) -> None:
    method = make_method(name)
    train_steps(method, 1)
    before = fingerprint(method)
    method.eval()
    images = make_batch(method).views[0]
    with torch.no_grad():
        for point in method.points:
            features = method.features(images, point)
            assert features.ndim == 2 and len(features) == len(images) and torch.isfinite(features).all()
            assert torch.equal(features[:1], method.features(images[:1], point)) or torch.allclose(
                features[:1], method.features(images[:1], point), atol=1e-5
            )
    assert fingerprint(method) == before


@each_method
def test_says_what_its_settings_need(name: str) -> None:
    kind = load_method(name)
    for config in settings(name):
        required = kind.requires(kind.Config(**config))
        assert kind.needs <= set(required) <= kind.needs | kind.may_need
        assert all(reason if need not in kind.needs else not reason for need, reason in required.items())


@each_taught
def test_asks_the_teacher_what_it_declares_and_takes_ready_answers(name: str) -> None:
    method = make_method(name)
    again = copy.deepcopy(method)
    total, batch = asks_as_declared(method)
    # The second time, with answers that are ready, no pass is made and no bit differs.
    passes = counted_passes(again.teacher)
    assert torch.equal(again(batch).total, total)
    assert passes == [len(batch.ids)] * asks_itself(method)


def asks_as_declared(method: Method) -> tuple[Tensor, Batch]:
    """Check that a step asks what `asks` says. Returns the loss, and the batch with all answers."""
    asked = counted_passes(method.teacher)
    batch = make_batch(method)._replace(targets={})
    total = method(batch).total
    assert batch.targets is not None and set(batch.targets) == method.asks(method.config)
    assert asked == [len(batch.ids)] * max(len(batch.targets), asks_itself(method))
    return total, batch


def asks_itself(method: Method) -> bool:
    """Does `forward` make a pass of the teacher whose answer nobody shares?"""
    return "feature_maps" in method.requires(method.config) or method.mixes(method.config)


def counted_passes(teacher: Teacher) -> list[int]:
    """A list that gets the number of images of each pass through the teacher's backbone."""
    passes: list[int] = []
    teacher.backbone.model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    return passes


@pytest.mark.parametrize(("name", "field", "choice"), choices())
def test_every_choice_takes_two_steps(name: str, field: str, choice: Any) -> None:
    try:
        method = make_method(name, **{field: choice})
    except UserError:  # the settings may ask for a teacher as wide as the student
        method = make_method(name, teacher=make_teacher(spec=WIDE_TEACHER), **{field: choice})
    start = fingerprint(method.student)
    totals = train_steps(method, 2)
    assert torch.isfinite(torch.tensor(totals)).all()
    assert fingerprint(method.student) != start
    waiting = [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []
    if method.teacher is not None:
        asks_as_declared(method)


@each_method
def test_works_under_autocast(name: str) -> None:
    method = make_method(name)
    plain = copy.deepcopy(method)
    batch = make_batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batch)
    losses.total.backward()
    method.after_step(0.1)
    assert losses.total.dtype == torch.float32
    # A relative tolerance, because some losses are below any useful absolute one.
    torch.testing.assert_close(losses.total, plain(batch).total, rtol=0.2, atol=0)


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Hide older objects from gc.get_objects(), because looking at all of a session takes seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@each_method
def test_memory_stays_flat(name: str, few_objects: None) -> None:
    method = make_method(name)

    def held() -> int:
        gc.collect()
        return sum(
            o.numel() * o.element_size() for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)
        )

    train_steps(method, 3)
    before = held()
    assert before > 0
    train_steps(method, 5)
    assert held() == before
    method.eval()
    with torch.no_grad():  # a loss in eval mode keeps nothing
        for seed in range(3):
            method(make_batch(method, seed=seed))
    assert held() == before


@pytest.mark.parametrize("name", [name for name in METHODS if not load_method(name).relational])
def test_the_loss_is_a_mean_over_the_batch(name: str) -> None:
    """Twice the same samples give the same loss: no sum over the batch hides in it."""
    method = make_method(name).eval()
    batch = make_batch(method, size=4)
    doubled = batch._replace(
        views=[view.repeat(2, 1, 1, 1) for view in batch.views],
        labels=batch.labels.repeat(2),
        ids=batch.ids.repeat(2),
    )
    with torch.no_grad():
        torch.testing.assert_close(method(doubled).total, method(batch).total, rtol=1e-4, atol=1e-5)
