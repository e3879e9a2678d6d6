"""When to stop adding replicates, and what may be claimed then, with an error rate that holds for all looks.

`decide` goes on until the sign of a difference is known, `settle` until its interval is short enough. Both
are pure functions of the differences so far. So a resumed study gets the same answer, and trials that were
running when an arm stopped change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from raykd.stats.boundaries import Plan, spending
from raykd.stats.paired import Interval, PairedT, paired_t

Outcome = Literal["better", "worse", "similar", "open"]
Reason = Literal["running", "sign", "margin", "precision", "futile", "exhausted"]


@dataclass(frozen=True)
class Verdict:
    """What the data support at a look, and why the arm needs no more replicates.

    `better` and `worse`: the interval leaves out zero. `similar`: it lies within the margin. `open`: neither.
    `reason` is what ended it: `running` while it goes on, `exhausted` at the plan's last look. `interval` is
    at the plan's 1 - alpha and valid at this stop. Where a study stopped on a sign, `mean` tends to lie too
    far from zero; the interval has no such bias.
    """

    outcome: Outcome
    reason: Reason
    pairs: int  # at this look; 0 before the first
    mean: float
    interval: Interval

    @property
    def stopped(self) -> bool:
        """Whether the arm gets no more replicates."""
        return self.reason != "running"


def at_looks(differences: ArrayLike, looks: Sequence[int], *, step: float = 0.0) -> PairedT:
    """The paired t test at each look: (..., replicates) -> entries (..., looks).

    A look at n takes the first n pairs that did not fail, in the order of the replicates. Where there are
    fewer, t and p are NaN.
    """
    d = np.asarray(differences, dtype=np.float64)[..., None, :]
    count, at = np.isfinite(d).cumsum(axis=-1), np.array(looks)
    test = paired_t(np.where(count <= at[:, None], d, np.nan), step=step)
    missing = test.pairs < at
    return PairedT(test.pairs, test.mean, test.sd, *(np.where(missing, np.nan, x) for x in (test.t, test.p)))


def decide(
    differences: ArrayLike, plan: Plan, *, margin: float = 0.0, futility: float = 0.0, step: float = 0.0
) -> Verdict:
    """Whether an arm is better or worse than the base, or the two differ by less than `margin` points.

    differences (replicates,) in points, arm minus base; a failed pair (NaN) is left out, the looks count
    pairs. Stops at the first look at which

    - the interval leaves out zero: `better` or `worse`, in error in at most alpha of all studies;
    - it lies inside (-margin, margin): `similar`, likewise. A margin of 0 never says so;
    - the last look is reached: `open`;
    - the chance of any of these answers at the last look is below `futility` (`chance_of_answer`): `open`.
      This stop claims nothing, so that it uses no part of alpha and may be ignored.

    `step` is the resolution of the scores, see `paired_t`.
    """
    verdict = _BEFORE_THE_FIRST
    for verdict, sd, last in _looks(differences, plan, step):
        interval = verdict.interval
        if verdict.outcome != "open":
            return replace(verdict, reason="sign")
        if -margin < interval.low and interval.high < margin:
            return replace(verdict, outcome="similar", reason="margin")
        if last:
            return replace(verdict, reason="exhausted")
        if futility > 0 and chance_of_answer(verdict.mean, sd, verdict.pairs, plan, margin) < futility:
            return replace(verdict, reason="futile")
    return verdict


def settle(
    differences: ArrayLike, plan: Plan, half_width: float, *, margin: float = 0.0, step: float = 0.0
) -> Verdict:
    """The difference to within `half_width` points: stops at the first look whose interval is that short.

    differences (replicates,) in points, arm minus base. The plan is one of `for_precision`. The mean has no
    influence on when it stops. `better`, `worse` and `similar` (inside (-margin, margin)) follow from the
    interval at the end.
    """
    verdict = _BEFORE_THE_FIRST
    for verdict, _, last in _looks(differences, plan, step):
        interval = verdict.interval
        short = interval.half_width <= half_width
        if short or last:
            similar = verdict.outcome == "open" and -margin < interval.low and interval.high < margin
            outcome: Outcome = "similar" if similar else verdict.outcome
            return replace(verdict, outcome=outcome, reason="precision" if short else "exhausted")
    return replace(verdict, outcome="open")


def decide_all(
    differences: ArrayLike,
    looks: Sequence[int],
    *,
    alpha: float = 0.05,
    margin: float = 0.0,
    futility: float = 0.0,
    step: float = 0.0,
) -> list[Verdict]:
    """`decide` for every arm of a study: at most alpha of all studies claim any sign that is not there.

    differences (arms, replicates) in points; an arm that was stopped has NaN from there on. This is Holm's
    step-down over group-sequential tests: an arm with a sign gives its share of alpha to the others, and the
    plan at alpha / (arms left) then decides about their looks so far. It is the closed test of weighted
    Bonferroni tests of Maurer and Bretz 2013 (section 3), valid whichever arms stopped when. The intervals
    stay those at alpha / arms, simultaneous over arms and looks. So the interval of a sign that was found by
    stepping down may hold zero.
    """
    rows = list(np.asarray(differences, dtype=np.float64))
    if not rows:
        return []
    first = spending(looks, alpha=alpha / len(rows))
    verdicts = [decide(row, first, margin=margin, futility=futility, step=step) for row in rows]
    signed = {i for i, verdict in enumerate(verdicts) if verdict.reason == "sign"}
    found = signed
    while found and len(signed) < len(rows):
        plan = spending(looks, alpha=alpha / (len(rows) - len(signed)))
        found = set()
        for i, row in enumerate(rows):
            if i in signed or verdicts[i].reason == "margin":
                continue
            again = decide(row, plan, step=step)
            if again.reason == "sign":
                at = looks.index(again.pairs)
                half = again.interval.half_width * first.critical[at] / plan.critical[at]
                verdicts[i] = replace(again, interval=_around(again.mean, half))
                found.add(i)
        signed |= found
    return verdicts


def chance_of_answer(mean: float, sd: float, pairs: int, plan: Plan, margin: float = 0.0) -> float:
    """The predictive chance that the plan's last look finds a sign, or a difference within the margin.

    Given n pairs and flat priors, the mean of all K is mean + sd sqrt((K - n) / (K n)) t_{n-1}; the sd is
    assumed to stay (Spiegelhalter, Freedman and Blackburn 1986). NaN without an sd.
    """
    last = plan.looks[-1]
    half = plan.critical[-1] * sd / math.sqrt(last)
    spread = sd * math.sqrt((last - pairs) / (last * pairs))
    if not spread > 0:
        return math.nan

    def below(x: float) -> float:
        return float(special.stdtr(pairs - 1, (x - mean) / spread))

    sign = below(-half) + 1 - below(half)
    inside = max(margin - half, 0.0)
    return sign + below(inside) - below(-inside)


_BEFORE_THE_FIRST = Verdict("open", "running", 0, math.nan, Interval(-math.inf, math.inf))


def _looks(differences: ArrayLike, plan: Plan, step: float) -> Iterator[tuple[Verdict, float, bool]]:
    """(the verdict of the look alone, the sd, whether it is the plan's last) of each look so far.

    Differences that are all equal have no t: their interval is infinite.
    """
    test = at_looks(differences, plan.looks, step=step)
    for k in range(int((test.pairs >= np.array(plan.looks)).sum())):
        mean, sd, pairs = float(test.mean[k]), float(test.sd[k]), int(test.pairs[k])
        half = plan.critical[k] * sd / math.sqrt(pairs) if math.isfinite(test.t[k]) else math.inf
        interval = _around(mean, half)
        outcome: Outcome = "better" if interval.low > 0 else "worse" if interval.high < 0 else "open"
        yield Verdict(outcome, "running", pairs, mean, interval), sd, k == len(plan.looks) - 1


def _around(mean: float, half: float) -> Interval:
    """mean +- half."""
    return Interval(mean - half, mean + half)
