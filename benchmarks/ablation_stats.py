"""Can a study's statistics be trusted, and what does stopping early save? Simulated studies of known truth.

    python benchmarks/ablation_stats.py            # about 2 minutes on one core; prints five tables
    python benchmarks/ablation_stats.py --studies 2000

A study is a base and some arms over replicates: a seed moves all arms alike (sd 2 points), each trial has a
scatter of its own (sd 1 point), so that a paired difference has sd 1.41. Shares come with their 95 %
Clopper-Pearson intervals. Nothing is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from raykd.stats.boundaries import Plan, for_precision, spending
from raykd.stats.comparison import holm
from raykd.stats.improvement import probability_of_improvement
from raykd.stats.paired import paired_t, variance_ratio
from raykd.stats.ranks import rank
from raykd.stats.sequential import at_looks, chance_of_answer, decide_all

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from benchmark_statistics import anytime

ARMS, SEED_SD, TRIAL_SD = 4, 2.0, 1.0
DIFFERENCE_SD = TRIAL_SD * 2**0.5
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails (t, 3 df)": lambda rng, shape: rng.standard_t(3, shape) / 3**0.5,
    "skewed (exponential)": lambda rng, shape: rng.exponential(1, shape) - 1,
    "in steps of 0.5 points": lambda rng, shape: rng.standard_normal(shape),
}


def studies(rng: np.random.Generator, count: int, replicates: int, noise: str = "normal") -> np.ndarray:
    """Scores of studies whose arms are all equal: (studies, base and arms, replicates)."""
    scores = 70 + SEED_SD * rng.standard_normal((count, 1, replicates))
    scores = scores + TRIAL_SD * NOISES[noise](rng, (count, ARMS + 1, replicates))
    return np.asarray(np.round(scores * 2) / 2 if "steps" in noise else scores)


def share(wrong: Any) -> str:
    found = stats.binomtest(int(wrong.sum()), wrong.size).proportion_ci(0.95)
    return f"{100 * wrong.mean():5.2f} [{100 * found.low:5.2f}, {100 * found.high:5.2f}]"


def equal_arms(rng: np.random.Generator, count: int) -> None:
    print(f"\nA/A: % of {count} studies of {ARMS} equal arms that claim a difference; 5 at most is promised")
    print(f"{'noise':24}", *(f"{n:>12} replicates" for n in (3, 5, 10)), f"{'look after each, 3-10':>24}")
    looks = range(3, 11)
    plan = spending(looks, alpha=0.05 / ARMS)
    for noise in NOISES:
        step = 0.5 if "steps" in noise else 0.0
        cells = []
        for replicates in (3, 5, 10):
            scores = studies(rng, count, replicates, noise)
            p = holm(paired_t(scores[:, 1:] - scores[:, :1], step=step).p)
            cells.append(share((p <= 0.05).any(axis=1)))
        scores = studies(rng, count, 10, noise)
        t = np.abs(at_looks(scores[:, 1:] - scores[:, :1], looks, step=step).t)
        cells.append(share((t >= plan.critical).any(axis=(1, 2))))
        print(f"{noise:24}", *(f"{cell:>23}" for cell in cells))
    scores = studies(rng, count, 10)
    p = at_looks(scores[:, 1:] - scores[:, :1], looks).p
    print(f"uncorrected for looking: {share((p <= 0.05 / ARMS).any(axis=(1, 2)))}, and for arms:", end=" ")
    print(share((p <= 0.05).any(axis=(1, 2))))
    few = min(count, 10_000)
    whole = studies(rng, few, 10)
    claims = [any(v.reason == "sign" for v in decide_all(s[1:] - s[0], looks, futility=0.05)) for s in whole]
    print(f"whole rule (Holm, futility 5 %), {few} studies: {share(np.array(claims))}")
    ranked = [len(rank(s[:, :5]).groups) > 1 for s in whole]
    print(f"compare, by rank, 5 replicates, {few} studies: {share(np.array(ranked))}")


def coverage(rng: np.random.Generator, count: int) -> None:
    print(f"\nCoverage of 95 % intervals, % of {count} studies; true difference 1 point")
    looks = range(3, 11)
    plan, precise = spending(looks), for_precision(looks)
    scores = studies(rng, count, 10)
    d = scores[:, 1] - scores[:, 0] + 1.0
    for n in (3, 5, 10):
        test = paired_t(d[:, :n])
        inside = np.abs(test.mean - 1) <= test.half_width(0.05)
        print(f"  fixed, {n:2} replicates:               {share(inside)}")
    test = at_looks(d, looks)
    row = np.arange(count)
    error = test.sd / np.sqrt(test.pairs)
    half = np.array(plan.critical) * error
    stop = first(np.abs(test.mean) >= half)
    print(f"  `decide`, at its stop:             {share((np.abs(test.mean - 1) <= half)[row, stop])}")
    naive = stats.t.isf(0.025, test.pairs - 1) * error
    own = np.array(precise.critical) * error
    for width in (1.0, 1.5, 2.0):
        stop, plain = first(own <= width), first(naive <= width)
        ours = share((np.abs(test.mean - 1) <= own)[row, stop])
        theirs = share((np.abs(test.mean - 1) <= naive)[row, plain])
        used = test.pairs[row, stop].mean()
        print(f"  `settle` to {width}:  {ours} at {used:4.1f} replicates; with plain t intervals {theirs}")
    covered = []
    for a, b in scores[: min(count, 2000), :2, :5]:
        found = probability_of_improvement(a + 1, b).interval
        covered.append(found.low <= stats.norm.cdf(1 / np.hypot(SEED_SD, TRIAL_SD) / 2**0.5) <= found.high)
    print(f"  probability of improvement, 5 each: {share(np.array(covered))}")


def first(reached: np.ndarray) -> np.ndarray:
    """The first look at which it holds, else the last: (studies, looks) -> (studies,)."""
    return np.where(reached.any(axis=1), reached.argmax(axis=1), reached.shape[1] - 1)


def fewer(rng: np.random.Generator, count: int) -> None:
    for most in (10, 20):
        looks = range(3, most + 1)
        plans: dict[str, tuple[Plan, float]] = {
            "decide": (spending(looks, alpha=0.05 / ARMS), 0.0),
            "decide, futility 5 %": (spending(looks, alpha=0.05 / ARMS), 0.05),
            "spending power 1": (spending(looks, alpha=0.05 / ARMS, power=1.0), 0.0),
            "anytime-valid": (anytime(looks, alpha=0.05 / ARMS), 0.0),
        }
        print(
            f"\nOne of {ARMS} arms, {most} replicates at most. % of studies that find its sign (`fixed` after"
        )
        print(f"all {most}); % that decide as fixed does; mean replicates; % fewer replicates than fixed")
        print(f"{'true difference / sd':>20}{'fixed':>8}", *(f"{name:>30}" for name in plans))
        print(" " * 28, *(f"{'sign   same  repl.  fewer':>30}" for _ in plans))
        for effect in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0):
            d = (rng.standard_normal((count, most)) + effect) * DIFFERENCE_SD
            fixed = paired_t(d).p <= 0.05 / ARMS
            cells = []
            for plan, futility in plans.values():
                found, used = run(d, plan, futility)
                saved = 100 * (1 - used / most)
                agree = 100 * (found == fixed).mean()
                cells.append(f"{100 * found.mean():5.1f} {agree:6.1f} {used:6.1f} {saved:5.0f} %")
            print(f"{effect:20}{100 * fixed.mean():8.1f}", *(f"{cell:>30}" for cell in cells))


def run(d: np.ndarray, plan: Plan, futility: float) -> tuple[np.ndarray, float]:
    """Which studies found a sign, and the mean replicates used."""
    test = at_looks(d, plan.looks)
    signed = np.abs(test.t) >= plan.critical
    stopped = signed.copy()
    if futility:
        for k, n in enumerate(plan.looks[:-1]):
            chance = np.vectorize(lambda mean, sd, n=n: chance_of_answer(mean, sd, n, plan))
            stopped[:, k] |= chance(test.mean[:, k], test.sd[:, k]) < futility
    at = first(stopped)
    return signed[np.arange(len(d)), at], float(np.array(plan.looks)[at].mean())


def pairing(rng: np.random.Generator, count: int) -> None:
    print("\nPairing on simulated scores: variance of paired differences over unpaired, median over studies")
    for sd in (0.0, 1.0, 2.0, 4.0):
        seed = sd * rng.standard_normal((min(count, 2000), 1, 10))
        scores = seed + TRIAL_SD * rng.standard_normal((len(seed), 2, 10))
        ratio = np.median([variance_ratio(a, b) for a, b in scores])
        print(f"  seed sd {sd} beside a trial's {TRIAL_SD}: {ratio:.2f} (expected {1 / (1 + sd**2):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates, coverage and savings on simulated studies.")
    parser.add_argument("--studies", type=int, default=20_000, help="simulated studies a figure")
    count = parser.parse_args().studies
    rng = np.random.default_rng(2024)
    equal_arms(rng, count)
    coverage(rng, count)
    fewer(rng, count)
    pairing(rng, count)


if __name__ == "__main__":
    main()
