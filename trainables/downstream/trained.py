"""Tasks that train: linear evaluation of a frozen network and fine-tuning, with a small sweep of their own.

Each candidate (`lr`, and of fine-tuning `layer_decay`) is trained and scored on the validation part, with the
same seed. The best one, of equals the first, is trained anew on training and validation part; with few labels
it is kept, because it has learned from all of them. Then the test split is read once.

What became of each candidate is written to the workspace, so an interrupted task does not train it again. Of
few labels the best one may have to be: only its score was written.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from dataclasses import replace
from typing import Any, NamedTuple

from trainables.core.errors import TrialFailed
from trainables.core.files import opened, read_bytes, remove, replacing
from trainables.core.isolation import isolated
from trainables.core.precision import whole_float32
from trainables.core.storage_retry import with_retry
from trainables.core.workers import from_first, on_each, world_size
from trainables.data.data_sets import DataSet, open_data
from trainables.data.sources import find_source
from trainables.data.splits import Ids
from trainables.downstream.classifier import FineTuning, LinearFit
from trainables.downstream.fitting import Fitted, cut_to, fit
from trainables.downstream.outcome import Outcome, score_of
from trainables.downstream.parts import Parts, Tested, parts_of, tested
from trainables.downstream.subject import network_digest
from trainables.methods.base import Context
from trainables.networks.backbones import Backbone
from trainables.spec.suite_trained import FineTuneTask, TrainedTask
from trainables.spec.trial import DataSpec, TrialSpec, digest
from trainables.training.checkpoints import Checkpoints
from trainables.training.workspace import Workspace
from trainables.views.augmented import evaluation_view

LEAST = 32  # images for each worker's part of a micro-batch; with fewer the first worker trains alone
_COMPARED = "candidates.json"  # in the workspace's folder, until the task is done


class Candidate(NamedTuple):
    """Settings that are compared."""

    lr: float
    layer_decay: float | None = None  # None: of a frozen network

    @property
    def name(self) -> str:
        """Such as `lr=0.01` or `lr=0.01,layer_decay=0.75`."""
        return ",".join(f"{name}={value:g}" for name, value in self.chosen().items())

    def chosen(self) -> dict[str, float]:
        """The settings by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def candidates(task: TrainedTask) -> list[Candidate]:
    """All combinations, in the order of the lists."""
    decays = task.layer_decay if isinstance(task, FineTuneTask) else (None,)
    return [Candidate(lr, decay) for lr, decay in itertools.product(task.lr, decays)]


def trained(
    task: TrainedTask, network: Backbone, trial: TrialSpec, seed: int, workspace: Workspace
) -> Outcome:
    """The outcome of a classifier that is trained on `network`, or with a copy of it.

    The workers of a group train together; where the labels are fewer than 32 a worker, the first one trains
    alone. Raises `UserError` for data without a labelled test split and for settings that cannot work,
    `TrialFailed` if every candidate diverges.
    """
    spec = task.data_of(trial.data)
    data = on_each(lambda: open_data(spec, workspace.cache))
    test = on_each(lambda: tested(data, spec))
    parts = on_each(lambda: parts_of(task, data, spec, seed, workspace.cache))
    sweep = _Sweep(task, network, spec, data, parts, seed, workspace)
    share = world_size() * task.optim_spec(task.lr[0]).accumulate
    if len(parts.fit) < LEAST * share:
        return from_first(lambda: sweep.outcome(test))
    return sweep.outcome(test)


