"""Samplers: each makes one of Optuna's with its own settings, and one that makes none cannot exist."""

from __future__ import annotations

from typing import Literal

import pytest

from raykd.searching.optuna_state import make_sampler
from raykd.spec.samplers import SAMPLERS, SamplerSpec, parse_sampler

OPTUNAS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
    "grid": "RandomSampler",  # for what a point leaves open; the proposer visits the grid itself
}


def test_each_sampler_makes_its_own() -> None:
    assert OPTUNAS.keys() <= SAMPLERS.keys()
    for name, made in OPTUNAS.items():
        kinds = type(make_sampler(parse_sampler({"name": name}), 3)).__mro__  # TPE's is one of raykd's
        assert made in [kind.__name__ for kind in kinds]


def test_a_sampler_that_makes_none_is_no_random_search() -> None:
    class Lacking(SamplerSpec):
        name: Literal["lacking"] = "lacking"

    with pytest.raises(TypeError, match=r"abstract method '?make"):
        Lacking()  # type: ignore[abstract]
