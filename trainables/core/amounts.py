"""Sizes of networks as text: `4.2M` parameters, `20ms`."""

from __future__ import annotations

_UNITS = {"G": 10**9, "M": 10**6, "k": 10**3}


def magnitude(value: float) -> str:
    """A count in three digits: `4.2M`, `385M`, `1.25G`."""
    for letter, unit in _UNITS.items():
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def with_unit(name: str, value: float) -> str:
    """A size as it is written under `limits`: `4.2M` for `params` and `macs`, `20ms` for `latency`."""
    return f"{value:.3g}ms" if name == "latency" else magnitude(value)
