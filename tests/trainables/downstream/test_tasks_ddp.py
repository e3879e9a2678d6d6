"""Two gloo workers against one: a task says the same of a network, and says it on both workers."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import run_workers
from tasks import network, outcome
from tiny_trials import process_group

from trainables.core.errors import TrialFailed, UserError

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": ("frozen", {"probe": "logistic", "strengths": [0.01, 0.1], "labels": 0.2}),
    "linear": ("linear", {"lr": [0.1, 1], "epochs": 3}),
    "finetune": ("finetune", {"lr": 0.05, "labels": 0.3}),
    "alone": ("linear", {"lr": [0.1, 1], "labels": {"per_class": 3}}),
}


def scenarios(root: Path) -> dict[str, Callable[[], Any]]:
    def said(name: str) -> Any:
        kind, fields = TASKS[name]
        found = outcome(root, kind, of=network(), **fields)
        return found.metrics(), found.hits

    def refused() -> str:
        try:
            outcome(root, "frozen", labels="none.txt")
        except UserError as error:
            return str(error)
        return ""

    def failed() -> str:
        try:
            outcome(root, "finetune", lr=[1e20, 1e21], labels=0.3)
        except TrialFailed as error:
            return str(error)
        return ""

    return {**{name: lambda name=name: said(name) for name in TASKS}, "refused": refused, "failed": failed}  # type: ignore[misc]


def worker(rank: int, root: Path) -> None:
    process_group(rank, 2, str(root / "rendezvous"))
    results: dict[str, Any] = {}
    try:
        for name, act in scenarios(root).items():
            results[name] = act()
    except BaseException:
        results["error"] = traceback.format_exc()
        raise
    finally:
        torch.save(results, root / f"results-{rank}.pt")
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Scenario -> what one process found, and what each of two workers found."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("two")
    one = {name: act() for name, act in scenarios(root).items()}
    run_workers(worker, [(rank, root) for rank in range(2)], 200)
    two = [torch.load(root / f"results-{rank}.pt", weights_only=False) for rank in range(2)]
    assert not any("error" in found for found in two), two
    return {name: [one[name], two[0][name], two[1][name]] for name in one}


@pytest.mark.parametrize("name", TASKS)
def test_both_workers_say_the_same(results: dict[str, list[Any]], name: str) -> None:
    _, (first, hits), (second, others) = results[name]
    assert first == second and np.array_equal(hits, others)


@pytest.mark.parametrize("name", ["logistic", "alone"])
def test_what_one_worker_fits_is_the_same_bits(results: dict[str, list[Any]], name: str) -> None:
    (one, hits), (two, others), _ = results[name]
    assert one == two and np.array_equal(hits, others)


@pytest.mark.parametrize("name", ["linear", "finetune"])
def test_what_both_train_is_what_one_trains(results: dict[str, list[Any]], name: str) -> None:
    """Sums over workers are rounded otherwise."""
    (one, hits), (two, others), _ = results[name]
    assert one.keys() == two.keys() and (hits == others).mean() > 0.97
    assert one["score"] == pytest.approx(two["score"], abs=2)
    assert {k: v for k, v in one.items() if "chosen" in k} == {k: v for k, v in two.items() if "chosen" in k}


def test_errors_reach_both_workers(results: dict[str, list[Any]]) -> None:
    assert all("no such word or file" in said for said in results["refused"])
    assert all("every candidate failed" in said for said in results["failed"])
