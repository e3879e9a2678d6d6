"""Two gloo workers against one: same losses, same ends, and no worker left waiting.

One group of two processes goes through every scenario and writes down what each saw; the tests read it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_workers
from tiny_trials import Log, asked, assert_same_bits, final, process_group, run, tiny

from trainables.core.errors import TrialFailed
from trainables.core.workers import from_first
from trainables.data.encode import TrainingImages
from trainables.methods.supervised import Supervised
from trainables.planning.compute import step_flops
from trainables.spec.trial import TrialSpec
from trainables.training.loop import prepare, train
from trainables.training.run import Run
from trainables.training.workspace import Workspace

SGD: dict[str, Any] = {"optimizer": "momentum", "lr": 0.02}
LEAN: dict[str, Any] = {"probe": {"record": ()}, "epochs": 2}


def retro(**optim: Any) -> TrialSpec:
    return tiny("retro", optim={**SGD, **optim}, **LEAN)


def moco(**optim: Any) -> TrialSpec:
    return tiny("moco", optim={**SGD, **optim}, **LEAN)


TRIALS = {
    "retro": retro(),
    "adamw": tiny("retro", **LEAN),
    "micro-batches": moco(accumulate=2),
    "local": moco(batch_norm="local"),
}


def places(root: Path, name: str) -> Workspace:
    return Workspace(root / name, root / "cache", root / "teachers")


def scenarios(rank: int, root: Path) -> dict[str, Callable[[], Any]]:
    """What each of the two workers does; the result is kept for the tests."""

    def trained(name: str, **log: Any) -> Any:
        return run(TRIALS[name], places(root, f"two-{name}"), **log).timeless()

    def resumed(name: str) -> Any:
        place = places(root, f"two-{name}-resumed")
        first = Log(stop=1)
        train(TRIALS[name], first, place)
        torch.manual_seed(rank)  # whatever each worker did in between
        return {**first.timeless(), **run(TRIALS[name], place).timeless()}

    def shared() -> list[tuple[Any, int]]:
        """Of a trial that computes the teacher's answers, and of one that reads them: reports and passes."""
        found = []
        passes: list[str] = []
        for name in ("two-computed", "two-read"):
            place = replace(places(root, name), targets="auto")
            with asked(lambda what, _: passes.append(what)):
                found.append((run(TRIALS["retro"], place).timeless(), len(passes)))
        return found

    def fails() -> str:
        try:
            train(retro(lr=1e18), Log(), places(root, "two-fails"))
        except TrialFailed as error:
            return str(error)
        return "no error"

    def full_disk() -> str:
        (root / "taken").write_text("where a folder should be made")
        try:
            train(moco(), Log(), places(root, "taken"))
        except OSError as error:
            return type(error).__name__
        return "no error"

    def disagree() -> list[int]:
        log = Log(stop=0 if rank else 1)  # the second worker wants to go on
        train(moco(), log, places(root, "two-disagree"))
        return log.epochs

    def broken() -> str:
        class Odd(Exception):  # cannot be pickled
            pass

        def make() -> None:
            raise Odd("cannot be sent")

        try:
            from_first(make)
        except Exception as error:
            return str(error)
        return "no error"

    def alone() -> float:
        return from_first(lambda: step_flops(TRIALS["local"]))

    def begun() -> float:
        """What a method took from the data, where each worker came to a number of its own."""

        class Unlike(Supervised):  # only here, so that no other test finds it among the methods
            name = "unlike"

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.register_buffer("taken", torch.zeros(()))

            def begin(self, images: TrainingImages) -> None:
                self.taken.fill_(rank + 1)

        method = Run(tiny("unlike", **LEAN), places(root, "two-begun")).method
        return method.taken.item()

    def teacher() -> Any:
        log = Log()
        prepare(retro(), Workspace(root / "x", root / "cache", root / "teachers-of-two"), log)
        return log.timeless()

    return {
        **{name: lambda name=name: trained(name) for name in TRIALS},  # type: ignore[misc]
        "resumed": lambda: resumed("retro"),
        "resumed local": lambda: resumed("local"),
        "shared": shared,
        "fails": fails,
        "full disk": full_disk,
        "disagree": disagree,
        "broken": broken,
        "alone": alone,
        "begun": begun,
        "teacher": teacher,
    }


