"""Epochs until a search has a trial within half a point of the best known: the default against random search.

    python benchmarks/search.py                          # on benchmarks/curves/all_methods_mlp.parquet
    python benchmarks/search.py --repetitions 100 --lanes 4
    python benchmarks/search.py --with '{"scheduler": {"name": "asha", "grace": 2}}'    # one more row

Sweeps are played without training: raykd's own proposer and decider, and curves of `surrogate.py`. The best
known is the best score of a recorded trial. A trial counts as found at the first epoch whose score comes
within `--within` points of it. Every sweep goes on until it has found one, or has had `--most` trials.
Random search without stopping is played thrice: by the same surrogate as the others, likewise but with each
method's own settings first, as the default has it (`start: presets`), and as random orders of the recorded
trials, without any surrogate. Ratios are of mean epochs, with 95 % bootstrap intervals over
repetitions.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from surrogate import Curves, Surrogate, load

from raykd.searching.decisions import Decider
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.search import SearchSpec, build_sweep

RANDOM: dict[str, Any] = {"sampler": {"name": "random"}, "scheduler": {"name": "none"}}
SETTINGS: dict[str, dict[str, Any]] = {
    "random search, no stopping": RANDOM,
    "default: presets first, TPE, ASHA": {"sampler": {"name": "tpe"}, "scheduler": {"name": "asha"}},
    "TPE, ASHA, without presets": {
        "start": "sampler",
        "sampler": {"name": "tpe"},
        "scheduler": {"name": "asha"},
    },
    "TPE, no stopping": {"sampler": {"name": "tpe"}, "scheduler": {"name": "none"}},
    "random search, ASHA": {"sampler": {"name": "random"}, "scheduler": {"name": "asha"}},
    "as the space says": {},
}
Curve = Callable[[dict[str, Any]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("curves", nargs="?", default="all_methods_mlp", help="a file of benchmarks/curves/")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--lanes", type=int, default=1, help="trials at once")
    parser.add_argument("--within", type=float, default=0.5, help="points")
    parser.add_argument("--most", type=int, default=1000, help="trials of a sweep")
    parser.add_argument("--with", dest="more", action="append", default=[], help="sections of one more row")
    parser.add_argument("--only", action="store_true", help="only random search and the rows of --with")
    asked = parser.parse_args()
    curves = load(asked.curves)
    world = Surrogate(curves)
    goal = curves.scores.max() - asked.within
    rmse, spread, ranks = world.error
    print(
        f"{asked.curves}: {len(curves.params)} recorded trials of {curves.spec.epochs} epochs, "
        f"{curves.failed} failed; best {curves.scores.max():.2f}, and "
        f"{np.mean(curves.scores.max(1) >= goal):.1%} within {asked.within} points of it. Surrogate: RMSE "
        f"{rmse:.2f} points where scores spread by {spread:.2f}, rank correlation {ranks:.2f}."
    )
    settings = {"random search, no stopping": RANDOM} if asked.only else dict(SETTINGS)
    presets = with_seed(curves.spec, {"sampler": {"name": "tpe"}}, 0, asked.most).first_points
    settings["random search after presets, no stopping"] = {**RANDOM, "points": [p for _, p in presets]}
    settings |= {text: json.loads(text) for text in asked.more}
    found = {"random search, recorded trials alone": in_random_order(curves, goal, asked.repetitions)}
    for name, sections in settings.items():
        found[name] = np.array(
            [
                play(
                    with_seed(curves.spec, sections, seed, asked.most),
                    functools.partial(world.curve, salt=seed),
                    goal,
                    asked.lanes,
                )
                for seed in range(asked.repetitions)
            ]
        )
        print(
            table({name: found[name]}, found.get("random search, no stopping", found[name]))[-1], flush=True
        )
    print("\n".join(table(found, found["random search, no stopping"])))


def with_seed(spec: SearchSpec, sections: dict[str, Any], seed: int, trials: int) -> SearchSpec:
    """The sweep with other sections, and a sampler of this seed."""
    raw = {**spec.model_dump(mode="json"), **sections, "samples": trials}
    return build_sweep({**raw, "sampler": {**raw["sampler"], "seed": seed}})


def play(spec: SearchSpec, curve: Curve, goal: float, lanes: int) -> int:
    """The epochs of all trials until one reaches the goal, or all that the sweep has."""
    proposer, decider = Proposer(spec), Decider(spec.scheduler, spec.epochs)
    live: list[tuple[Proposal, np.ndarray]] = []
    at: dict[str, int] = {}
    spent, more = 0, True
    while True:
        while more and len(live) < lanes:
            proposal = proposer.propose()
            more = proposal is not None
            if isinstance(proposal, Proposal):
                live.append((proposal, curve(proposal.params)))
        if not live:
            return spent
        for proposal, scores in list(live):
            trial = proposal.trial
            epoch = at[trial] = at.get(trial, 0) + 1
            score = float(scores[epoch - 1])
            spent += 1
            if score >= goal:
                return spent
            proposer.report(trial, epoch, score)
            if not decider.decide(trial, proposal.number, epoch, score):
                proposer.end(trial, "finished" if epoch == spec.epochs else "stopped")
                live.remove((proposal, scores))


def in_random_order(curves: Curves, goal: float, repetitions: int) -> np.ndarray:
    """Epochs of random search without stopping on the recorded trials, each taken once."""
    spent = []
    for seed in range(repetitions):
        order = np.random.default_rng(seed).permutation(len(curves.scores))
        reached = np.flatnonzero(curves.scores[order].ravel() >= goal)
        spent.append(int(reached[0]) + 1)
    return np.array(spent)


def table(found: dict[str, np.ndarray], base: np.ndarray) -> list[str]:
    """Markdown: mean epochs, median, and the ratio to `base`, with intervals."""
    lines = ["| | mean epochs | median | ratio to random search |", "|---|---|---|---|"]
    for name, spent in found.items():
        low, high = np.percentile(resampled(spent), [2.5, 97.5])
        ratios = resampled(spent, seed=1) / resampled(base, seed=2)
        least, most = np.percentile(ratios, [2.5, 97.5])
        ratio = spent.mean() / base.mean()
        lines.append(
            f"| {name} | {spent.mean():.0f} [{low:.0f}, {high:.0f}] | {np.median(spent):.0f} "
            f"| {ratio:.2f} [{least:.2f}, {most:.2f}] |"
        )
    return lines


def resampled(values: np.ndarray, seed: int = 0, times: int = 10_000) -> np.ndarray:
    """Means of bootstrap samples of `values`."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (times, len(values)))
    means: np.ndarray = values[drawn].mean(1)
    return means


if __name__ == "__main__":
    main()
