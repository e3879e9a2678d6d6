"""What passes through the task broker, and the state that it keeps of each task and each lane."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from trainables.core.errors import UserError


@dataclass(frozen=True)
class Task:
    """Work for a lane."""

    id: str  # a trial's signature, or the name of a piece of preparation
    action: str  # which of the lane's actions runs it
    trials: list[dict[str, Any]]  # what it is about: TrialSpecs as plain JSON types
    folder: str  # where its files go
    attempts: int = 3  # after so many attempts in a row without a new epoch it fails
    tried: int = 0  # attempts that earlier drivers made
    # For lanes that have no other task: when another one waits, this one goes on elsewhere or later.
    background: bool = False
    # No other task is on its GPU, where so many workers are; 0: others may be. The broker sets it.
    alone: int = 0
    quiet: bool = False  # no other lane works on its node meanwhile: it measures time
    asked: dict[str, Any] = field(default_factory=dict)  # keywords of the action, as JSON types


@dataclass(frozen=True)
class Message:
    """What a task says: that a lane has begun it (`attempt`, `lane`), a report (`epoch`, `metrics`), or its
    end (`ended`; `failed` is the reason if it failed, `mistake` the error if the user's input is why)."""

    attempt: int = 0
    lane: str = ""
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    note: str = ""
    ended: bool = False
    failed: str | None = None
    mistake: UserError | None = None


@dataclass
class Box:
    """Everything about one task in progress."""

    task: Task
    lane: str | None = None
    attempt: int = 0
    heard: int = 0  # the last attempt that the driver was told of
    fruitless: int = 0  # attempts since the last new epoch
    alone_on: set[str] = field(default_factory=set)  # the GPUs on which it has to be tried alone
    trouble: str = ""  # why the last attempt ended early
    pending: Message | None = None  # a report that waits for its verdict
    verdicts: dict[int, bool] = field(default_factory=dict)
    end: Message | None = None


@dataclass
class LaneState:
    """One worker group: the ranks of its present generation, and what they do."""

    world: int
    generation: str = ""
    ranks: dict[int, str] = field(default_factory=dict)  # rank -> node id
    gpus: dict[int, str] = field(default_factory=dict)  # rank -> its GPU, by `devices.Gpu.key`
    turn: int = 0  # counts the tasks handed out
    work: Task | None = None
    waiting: set[int] = field(default_factory=set)  # ranks that ask for the next task
    closing: bool = False
    leaving: bool = False  # its task moves to another lane after the present epoch
    left: tuple[str, int] | None = None  # the task that moves, and after which epoch
    down: bool = False  # its worker group has failed, and Ray Train starts it again
    sign: float = field(default_factory=time.monotonic)  # when its task last made progress
    where: str = ""  # and what it did then
    free_since: float = field(default_factory=time.monotonic)

    @property
    def task(self) -> str | None:
        """The id of the task that it has."""
        return self.work.id if self.work is not None else None

    @property
    def warm(self) -> bool:
        """Whether all ranks are ready."""
        return len(self.ranks) == self.world and not self.down

    @property
    def idle(self) -> bool:
        """Whether it can take a task now."""
        return self.warm and self.work is None and len(self.waiting) == self.world and not self.closing
