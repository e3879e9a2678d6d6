"""Which differences a paired study of a given size can find."""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, optimize, special, stats


def paired_power(effect: float, pairs: int, alpha: float) -> float:
    """The chance that a two-sided paired t test at `alpha` rejects; `effect` is the true d_z (mean / sd).

    P(|T'| > c) for T' noncentral t with n - 1 degrees of freedom and noncentrality sqrt(n) d_z, by
    integrating over the sd: T' > c where Z + noncentrality > c S, S^2 ~ chi^2_v / v. scipy's `nct` is not
    used because it loses its precision for two or three pairs and small levels, which matter here.
    """
    v = pairs - 1
    if v < 1:
        return float("nan")
    critical, shift = float(stats.t.isf(alpha / 2, v)), math.sqrt(pairs) * effect

    def given(quantile: float) -> float:
        s = critical * math.sqrt(special.chdtri(v, 1 - quantile) / v)
        return float(special.ndtr(shift - s) + special.ndtr(-shift - s))

    value, _ = integrate.quad(given, 0.0, 1.0, epsabs=1e-9, limit=200)
    return float(value)


def detectable_difference(sd: float, pairs: int, alpha: float, *, power: float = 0.8) -> float:
    """The smallest true mean difference, in the unit of `sd`, that such a study finds with this power.

    sd is that of the paired differences. The result says how large a true difference the study may have
    missed. It says nothing about the difference that was observed. NaN below two pairs or without an sd.
    """
    if pairs < 2 or not np.isfinite(sd):
        return float("nan")
    top = 1.0
    while paired_power(top, pairs, alpha) < power:
        top *= 2
    return sd * float(optimize.brentq(lambda d: paired_power(d, pairs, alpha) - power, 0.0, top, xtol=1e-6))
