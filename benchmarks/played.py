"""A sweep that is played without training, for `scale.py`.

The real proposer (TPE), decider (ASHA), ledger, recorder, tables, TensorBoard files and dashboard study.
Lanes answer at once, with curves that follow from the trials' names. Works with older checkouts, too.
"""

from __future__ import annotations

import os
import queue
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EPOCHS = 50
LANES = 64
NAME = "scale"
AXES = {
    "lr": {"log": [1e-4, 1e-1]},
    "temperature": {"log": [0.05, 0.5]},
    "momentum": {"uniform": [0.9, 0.999]},
    "queue_size": [256, 512, 1024],
    "optimizer": ["sgd", "adamw"],
    "sgd_momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
    "weight_decay": {"log": [1e-6, 1e-2]},
    "views.strength": {"uniform": [0.25, 1]},
}


def spec_of(trials: int, scheduler: str = "asha", lanes: int = 1) -> Any:
    """A search with eight axes, one of them conditional."""
    from raykd.spec.search import build_sweep

    return build_sweep(
        {
            "name": NAME,
            "method": "moco",
            "preset": "digits",
            "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
            "data": {"name": "digits", "image_size": 16},
            "epochs": EPOCHS,
            "samples": trials,
            "axes": AXES,
            "sampler": "tpe",
            "scheduler": {"name": scheduler},
            "lanes": lanes,
            "references": [],
        }
    )


def metrics_of(trial: str, epoch: int) -> dict[str, float]:
    """What a trial reports of an epoch: as many numbers as a real one, the same whenever it is asked for."""
    draw = random.Random(f"{trial} {epoch}").gauss
    score = draw(70 + 0.3 * epoch + 10 * random.Random(trial).random(), 1)
    return {
        "score": score, "score_se": 0.3, "probe/ridge_5shot": score, "probe/knn": score - 2,
        "loss/total": 1 / epoch, "loss/contrastive": 1 / epoch, "lr": 1e-3, "images_per_s": 900.0,
    }  # fmt: skip


class Broker:
    """In place of the task broker: notes which verdicts were delivered."""

    def __init__(self) -> None:
        self.delivered: queue.Queue[tuple[str, bool]] = queue.Queue()
        self.deliver = SimpleNamespace(remote=lambda name, epoch, go: self.delivered.put((name, go)))
        self.heard = self.forget = SimpleNamespace(remote=lambda *_: None)


class Play:
    """A driver's part in a sweep, as `raykd.runs.sweep` has it, with lanes that answer at once."""

    def __init__(self, ledger: Any, spec: Any, place: Any) -> None:
        from raykd.records.history import History
        from raykd.records.recorder import Recorder

        self.spec, self.place, self.broker = spec, place, Broker()
        self.history = History.of(ledger.records)
        self.record = Recorder(ledger, self.history)

    def begin(self, ready: Any = None) -> None:
        """Bring views, sampler and scheduler to where the ledger says they are, if they are not `ready`."""
        from raykd.runs.drive import replayed
        from raykd.searching.decisions import TuneDecider

        if self.history.sweep is None:
            head: dict[str, Any] = {"sampler": {}, "scheduler": {}, "versions": {}, "source": None}
            dumped = self.spec.model_dump(mode="json")
            self.record("sweep", spec=dumped, spec_hash=self.spec.hash(), **head)
        self.record.listeners += views_of(self.spec, self.history, self.place.path)
        self.proposer, decider, *undecided = ready or replayed(self.spec, self.history)
        self.decider = TuneDecider(decider, self.record, self.proposer, self.broker, self.spec.epochs)
        self.decider.catch_up(*undecided)

    def propose(self) -> str | None:
        """The next trial's name, recorded; None if there is none."""
        from raykd.searching.proposer import Proposal, Repeat

        while isinstance(found := self.proposer.propose(), Repeat):
            self.record("repeat", **found.record())
        if not isinstance(found, Proposal):
            return None
        self.record("suggest", **found.record())
        return found.trial

    def hear(self, name: str, **said: Any) -> None:
        """What a proxy relays to the driver."""
        from raykd.lanes.messages import Message
        from raykd.lanes.proxy import pack

        trial = SimpleNamespace(config={"task": {"id": name}})
        self.decider.on_trial_result(None, trial, pack(Message(**said)))

    def run(self, lanes: int, on_end: Callable[[int], None], until: float = float("inf")) -> int:
        """Play `lanes` trials at once, to the end or `until` (monotonic seconds). Returns its reports."""
        epochs: dict[str, int] = {}
        ended = reports = 0
        while time.monotonic() < until:
            while len(epochs) < lanes and (name := self.propose()):
                self.hear(name, attempt=1, lane=f"lane-{len(epochs)}")
                epochs[name] = 1
                self.hear(name, epoch=1, metrics=metrics_of(name, 1))
            if not epochs:
                break
            name, go = self.broker.delivered.get(timeout=60)
            reports += 1
            if go:
                epochs[name] += 1
                self.hear(name, epoch=epochs[name], metrics=metrics_of(name, epochs[name]))
            else:
                del epochs[name]
                ended += 1
                on_end(ended)
        return reports


def views_of(spec: Any, history: Any, folder: Path) -> list[Any]:
    """The listeners of a driver, its console's lines hidden."""
    from rich.console import Console as Rich

    from raykd.console.live import Console
    from raykd.runs import sweep

    console = Console(Rich(file=Path(os.devnull).open("w")))  # noqa: SIM115
    views = list(sweep._views(spec, history, folder))
    if hasattr(sweep, "_Every"):  # trees before the tables had a thread of their own
        from raykd.records.tables import write_tables

        views.append(sweep._Every(5.0, lambda: write_tables(history, folder)))
    else:
        from raykd.records.tables import LiveTables

        views.append(LiveTables(folder))
    return [console, *views]


def fifths(times: list[float]) -> list[float]:
    """Mean ms between the events in each fifth; `times` begins with the start."""
    count = (len(times) - 1) // 5
    return [1e3 * (times[(k + 1) * count] - times[k * count]) / count for k in range(5)]