def worker(rank: int, root: Path) -> None:
    process_group(rank, 2, str(root / "rendezvous"))
    results: dict[str, Any] = {}
    try:
        for name, act in scenarios(rank, root).items():
            results[name] = act()
    except BaseException:
        results["error"] = traceback.format_exc()
        raise
    finally:
        torch.save(results, root / f"results-{rank}.pt")
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("two")
    prepare(retro(), places(root, "one"))
    run_workers(worker, [(rank, root) for rank in range(2)], 120)
    return root


@pytest.fixture(scope="module")
def results(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        torch.load(root / f"results-{rank}.pt", weights_only=False) for rank in (0, 1)
    ]
    for result in found:
        assert "error" not in result, result["error"]
    return found


def losses(metrics: dict[int, dict[str, float]]) -> list[float]:
    return [value for of in metrics.values() for name, value in of.items() if name.startswith("loss")]


@pytest.mark.parametrize(("name", "tolerance"), [("retro", 1e-4), ("adamw", 1e-2), ("micro-batches", 1e-4)])
def test_two_workers_train_as_one(
    name: str, tolerance: float, root: Path, results: list[dict[str, Any]]
) -> None:
    place = places(root, f"one-{name}")
    one = run(TRIALS[name], place).timeless()
    two = results[0][name]
    assert results[1][name] == two  # both heard the same
    assert losses(two) == pytest.approx(losses(one), rel=tolerance)
    for epoch, metrics in one.items():
        assert two[epoch]["score"] == pytest.approx(metrics["score"], abs=2)
    if name == "adamw":
        return  # its first steps are signs of gradients, where rounding decides
    theirs = final(places(root, f"two-{name}"))
    for path, value in final(place).items():
        if path.startswith("/method/"):
            torch.testing.assert_close(
                theirs[path], value, rtol=1e-3, atol=1e-3, msg=lambda m, p=path: f"{p}: {m}"
            )


@pytest.mark.parametrize("name", ["retro", "local"])
def test_two_workers_resumed_give_the_same_bits(name: str, root: Path, results: list[dict[str, Any]]) -> None:
    resumed = results[0]["resumed" if name == "retro" else "resumed local"]
    assert resumed == results[0][name]
    assert_same_bits(final(places(root, f"two-{name}-resumed")), final(places(root, f"two-{name}")))


def test_two_workers_share_what_the_teacher_says(root: Path, results: list[dict[str, Any]]) -> None:
    for result in results:
        (computed, first), (read, both) = result["shared"]
        assert computed == read == result["retro"]
        assert first == both == 2 * 2 * 7  # two views, two epochs of seven steps
    for name in ("two-computed", "two-read"):
        assert_same_bits(final(places(root, name)), final(places(root, "two-retro")))


def test_a_trial_fails_on_every_worker_alike(results: list[dict[str, Any]]) -> None:
    assert results[0]["fails"] == results[1]["fails"]
    assert "step" in results[0]["fails"] and "distillation" in results[0]["fails"]


def test_what_goes_wrong_on_the_first_worker_ends_all(results: list[dict[str, Any]]) -> None:
    assert [result["full disk"] for result in results] == ["FileExistsError"] * 2
    assert all("cannot be sent" in result["broken"] for result in results)


def test_the_first_workers_answer_counts(results: list[dict[str, Any]]) -> None:
    assert [result["disagree"] for result in results] == [[1], [1]]


def test_what_the_first_worker_does_for_all_waits_for_nobody(results: list[dict[str, Any]]) -> None:
    here = step_flops(TRIALS["local"])
    assert [result["alone"] for result in results] == [here, here]


def test_all_workers_go_on_with_what_the_first_took_from_the_data(results: list[dict[str, Any]]) -> None:
    assert [result["begun"] for result in results] == [1, 1]


def test_two_workers_train_one_teacher(root: Path, results: list[dict[str, Any]]) -> None:
    assert results[0]["teacher"] == results[1]["teacher"] and list(results[0]["teacher"]) == [1]
    assert len(list((root / "teachers-of-two").glob("*.safetensors"))) == 1