class _Sweep:
    """The trainings of a task."""

    def __init__(
        self,
        task: TrainedTask,
        network: Backbone,
        spec: DataSpec,
        data: DataSet,
        parts: Parts,
        seed: int,
        workspace: Workspace,
    ) -> None:
        self.task, self.network, self.spec, self.data = task, network, spec, data
        self.parts, self.seed, self.workspace = parts, seed, workspace
        self.view = evaluation_view(spec, network.inputs)
        self.metric = find_source(spec.name).metric
        self.identity = from_first(self._identity)
        self.compared = _Compared(workspace, self.identity)

    def _identity(self) -> str:
        """Of all that the candidates have in common."""
        return digest(
            {
                "task": self.task.key(self.spec),
                "network": network_digest(self.network),
                "data": self.data.fingerprint,
                "seed": self.seed,
            }
        )

    def outcome(self, test: Tested) -> Outcome:
        """Compare the candidates, train the best one, and read the test split."""
        best, fitted, compared = self._best()
        if fitted is None:
            fitted = self._fit(best, self.parts.final, "final")
        assert self.data.test is not None
        hits = fitted.right(self.data.test, test.ids, test.labels, self.view)
        from_first(self._clean)
        return Outcome(
            score_of(hits, test.labels, self.metric),
            self.metric,
            len(self.parts.final),
            len(test.ids),
            hits,
            test.ids,
            test.labels,
            best.chosen(),
            compared,
            self.parts.final if self.parts.drawn else None,
        )

    def _best(self) -> tuple[Candidate, Fitted | None, dict[str, float]]:
        """The best candidate, the classifier if it is kept, and the score of each on the validation part."""
        first, *others = candidates(self.task)
        if not others:  # nothing is chosen
            return first, None, {}
        self.parts.check_choice("lr" if len(self.task.lr) > 1 else "layer_decay")
        best, kept, compared = first, None, {}
        top, failures = -1.0, []
        for number, candidate in enumerate((first, *others)):
            fitted, score = self._tried(candidate, f"candidate-{number}")
            if isinstance(score, str):
                failures.append(f"{candidate.name}: {score}")
                continue
            compared[f"validation/{candidate.name}"] = score
            if score > top:
                top, best = score, candidate
                kept = fitted if self.parts.drawn else None
        if not compared:
            from_first(self._clean)  # whoever asks again wants another try
            raise TrialFailed(f"every candidate failed, the first one at {failures[0]}")
        return best, kept, compared

    def _tried(self, candidate: Candidate, name: str) -> tuple[Fitted | None, float | str]:
        """The score of a candidate, or why its training failed; its classifier if it was trained just now."""
        if name in self.compared.known:
            return None, self.compared.known[name]
        try:
            fitted = self._fit(candidate, self.parts.fit, name)
        except TrialFailed as error:  # on every worker alike
            self.compared.add(name, str(error))
            return None, str(error)
        score = self._validated(fitted)
        self.compared.add(name, score)
        return fitted, score

    def _validated(self, fitted: Fitted) -> float:
        labels = self.data.train.labels[self.parts.held]
        hits = fitted.right(self.data.train, self.parts.held, labels, self.view)
        return score_of(hits, labels, self.metric)

    def _fit(self, candidate: Candidate, ids: Ids, name: str) -> Fitted:
        optim = cut_to(self.task.optim_spec(candidate.lr), len(ids), world_size())
        # The checkpoints of other settings, or of another number of workers, lie elsewhere.
        settings = {"of": self.identity, **candidate.chosen(), "optim": optim.model_dump(mode="json")}
        place = replace(self.workspace, folder=self.workspace.folder / f"{name}-{digest(settings)}")
        exact = whole_float32() if optim.precision == "float32" else contextlib.nullcontext()

        def make(context: Context) -> LinearFit:
            network = copy.deepcopy(self.network)
            if not isinstance(self.task, FineTuneTask):
                return LinearFit(network, context)
            running = self.task.batch_norm == "eval"
            return FineTuning(network, context, self.task.head_lr, candidate.layer_decay or 1.0, running)

        with isolated(self.seed), exact:
            return fit(self.task, optim, make, self.data, self.spec, ids, self.seed, place)

    def _clean(self) -> None:
        """Remove what is kept for an interrupted process, also what other settings have left."""
        self.compared.discard()
        for name in ("candidate", "final"):
            for left in self.workspace.folder.glob(f"{name}-*"):
                Checkpoints(left / "checkpoints", self.workspace.transfer).discard()
                with contextlib.suppress(OSError):  # it holds files of others
                    left.rmdir()


class _Compared:
    """What became of the candidates that are done: a file for the process that goes on after this one.

    `known` has the score of each on the validation part, or why its training failed, by name. Nothing is
    taken from a file of another `identity`.
    """

    def __init__(self, workspace: Workspace, identity: str) -> None:
        self.path, self.transfer, self.identity = workspace.folder / _COMPARED, workspace.transfer, identity
        self.known: dict[str, float | str] = from_first(self._read)

    def add(self, name: str, said: float | str) -> None:
        """Note a candidate. On return the file is whole in the storage. Every worker calls this."""
        self.known[name] = said
        from_first(lambda: with_retry(self._write, f"{self.path} cannot be written"))

    def discard(self) -> None:
        """Remove the file, here and in the storage."""
        remove(self.path)
        self.transfer.remove(self.path)

    def _read(self) -> dict[str, float | str]:
        if not self.transfer.pull(self.path):
            return {}
        try:
            content: Any = json.loads(read_bytes(self.path))
        except (OSError, ValueError):  # a damaged one costs trainings, and not the task
            return {}
        if not isinstance(content, dict) or content.get("identity") != self.identity:
            return {}
        return dict(content["known"])

    def _write(self) -> None:
        with replacing(self.path) as temporary, opened(temporary, "w") as file:
            json.dump({"identity": self.identity, "known": self.known}, file)
        self.transfer.push(self.path)
