"""Independent random configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from raykd.spec.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Random(SamplerSpec):
    """Independent random configurations."""

    learns: ClassVar[bool] = False

    name: Literal["random"] = "random"

    def make(self, seed: int) -> BaseSampler:
        """Optuna's random sampler."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
