"""One trial of a sweep: its settings, its scores, its student."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.api.session import manners
from raykd.records.history import History, TrialRecord
from raykd.storage.base import SweepFolder

if TYPE_CHECKING:
    from trainables.networks.backbones import Backbone


class Trial:
    """A trial as it stood when it was asked for. `Sweep.best()` and `Sweep.trial(name)` give one."""

    def __init__(self, record: TrialRecord, history: History, folder: SweepFolder) -> None:
        self._record, self._history, self._folder = record, history, folder

    @property
    def name(self) -> str:
        """8 hex digits of the hash of all that defines its result."""
        return self._record.trial

    @property
    def status(self) -> str:
        """waiting | running | finished | stopped | failed; running also if its driver was killed."""
        return self._record.status

    @property
    def score(self) -> float:
        """The best score of all epochs, on the probe's scale (percent); NaN before the first one."""
        return self._record.best[0] if self._record.best else math.nan

    @property
    def score_se(self) -> float:
        """The standard error of `score`, in the same unit; NaN where the probe has none."""
        return self.metrics.get("score_se", math.nan)

    @property
    def epoch(self) -> int:
        """The epoch of `score`, counted from 1; 0 before the first score."""
        return self._record.best[1] if self._record.best else 0

    @property
    def parameter_count(self) -> int | None:
        """Parameters of its student, as it is exported: without a classifier. None in older ledgers."""
        return self._count("params")

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of its student's forward pass of one image; None in ledgers of earlier versions."""
        return self._count("macs")

    @property
    def latency_ms(self) -> float | None:
        """The median time of its student's forward pass, milliseconds; None where it was not measured."""
        return self._record.size.get("latency")

    @property
    def seed(self) -> int:
        """The replicate: trials with equal settings differ in it."""
        return self._record.replicate

    @property
    def params(self) -> dict[str, Any]:
        """The searched settings, axis -> value; of a study `{"arm": label}`."""
        return dict(self._record.params)

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics of the epoch of `score`; empty before the first score."""
        return dict(self._record.reports.get(self.epoch, {}))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The trial as a sweep of its own, complete: `raykd.search(trial.config)` repeats it.

        It is what `export` writes to config.yaml. Raises `UserError` for a trial of another version of raykd
        whose settings mean something else today.
        """
        with manners():
            from raykd.export.trial import chosen, config_of
            from raykd.records.recorded_spec import check_settings, spec_of

            spec = spec_of(self._history)
            check_settings(spec, self._history)
            return config_of(spec, chosen(spec, self._history, self.name)[1])

    def student(self) -> Backbone:
        """The student of the epoch of `score`: an `nn.Module` in eval mode on the CPU.

        `student(images)` gives features (B, `student.feature_dim`), float32, of images (B, 3, H, W): RGB from
        0 to 1, less ImageNet's mean (0.485, 0.456, 0.406), divided by its deviation (0.229, 0.224, 0.225).
        The side is `config["data"]["image_size"]`; the search resized the shorter side to that plus
        `config["data"]["margin"]`, bilinearly, and took the centre, or `crop_share` of it resized.
        Raises `UserError` for a trial that has left no student.
        """
        with manners():
            from raykd.export.student import open_student
            from raykd.export.trial import chosen, weights_of
            from raykd.records.recorded_spec import spec_of

            settings = chosen(spec_of(self._history), self._history, self.name)[1]
            return open_student(settings, weights_of(self._record, self._folder), self._folder)[0]

    def export(
        self, out: str | Path, *, formats: str | Iterable[str] = (), licence: str | None = None
    ) -> Path:
        """Write config, command, student and model card into the new folder `out`; see `Sweep.export`."""
        with manners():
            from raykd.export.trial import export

            return export(self._folder, self.name, Path(out).expanduser(), formats, licence)

    def _count(self, name: str) -> int | None:
        return int(self._record.size[name]) if name in self._record.size else None

    def __repr__(self) -> str:
        score = f"{self.score:.2f} at epoch {self.epoch}" if self.epoch else "no score yet"
        return f"<trial {self.name}: {self.status}, {score}>"
