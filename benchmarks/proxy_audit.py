"""How far the numbers of a proxy's audit can be trusted: simulated sweeps whose truth is known.

    python benchmarks/proxy_audit.py                  # two minutes
    python benchmarks/proxy_audit.py --sweeps 100

Trials have final scores from a normal distribution with a deviation of 5 points; at two rungs these show with
noise of 5 and of 3 points. Asynchronous halving stops the weaker half at each rung, and a share of those runs
on (`proxy: {audit: …}`). The truth is that of 400,000 trials that nobody stops. Printed for each rung and
number: the mean over sweeps with the audit's weights, the mean over the trials that finished by themselves,
and how often the 95 % interval contains the truth.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from raykd.stats.prediction import DRAWN, Prediction, prediction

NOISE = (5.0, 3.0)  # points, at each rung
CASES = ((40, 0.25), (100, 0.1), (100, 0.2), (300, 0.1), (300, 0.2))  # trials, share


def world(trials: int, dice: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """The scores of trials at the rungs and at the end."""
    final = dice.normal(70, 5, trials)
    return [final + dice.normal(0, noise, trials) for noise in NOISE], final


def truth() -> np.ndarray:
    """(rungs, 3): correlation, recall, regret of very many trials."""
    rungs, final = world(400_000, np.random.default_rng(1))
    found = []
    for early in rungs:
        high = [scores >= np.quantile(scores, 0.75) for scores in (early, final)]
        first, last = early.reshape(-1, DRAWN), final.reshape(-1, DRAWN)
        lost = last.max(axis=1) - last[np.arange(len(last)), first.argmax(axis=1)]
        found.append([stats.spearmanr(early, final)[0], (high[0] & high[1]).mean() / 0.25, lost.mean()])
    return np.array(found)


def halved(rungs: list[np.ndarray]) -> np.ndarray:
    """Which trials are stopped: those below the median of the ones before them at a rung."""
    stopped = np.zeros(rungs[0].size, dtype=bool)
    for early in rungs:
        before: list[float] = []
        for at in np.flatnonzero(~stopped):
            stopped[at] = bool(before) and early[at] < np.median(before)
            before.append(float(early[at]))
    return stopped


def numbers(found: Prediction) -> list[float]:
    return [one.value for one in (found.correlation, found.recall, found.regret)]


def simulate(trials: int, share: float, sweeps: int, true: np.ndarray) -> None:
    weighed, naive = np.zeros((2, sweeps, len(NOISE), 3))
    covered, sizes = np.zeros((len(NOISE), 3)), []
    for sweep in range(sweeps):
        dice = np.random.default_rng((trials, sweep))
        rungs, final = world(trials, dice)
        stopped = halved(rungs)
        seen = ~stopped | (dice.random(trials) < share)
        weights = np.where(stopped, 1 / share, 1.0)[seen]
        for rung, early in enumerate(rungs):
            found = prediction(early[seen], final[seen], weights, resamples=300)
            weighed[sweep, rung] = numbers(found)
            naive[sweep, rung] = numbers(prediction(early[~stopped], final[~stopped], resamples=2))
            for at, one in enumerate((found.correlation, found.recall, found.regret)):
                covered[rung, at] += one.interval.low <= true[rung, at] <= one.interval.high
        sizes.append((seen.sum(), found.effective))
    ran, effective = np.mean(sizes, axis=0)
    print(
        f"\n{trials} trials, {share:.0%} run on: {ran:.0f} ran to the end and say as much as {effective:.0f}"
    )
    for rung in range(len(NOISE)):
        for at, name in enumerate(("rank correlation", "recall", "regret")):
            print(
                f"  rung {rung + 1}, {name:16} truth {true[rung, at]:.2f}   audit "
                f"{np.nanmean(weighed[:, rung, at]):.2f}   without {np.nanmean(naive[:, rung, at]):.2f}   "
                f"interval covers {covered[rung, at] / sweeps:.0%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=500)
    sweeps = parser.parse_args().sweeps
    true = truth()
    for trials, share in CASES:
        simulate(trials, share, sweeps, true)


if __name__ == "__main__":
    main()
