"""An Optuna study in memory that is recorded as plain JSON and restored, trial by trial.

Some samplers keep a state of their own in the study: CMA-ES its optimizer, as a pickle, and NSGA-II the
parents of a generation. `attrs` returns that state with a trial as plain JSON, and `place` restores it. Only
pickles that this process has made are read.
"""

from __future__ import annotations

import base64
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from cmaes import CMA  # exported without saying so
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from raykd.spec.samplers import SamplerSpec

_STUDY = "study"  # key of a trial's attributes: what the sampler wrote into the study while it proposed
_CMA = "cma:optimizer:"  # Optuna's name for the pieces of a pickled optimizer
_CMA_STATE = "cma:state"  # raykd's name for the optimizer as plain JSON
_CONSTRAINT = "constraints:"  # Optuna's name for a constraint's value
_PICKLED = ":optimizer"  # is in the name of everything that Optuna would unpickle, of CMA-ES and its variants

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_sampler(spec: SamplerSpec, number: int, earlier: Sequence[FrozenTrial] = ()) -> BaseSampler:
    """The sampler for one proposal, seeded by the spec's seed and the proposal's number.

    `earlier` are the trials of other sweeps that the study begins with.
    """
    seed = int(np.random.SeedSequence((spec.seed, number)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return spec.make_after(seed, earlier) if earlier else spec.make(seed)


class End(NamedTuple):
    """How a trial ended. `scores` (epoch -> score) are Optuna's intermediate values."""

    state: TrialState  # COMPLETE, PRUNED or FAIL
    scores: Mapping[int, float] = {}
    value: float | None = None  # of a PRUNED trial the last score, if it has one
    sizes: tuple[float, ...] = ()  # of a COMPLETE trial of several objectives, less is better
    over: Mapping[str, float] = {}  # constraint -> by how much it was violated, above 0


class StudyState:
    """A study that maximises a score, and minimises so many `sizes`.

    A trial is identified by its number, which counts from 0.
    """

    def __init__(self, sizes: int = 0) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * sizes]
        self.study = optuna.create_study(storage=self._storage, directions=directions)
        self._with_study: dict[int, dict[str, Any]] = {}
        self._size = 0  # Optuna's own count copies the list of trials

    @property
    def size(self) -> int:
        """How many trials there are, and so the number of the next one."""
        return self._size

    def ask(
        self, sampler: BaseSampler, given: Mapping[str, Any], suggest: Callable[[Trial], dict[str, Any]]
    ) -> dict[str, Any]:
        """The values of a new running trial: those in `given`, the others as `sampler` proposes them.

        `suggest` draws them from Optuna's trial.
        """
        self.study.sampler = sampler
        before = self._study_attrs()
        if given:
            self.study.enqueue_trial(dict(given))
        trial = self.study.ask()
        self._size += 1
        params = suggest(trial)
        changed = {key: value for key, value in self._study_attrs().items() if before.get(key) != value}
        self._with_study[trial.number] = changed
        return params

    def place(
        self,
        values: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attrs: Mapping[str, Any] | None = None,
        end: End | None = None,
    ) -> int:
        """Add a trial with these values, without a sampler; it runs, or has ended so. Returns its number."""
        attrs = attrs or {}
        for key, value in _without_pickles(attrs.get(_STUDY, {})).items():
            self._storage.set_study_system_attr(self.study._study_id, key, value)
        system = _without_pickles({k: v for k, v in attrs.items() if k not in (_STUDY, _CMA_STATE)})
        if _CMA_STATE in attrs:
            system[_CMA + "0"] = pickle.dumps(_cma_from_json(attrs[_CMA_STATE])).hex()
        system |= {} if end is None else _violations(end)
        number, self._size = self._size, self._size + 1
        self._with_study[number] = dict(attrs.get(_STUDY, {}))
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING if end is None else end.state,
                values=None if end is None or end.value is None else (end.value, *end.sizes),
                intermediate_values={} if end is None else dict(end.scores),
                params=dict(values),
                distributions=dict(distributions),
                system_attrs=system,
            )
        )
        return number

    def attrs(self, number: int) -> dict[str, Any]:
        """What the sampler recorded while it proposed this trial, as plain JSON."""
        system = self._storage.get_trial(self._id(number)).system_attrs
        plain = {key: value for key, value in system.items() if not key.startswith(_CMA)}
        pieces = [system[key] for key in sorted(system, key=_piece) if key.startswith(_CMA)]
        if pieces:
            plain[_CMA_STATE] = _cma_to_json(pickle.loads(bytes.fromhex("".join(pieces))))
        if self._with_study.get(number):
            plain[_STUDY] = self._with_study[number]
        return plain

    def tell(self, number: int, end: End) -> None:
        """End a running trial."""
        for key, violation in _violations(end).items():
            self._storage.set_trial_system_attr(self._id(number), key, violation)
        for epoch, score in end.scores.items():
            self._storage.set_trial_intermediate_value(self._id(number), epoch, score)
        values = (end.value or 0.0, *end.sizes) if end.state == TrialState.COMPLETE else None
        self.study.tell(number, values, end.state)

    def running(self) -> list[int]:
        """Numbers of the trials that have not ended."""
        return [t.number for t in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _study_attrs(self) -> dict[str, Any]:
        return dict(self._storage.get_study_system_attrs(self.study._study_id))


def _violations(end: End) -> dict[str, float]:
    """The system attributes by which Optuna knows a trial's constraints."""
    return {f"{_CONSTRAINT}{name}": violation for name, violation in end.over.items()}


def _without_pickles(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that Optuna does not unpickle: somebody else may have written the ledger."""
    return {key: value for key, value in attrs.items() if _PICKLED not in key}


def _piece(key: str) -> int:
    """The position of a piece of the pickled optimizer; -1 for other keys."""
    return int(key.removeprefix(_CMA)) if key.startswith(_CMA) else -1


def _cma_to_json(optimizer: CMA) -> dict[str, Any]:
    """The state of a CMA-ES optimizer. Arrays are recorded as their bytes, which loses no bit."""
    return {name: _to_json(value) for name, value in optimizer.__getstate__().items()}


def _cma_from_json(state: Mapping[str, Any]) -> CMA:
    optimizer = CMA.__new__(CMA)
    optimizer.__setstate__({name: _from_json(value) for name, value in state.items()})
    return optimizer


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value, dtype=np.float64)
        scalar = isinstance(value, np.generic)
        return {"bytes": base64.b64encode(array.tobytes()).decode(), "shape": array.shape, "scalar": scalar}
    return value


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    flat = np.frombuffer(base64.b64decode(value["bytes"]), dtype=np.float64)
    array = flat.reshape(value["shape"]).copy()
    return array[()] if value["scalar"] else array
