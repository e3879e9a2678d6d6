"""What a method does in some steps of training, on small networks and noise."""

from __future__ import annotations

import copy
import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.methods import load_method
from trainables.methods.base import Batch, Method
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.parts.queue import Queue
from trainables.planning.conformance.base import Check, choices, fingerprint, hold, submodules, taught
from trainables.planning.conformance.small_runs import (
    WIDE_TEACHER,
    adam_steps,
    context,
    make_batch,
    make_method,
    make_teacher,
    train_steps,
)
from trainables.teachers.teacher import Ask, Teacher

_FALL = 0.6  # of the first loss; the loss of a batch that comes 15 times falls below


def gradients_go_where_declared(name: str) -> None:
    """Loss and terms are finite scalars; each trained parameter gets a gradient, the teacher none."""
    method = make_method(name)
    losses = method(make_batch(method))
    hold(losses.total.shape == () and torch.isfinite(losses.total), "`total` is no finite scalar")
    hold(losses.terms, "`terms` is empty")
    for term, value in losses.terms.items():
        hold(value.shape == () and torch.isfinite(value), f"term {term} is no finite scalar")
    losses.total.backward()
    without = waiting(method)
    hold(not without, f"no gradient for {', '.join(without)}: DDP would wait for these")
    frozen = [key for key, p in method.named_parameters() if not p.requires_grad and p.grad is not None]
    hold(not frozen, f"a gradient for {', '.join(frozen)}, which are not trained")
    if method.teacher is not None:
        still = all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
        hold(still, "a gradient reaches the teacher")


def waiting(method: nn.Module) -> list[str]:
    """The trained parameters without a gradient."""
    return [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None]


def teacher_stays_the_same(name: str) -> None:
    """To the last bit, with running statistics and with those of the batch."""
    for batch_norm in ("eval", "batch"):
        teacher = make_teacher(batch_norm)
        before = fingerprint(teacher)
        method = make_method(name, teacher=teacher)
        train_steps(method, 4)
        hold(fingerprint(teacher) == before, f"the teacher changes (batch_norm: {batch_norm})")
        own = {id(parameter) for parameter in method.parameters()}
        shared = [parameter for parameter in teacher.parameters() if id(parameter) in own]
        hold(not shared, "the teacher's weights are among the method's own")


def loss_falls(name: str) -> None:
    """The loss of a batch that comes again falls."""
    first, *_, last = (step["total"] for step in adam_steps(make_method(name)))
    hold(last < _FALL * first, f"the loss of one batch goes from {first:.4g} to {last:.4g} in 15 steps")


def queue_and_encoder_move_after_the_step(name: str) -> None:
    """In `after_step`, and not in `forward`."""
    method = make_method(name)
    queues, encoders = submodules(method, Queue), submodules(method, MomentumEncoder)
    train_steps(method, 1)  # so that student and momentum encoder differ
    before = copy.deepcopy((queues, encoders))
    batch = make_batch(method, seed=9)
    method(batch).total.backward()
    for queue, was in zip(queues, before[0], strict=True):
        hold(torch.equal(queue.rows, was.rows), "a queue changes in `forward`")
    method.after_step(0.5)
    for queue, was in zip(queues, before[0], strict=True):
        hold(queue.seen == was.seen + len(batch.ids), "a queue does not take the batch's keys")
        moved = (queue.rows != was.rows).any(1).nonzero().flatten()
        next_rows = [(int(was.seen) + i) % len(queue.rows) for i in range(len(batch.ids))]
        hold(moved.tolist() == next_rows, "a queue does not replace its oldest rows")
    for encoder, was in zip(encoders, before[1], strict=True):
        pairs = list(zip(encoder.parameters(), was.parameters(), strict=True))
        hold(any(not torch.equal(now, then) for now, then in pairs), "a momentum encoder stays as it is")
        hold(not any(p.requires_grad for p in encoder.parameters()), "a momentum encoder has gradients")


def goes_on_to_the_same_bits(name: str) -> None:
    """All that changes in training is in the checkpoint."""
    method = make_method(name)
    train_steps(method, 3)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    restored = make_method(name, context(seed=99))  # other initial weights: all must come from the file
    restored.load_state_dict(torch.load(file, weights_only=True))
    same = train_steps(restored, 3, first=3) == train_steps(method, 3, first=3)
    hold(same and fingerprint(restored) == fingerprint(method), "a restored method trains otherwise")


