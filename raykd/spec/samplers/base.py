"""What a sampler offers: its settings, and Optuna's sampler that is made with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trainables.spec.trial import Seed, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class SamplerSpec(Spec, ABC):
    """What proposes configurations. The same seed and the same results give the same proposals.

    The fields are the settings under `sampler` in the sweep's file. All arguments of Optuna's sampler that
    matter are among them: Optuna's defaults change between its versions, and a sweep records its own.
    """

    learns: ClassVar[bool] = True  # from scores: such a search starts with each method's own settings

    learns_limits: ClassVar[bool] = False  # from configurations that were refused, without a score

    weighs: ClassVar[bool] = True  # several objectives against each other

    name: str
    seed: Seed = Field(0, description="seed of all proposals")

    @abstractmethod
    def make(self, seed: int) -> BaseSampler:
        """Optuna's sampler for one proposal. `seed` is drawn from the field and the proposal's number.

        Import Optuna in here: a sweep's file is read without it.
        """

    def make_after(self, seed: int, earlier: Sequence[FrozenTrial]) -> BaseSampler:
        """Optuna's sampler for one proposal of a study that begins with trials of other sweeps."""
        return self.make(seed)

    @property
    def attrs_of_earlier(self) -> dict[str, Any]:
        """What an earlier sweep's trial needs among Optuna's system attributes for this sampler to use it."""
        return {}

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings without name and seed, as Optuna's samplers take them."""
        return self.model_dump(exclude={"name", "seed"})
