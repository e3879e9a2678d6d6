"""The statistics of a study: pure functions over arrays of scores, taken from scipy where it has them.

Scores are points, and higher is better. A failed trial is NaN: it is left out, and counted.
"""

from raykd.stats.bootstrap import bootstrap
from raykd.stats.boundaries import Plan, for_precision, spending
from raykd.stats.comparison import Comparison, compare_to_base, holm
from raykd.stats.designs import fractional_factorial, full_factorial
from raykd.stats.effects import FactorialResult, factorial_effects
from raykd.stats.improvement import probability_of_improvement
from raykd.stats.paired import (
    Interval,
    interquartile_mean,
    paired_t,
    standardised_difference,
    variance_ratio,
)
from raykd.stats.power import detectable_difference, paired_power
from raykd.stats.ranks import Ranking, rank
from raykd.stats.sequential import Verdict, at_looks, chance_of_answer, decide, decide_all, settle

__all__ = [
    "Comparison",
    "FactorialResult",
    "Interval",
    "Plan",
    "Ranking",
    "Verdict",
    "at_looks",
    "bootstrap",
    "chance_of_answer",
    "compare_to_base",
    "decide",
    "decide_all",
    "detectable_difference",
    "factorial_effects",
    "for_precision",
    "fractional_factorial",
    "full_factorial",
    "holm",
    "interquartile_mean",
    "paired_power",
    "paired_t",
    "probability_of_improvement",
    "rank",
    "settle",
    "spending",
    "standardised_difference",
    "variance_ratio",
]
