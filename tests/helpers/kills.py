"""Killing parts of a live sweep: its driver, and what descends from it, found by a mark they inherit."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from command import command
from invariants import MARK, processes

from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger

# What a process is called that is this part of a sweep.
TITLES = {
    "worker": "ray::RayTrainWorker",
    "controller": "ray::TrainController",
    "proxy": "ray::TrialProxy",
    "broker": "ray::TaskBroker",
    "raylet": "raylet/raylet",
}


class Sweep:
    """A sweep or study whose driver may be started and killed any number of times."""

    def __init__(self, storage: Path, name: str, text: str, verb: str = "run") -> None:
        self.storage, self.name, self.verb = storage, name, verb
        self.folder, self.out = storage / name, storage / f"{name}.txt"
        self.mark = f"{os.getpid()}-{storage.name}-{name}"
        self.spec = storage / f"{name}.yaml"
        self.spec.write_text(text)
        self.driver: subprocess.Popen[Any] | None = None
        self._history: tuple[int, History] = (-1, History())

    def go_on(self) -> subprocess.Popen[Any]:
        """Start the driver: of a new sweep, or of this one once more."""
        begun = (self.folder / LEDGER).exists() and bool(Ledger.read(self.folder))
        words = ["resume", self.name] if begun else [self.verb, str(self.spec)]
        with self.out.open("ab") as out:
            self.driver = subprocess.Popen(
                command(*words, "--storage", self.storage),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: self.mark},
            )
        return self.driver

    @property
    def history(self) -> History:
        """What its ledger says now."""
        path = self.folder / LEDGER
        size = path.stat().st_size if path.exists() else 0
        if size != self._history[0]:
            self._history = (size, History.of(Ledger.read(self.folder)) if size else History())
        return self._history[1]

    def alive(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def kill(self) -> None:
        """SIGKILL the driver."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()

    def parts(self, kind: str) -> list[psutil.Process]:
        """The live processes of this sweep that are of a kind."""
        found = []
        for process in processes(self.mark):
            try:
                if TITLES[kind] in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill_parts(self, kind: str) -> int:
        """SIGKILL all of a kind; how many there were."""
        found = self.parts(kind)
        for process in found:
            process.kill()
        return len(found)

    def text(self) -> str:
        """All that its drivers have printed."""
        return self.out.read_text() if self.out.exists() else ""

    def wait(self, condition: Any, seconds: float = 300) -> bool:
        """Until `condition(history)` holds; False if the driver has ended before."""
        deadline = time.monotonic() + seconds
        while not condition(self.history):
            if not self.alive():
                return bool(condition(self.history))
            assert time.monotonic() < deadline, f"waited {seconds} s in vain: {self.text()[-3000:]}"
            time.sleep(0.01)
        return True
