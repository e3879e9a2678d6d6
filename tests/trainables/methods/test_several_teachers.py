"""Methods that learn from several teachers: weights, heads of their own, answers shared by each teacher."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from small_methods import STUDENT, context, make_batch, make_method, make_teacher, train_steps
from tiny_trials import asked, assert_same_bits, final, run, tiny, workspace

from trainables.core.errors import UserError
from trainables.methods import load_method, methods
from trainables.methods.base import TAUGHT, Method
from trainables.methods.parts.balance import Balance
from trainables.networks.backbones import build_backbone
from trainables.planning.check import TrialChecker
from trainables.planning.sharing import AskedOf
from trainables.spec.trial import ModelSpec, TrialSpec
from trainables.teachers.teacher import Ask
from trainables.training.flat_names import flatten
from trainables.training.resolve import resolve
from trainables.training.workspace import Workspace

torch.set_num_threads(1)
SEVERAL = [name for name, method in methods().items() if method.several_teachers]


def of_two(name: str, weights: tuple[float, float] = (1.0, 1.0), **config: Any) -> Method:
    teachers = (
        make_teacher(seed=5),
        make_teacher(seed=6, spec=ModelSpec(arch="test_vit", options={"img_size": 32})),
    )
    for teacher, weight in zip(teachers, weights, strict=True):
        teacher.weight = weight
    kind = load_method(name)
    return kind(
        kind.Config(**{**kind.small, **config}), build_backbone(STUDENT, 3), teachers, context()
    ).train()


def test_which_methods_take_several() -> None:
    assert {"projector", "global_patch"} <= set(SEVERAL)
    assert all(methods()[name].needs & TAUGHT for name in SEVERAL)


@pytest.mark.parametrize("name", SEVERAL)
def test_the_total_is_the_weighted_sum_of_each_teachers_loss(name: str) -> None:
    both = of_two(name, (2.0, 0.5))
    batch = make_batch(both)
    alone = copy.deepcopy(both)
    for teacher in alone.teachers:
        teacher.weight = 1.0
    losses = both(batch)
    terms: dict[str, torch.Tensor] = {}
    total = torch.zeros(())
    for at in (0, 1):
        kind = type(alone)
        one = kind(alone.config, build_backbone(STUDENT, 3), alone.teachers[at], context()).train()
        if at == 0:
            state = alone.state_dict()
            one.load_state_dict({k: v for k, v in state.items() if not k.startswith(("further", "balance"))})
        else:
            one.load_state_dict(_of_second(alone.state_dict()))
        found = one(batch)
        total = total + (2.0, 0.5)[at] * found.total
        terms |= {f"{name}_{at + 1}": term for name, term in found.terms.items()}
    torch.testing.assert_close(losses.total, total)
    assert losses.terms.keys() == terms.keys()
    for key, term in terms.items():
        torch.testing.assert_close(losses.terms[key], term)


def _of_second(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The second teacher's heads under the names of the first one's."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("further_projectors.0.", "projector!").replace("further.0.", "!")
        if "!" in key:
            renamed[key.replace("projector!", "projector.").replace("!", "")] = value
        elif key.startswith("student."):
            renamed[key] = value
    return renamed


@pytest.mark.parametrize("name", SEVERAL)
def test_heads_of_all_teachers_learn_and_no_teacher_changes(name: str) -> None:
    method = of_two(name)
    before = [{k: v.clone() for k, v in one.state_dict().items()} for one in method.teachers]
    start = {k: p.detach().clone() for k, p in method.named_parameters() if p.requires_grad}
    train_steps(method, 2)
    assert [k for k, p in method.named_parameters() if p.requires_grad and torch.equal(p, start[k])] == []
    for teacher, was in zip(method.teachers, before, strict=True):
        assert_same_bits(dict(teacher.state_dict()), was)


@pytest.mark.parametrize("name", SEVERAL)
def test_one_teacher_trains_as_before_there_were_several(name: str) -> None:
    method = make_method(name)
    assert not any("further" in key or "balance" in key for key in method.state_dict())
    as_list = type(method)(method.config, build_backbone(STUDENT, 3), [method.teacher], method.context)
    batch = make_batch(method)
    assert torch.equal(as_list.train()(batch).total, method(batch).total)


def test_adaloss_divides_by_moving_averages() -> None:
    balance = Balance((2.0, 1.0), "adaloss").train()
    a, b = torch.tensor(4.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    total = balance([a, b])
    assert total.item() == pytest.approx(2 + 1)  # the first batch is its own average
    total.backward()
    assert a.grad is not None and a.grad.item() == pytest.approx(2 / 4)
    assert b.grad is not None and b.grad.item() == pytest.approx(1 / 0.5)
    balance.advance()
    assert balance.levels.tolist() == pytest.approx([4, 0.5])
    assert balance([torch.tensor(2.0), torch.tensor(0.5)]).item() == pytest.approx(2 * 2 / 4 + 1)
    balance.advance()
    assert balance.levels.tolist() == pytest.approx([0.99 * 4 + 0.01 * 2, 0.5])
    plain = Balance((2.0, 1.0), "none").train()
    assert plain([a, b]).item() == pytest.approx(8.5)


def test_adaloss_learns() -> None:
    method = of_two("global_patch", balance="adaloss")
    totals = train_steps(method, 3)
    assert totals[0] == pytest.approx(2.0)  # each loss over itself
    assert method.balance.levels.min() > 0


# --- whole trials -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        paths.append(folder / f"{seed}.pth")
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), paths[-1])
    return paths


def two(files: list[Path], method: str = "projector", **more: Any) -> TrialSpec:
    teachers: list[dict[str, Any]] = [{"arch": "test_resnet", "checkpoint": str(path)} for path in files]
    teachers[1] |= more.pop("second", {})
    return tiny(method, epochs=1, teacher=teachers, **more)


def test_a_trial_with_two_teachers(files: list[Path], tmp_path: Path) -> None:
    trial = two(files)
    assert len(trial.teachers) == 2 and trial.teachers[0].checkpoint == files[0]
    again = TrialSpec.model_validate(trial.model_dump(mode="json"))
    assert again == trial == resolve(trial.model_dump(mode="json"))
    assert flatten(trial)["teacher.1.checkpoint"] == str(files[1])
    single = tiny("projector", epochs=1, teacher=[{"arch": "test_resnet", "checkpoint": str(files[0])}])
    names = {two(files[::-1]).signature(), two(files, second={"weight": 2.0}).signature()}
    assert len({trial.signature(), single.signature(), *names}) == 4
    TrialChecker().check(trial)
    cache = tmp_path / "cache"
    first, second = (Workspace(tmp_path / n, cache, tmp_path / "t", targets="auto") for n in "ab")
    calls: list[str] = []
    with asked(lambda what, _: calls.append(what)):
        run(trial, first)
        whole = len(calls)
        run(trial, second)  # each teacher's answers come from the store
    assert whole == len(calls) == 2 * 7  # teachers, steps
    assert_same_bits(final(first), final(second))
    alone = workspace(tmp_path / "off")
    run(trial, alone)
    assert_same_bits(final(first), final(alone))
    # A trial with one of them takes what is there.
    with asked(lambda what, _: calls.append(what)):
        run(single, Workspace(tmp_path / "c", cache, tmp_path / "t", targets="auto"))
    assert len(calls) == whole


def test_plans_count_the_answers_of_each_teacher(files: list[Path]) -> None:
    asks = AskedOf()(two(files)).bytes
    assert set(asks) == {Ask("features", 0, 0), Ask("features", 0, 1)}
    batch = {"batch_norm": "batch"}
    assert set(AskedOf()(two(files, second=batch)).bytes) == {Ask("features", 0, 0)}


def test_teachers_that_cannot_be_together(files: list[Path], tmp_path: Path) -> None:
    wrong: list[tuple[Any, str]] = [
        (
            lambda: two(files, "seed"),
            r"teacher: has 2 teachers, and method 'seed' learns from one.*projector",
        ),
        (lambda: two([files[0], files[0]]), r"teacher\.1: stands there twice"),
        (lambda: two(files, second={"weight": 0}), r"teacher\.1\.weight"),
        (lambda: two(files, second={"arch": "test_resnt"}), r"teacher\.1\.arch.*test_resnet"),
        (lambda: two(files, second={"checkpoint": str(tmp_path / "no")}), r"teacher\.1\.checkpoint: no such"),
        (lambda: two(files, config={"kl_weight": 1.0}), r"config\.kl_weight: goes with one teacher"),
        (lambda: tiny("projector", teacher=[]), r"teacher: no teacher"),
        (lambda: tiny("projector", teacher=[3]), r"teacher"),
        (
            lambda: tiny(
                "projector", teacher={"arch": "test_resnet", "checkpoint": str(files[0]), "weight": 2}
            ),
            r"teacher\.weight: goes with several",
        ),
    ]
    for make, words in wrong:
        with pytest.raises(UserError, match=words):
            TrialChecker().check(make())
    with pytest.raises(UserError, match="learns from one teacher"):
        kind = load_method("rkd")
        kind(kind.Config(), build_backbone(STUDENT, 0), [make_teacher(), make_teacher(seed=9)], context())