def seed_gives_the_bits(name: str) -> None:
    """The initial weights depend on the seed alone, and no global generator moves."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, other = make_method(name), make_method(name), make_method(name, context(seed=4))
    hold(torch.equal(torch.get_rng_state(), before), "the global generator moves while it is built")
    hold(fingerprint(one) == fingerprint(two), "two of one seed differ")
    hold(fingerprint(one) != fingerprint(other), "two seeds give the same weights")


def probing_changes_nothing(name: str) -> None:
    """Features at each probe point are finite rows, each of one image alone; the method stays as it is."""
    method = make_method(name)
    train_steps(method, 1)
    before = fingerprint(method)
    method.eval()
    images = make_batch(method).views[0]
    with torch.no_grad():
        for point in method.points:
            features = method.features(images, point)
            rows = features.ndim == 2 and len(features) == len(images)
            hold(rows and torch.isfinite(features).all(), f"features at {point} are no finite rows (B, D)")
            alone = method.features(images[:1], point)
            hold(torch.allclose(features[:1], alone, atol=1e-5), f"features at {point} hang on the batch")
    hold(fingerprint(method) == before, "probing changes the method")


def asks_what_it_declares(name: str) -> None:
    """`asks` is what a step asks; with answers that are ready no pass is made, and no bit differs."""
    method = make_method(name)
    again = copy.deepcopy(method)
    total, batch = _asks_as_declared(method)
    passes = _counted_passes(again.teacher)
    hold(torch.equal(again(batch).total, total), "ready answers of the teacher give another loss")
    hold(passes == [len(batch.ids)] * _asks_itself(method), "the teacher is asked what is known already")


def _asks_as_declared(method: Method) -> tuple[Tensor, Batch]:
    """Check that a step asks what `asks` says. Returns the loss, and the batch with all answers."""
    asked = _counted_passes(method.teacher)
    batch = make_batch(method)._replace(targets={})
    total = method(batch).total
    declared = {Ask(what, view) for what, view in method.asks(method.config)}
    wanted = set(batch.targets or ())
    hold(wanted == declared, f"`asks` says {sorted(declared)}, a step asks {sorted(wanted)}")
    passes = [len(batch.ids)] * max(len(batch.targets or ()), _asks_itself(method))
    hold(asked == passes, f"the teacher makes {len(asked)} passes, and not {len(passes)}")
    return total, batch


def _asks_itself(method: Method) -> bool:
    """Does `forward` make a pass of the teacher whose answer nobody shares?"""
    return "feature_maps" in method.requires(method.config) or method.mixes(method.config)


def _counted_passes(teacher: Teacher) -> list[int]:
    """A list that gets the number of images of each pass through the teacher's backbone."""
    passes: list[int] = []
    teacher.backbone.model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    return passes


def choice_takes_two_steps(name: str, field: str, choice: Any) -> None:
    """With this choice of the setting `field` the student learns, and every trained parameter with it."""
    try:
        method = make_method(name, **{field: choice})
    except UserError:  # the settings may ask for a teacher as wide as the student
        method = make_method(name, teacher=make_teacher(spec=WIDE_TEACHER), **{field: choice})
    start = fingerprint(method.student)
    totals = train_steps(method, 2)
    hold(torch.isfinite(torch.tensor(totals)).all(), f"a loss that is not finite with {field}: {choice}")
    hold(fingerprint(method.student) != start, f"the student stays as it is with {field}: {choice}")
    hold(not waiting(method), f"no gradient for {', '.join(waiting(method))} with {field}: {choice}")
    if method.teacher is not None:
        _asks_as_declared(method)


def every_choice_takes_two_steps(name: str) -> None:
    """Every choice of every setting."""
    for field, choice in choices(name):
        choice_takes_two_steps(name, field, choice)


def works_under_autocast(name: str) -> None:
    """The loss stays float32 in mixed precision, and about the same."""
    method = make_method(name)
    plain = copy.deepcopy(method)
    batch = make_batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batch)
    losses.total.backward()
    method.after_step(0.1)
    dtype = losses.total.dtype
    hold(dtype == torch.float32, f"the loss is {dtype}: `in_float32` keeps it float32")
    mixed, exact = losses.total.item(), plain(batch).total.item()
    # A relative tolerance, because some losses are below any useful absolute one.
    hold(abs(mixed - exact) <= 0.2 * abs(exact), f"the loss is {mixed:.4g}, in float32 {exact:.4g}")


@contextmanager
def _few_objects() -> Iterator[None]:
    """Hide older objects from gc.get_objects(), because looking at all of a session takes seconds."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def memory_stays_flat(name: str) -> None:
    """No tensor is kept from step to step, nor from a loss in eval mode."""
    with _few_objects():
        method = make_method(name)

        def held() -> int:
            gc.collect()
            return sum(
                o.numel() * o.element_size() for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)
            )

        train_steps(method, 3)
        before = held()
        hold(before > 0, "no tensor was found")
        train_steps(method, 5)
        hold(held() == before, f"{held() - before} bytes more after five steps")
        method.eval()
        with torch.no_grad():
            for seed in range(3):
                method(make_batch(method, seed=seed))
        hold(held() == before, f"{held() - before} bytes more after three losses in eval mode")


def loss_is_a_mean(name: str) -> None:
    """Twice the same samples give the same loss: no sum over the batch hides in it."""
    method = make_method(name).eval()
    batch = make_batch(method, size=4)
    doubled = batch._replace(
        views=[view.repeat(2, 1, 1, 1) for view in batch.views],
        labels=batch.labels.repeat(2),
        ids=batch.ids.repeat(2),
    )
    with torch.no_grad():
        twice, once = method(doubled).total, method(batch).total
    same = torch.allclose(twice, once, rtol=1e-4, atol=1e-5)
    hold(same, f"each sample twice gives {twice:.6g}, once {once:.6g}; `relational` says why that may be")


def _plain(name: str) -> bool:
    return not load_method(name).relational


CHECKS = (
    Check("losses are finite and gradients go where they belong", gradients_go_where_declared),
    Check("the teacher stays the same to the last bit", teacher_stays_the_same, taught),
    Check("the loss of a batch that comes again falls", loss_falls),
    Check("queue and momentum encoder move after the step", queue_and_encoder_move_after_the_step),
    Check("a restored method goes on to the same bits", goes_on_to_the_same_bits),
    Check("the seed gives the bits and no generator moves", seed_gives_the_bits),
    Check("probing changes nothing", probing_changes_nothing),
    Check("it asks the teacher what it declares", asks_what_it_declares, taught),
    Check("every choice of its settings takes two steps", every_choice_takes_two_steps),
    Check("it works under autocast", works_under_autocast),
    Check("memory stays flat", memory_stays_flat),
    Check("the loss is a mean over the batch", loss_is_a_mean, _plain),
)
