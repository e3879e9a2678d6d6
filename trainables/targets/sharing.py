"""The answers of one trial's teacher during training: taken where they are ready, else computed and kept.

    shared = SharedTargets(store, series, ids_of, answers_to, last_epoch)
    with shared.epoch(3) as targets:
        for each micro-batch:
            known = targets.take()          # ready answers
            ...                             # `Method.taught` adds those that it had to compute
            targets.give(known)

An epoch is cut into shards of equally many micro-batches. A process that comes to a shard which is not ready
takes its lock and computes the answers while it trains, so that a process alone makes no pass more than
without a store. If another process has the lock, it computes a later shard ahead meanwhile, and looks again.
Nobody waits while holding a lock. So all processes that train at the same epoch share the teacher's work,
and a lock that a killed process held is free at once.

In a group of workers the first one takes the locks for all, each worker has files of its own, and a shard is
ready where every worker has read its own. Workers come here together: these functions have collectives.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from trainables.core.file_lock import FileLock
from trainables.core.heartbeat import heartbeat
from trainables.core.workers import from_each, from_first, rank, world_size
from trainables.targets.series import Series
from trainables.targets.store import Place, TargetStore
from trainables.teachers.teacher import Ask

Answers: TypeAlias = dict[Ask, Tensor]  # each (B, D)
Locks: TypeAlias = dict[Place, FileLock]  # that this process has; empty on all workers but the first
_SHARDS = 16  # of an epoch, so that several processes find work
_IMAGES = (512, 8192)  # of a shard, at least and at most: a file's cost is small, a shard takes seconds
_POLL_S = (0.01, 0.25)  # the first and the longest pause between looks at another process's work
_LONGEST_WAIT_S = 120.0  # the longest wait for another process, which may hang, before the work is done twice


def shard_length(passes: int, images: int) -> int:
    """Micro-batches of a shard, where an epoch has `passes` of `images` images each on this worker."""
    least, most = (max(1, bound // images) for bound in _IMAGES)
    return max(least, min(most, -(-passes // _SHARDS)))


class SharedTargets:
    """What a trial's method asks its teacher, and where the answers are kept.

    `ids_of(epoch)` gives the ids of each of this worker's micro-batches; `answers_to(epoch, ids, asks)` asks
    the teacher about a micro-batch, as training would. No answer is needed after `last_epoch`. Ready answers
    are put on `device`.
    """

    def __init__(
        self,
        store: TargetStore,
        series: Mapping[Ask, Series],
        ids_of: Callable[[int], Sequence[np.ndarray]],
        answers_to: Callable[[int, np.ndarray, frozenset[Ask]], Answers],
        last_epoch: int,
        device: torch.device,
    ) -> None:
        self.store, self.series = store, series
        self.ids_of, self.answers_to = ids_of, answers_to
        self.last_epoch, self.device = last_epoch, device

    @contextlib.contextmanager
    def epoch(self, number: int) -> Iterator[EpochTargets]:
        """The answers of an epoch, for its micro-batches in order."""
        targets = EpochTargets(self, number)
        try:
            yield targets
            targets.finish()
        finally:
            targets.close()


class EpochTargets:
    """See the head of this file."""

    def __init__(self, shared: SharedTargets, epoch: int) -> None:
        self._shared, self._store, self._number = shared, shared.store, epoch
        self._epochs = {epoch: shared.ids_of(epoch)}  # number -> ids of each micro-batch
        self._length = shard_length(len(self._epochs[epoch]), len(self._epochs[epoch][0]))
        self._next = 0  # the micro-batch that comes next
        self._ready: Answers = {}  # of the present shard, (N, D) on the device
        self._made: dict[Ask, list[Tensor]] = {}  # of the present shard, for its file
        self._locks: Locks = {}  # of the present shard
        self._writer: threading.Thread | None = None

    def take(self) -> Answers:
        """The ready answers to the next micro-batch, new tensors on the device."""
        shard, at = divmod(self._next, self._length)
        if at == 0:
            self._open(shard)
        images = len(self._ids(self._number)[self._next])
        rows = slice(at * images, (at + 1) * images)
        # Copies, aligned like the tensors that a network returns.
        return {ask: ready[rows].clone() for ask, ready in self._ready.items()}

    def give(self, answers: Mapping[Ask, Tensor]) -> None:
        """Keep those answers to this micro-batch that were not ready."""
        for ask in [ask for ask in self._made if ask not in answers]:  # the method did not ask it after all
            del self._made[ask]
        for ask, made in self._made.items():
            made.append(answers[ask].detach())
        self._next += 1
        if self._next % self._length == 0 or self._next == len(self._ids(self._number)):
            self._close_shard((self._next - 1) // self._length)

    def finish(self) -> None:
        """Wait until the last file of the epoch is written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def close(self) -> None:
        """Give up what was not finished."""
        self.finish()
        self._release(self._locks)
        self._made.clear()
        self._ready.clear()

    # --- one shard ----------------------------------------------------------------------------------------

    def _open(self, shard: int) -> None:
        """Read a shard; what is not there will be computed here, or another process is computing it."""
        wanted = frozenset(self._shared.series)
        self._ready, self._made = {}, {}
        pause, waited = _POLL_S[0], 0.0
        for series in self._shared.series.values():
            self._store.used(series)
        while True:
            self._read(shard, wanted - self._ready.keys())
            missing = wanted - self._ready.keys()
            if not missing:
                return
            late = waited > _LONGEST_WAIT_S
            turn = from_first(lambda: self._turn(shard, missing, late))  # noqa: B023
            if turn == "mine":
                self._read(shard, missing)  # another process may have finished before the lock was taken
                self._made = {ask: [] for ask in missing - self._ready.keys()}
                needed = {self._place(ask, self._number, shard) for ask in self._made}
                self._release(self._locks, but=needed)
            if turn != "another's":
                return
            if not self._ahead(shard):
                heartbeat(f"epoch {self._number}: waiting for the teacher's answers of another process")
                time.sleep(pause)
                waited += pause
                pause = min(2 * pause, _POLL_S[1])

    def _turn(self, shard: int, missing: frozenset[Ask], late: bool) -> Literal["mine", "alone", "another's"]:
        """Whose the work is: mine, to keep for others, with the locks; alone: mine, and not kept."""
        if late or not self._admitted(self._number, shard, missing):
            return "alone"
        locks = self._take_locks(self._number, shard, missing)
        if locks is None:
            return "alone" if self._store.broken else "another's"
        self._locks = locks
        return "mine"

    def _read(self, shard: int, asks: frozenset[Ask]) -> None:
        """Read those answers that every worker finds."""
        ids = self._shard_ids(self._number, shard)
        found = {}
        for ask in sorted(asks):
            rows = self._store.get(self._place(ask, self._number, shard), ids)
            if rows is not None:
                found[ask] = rows
        everywhere = set.intersection(*from_each(set(found)))
        where = self._shared.device
        self._ready |= {ask: rows.to(where) for ask, rows in found.items() if ask in everywhere}

    def _close_shard(self, shard: int) -> None:
        self.finish()  # of the file before
        # One copy from the device a shard. On a GPU it waits for the steps so far.
        rows = {ask: torch.cat(parts).cpu() for ask, parts in self._made.items()}
        locks, self._locks = self._locks, {}
        self._ready, self._made = {}, {}
        if not rows:
            return self._release(locks)
        if world_size() > 1:  # the lock is held until all have written
            self._write(self._number, shard, rows)
            from_each(None)
            return self._release(locks)

        def write() -> None:
            try:
                self._write(self._number, shard, rows)
            finally:
                self._release(locks)

        self._writer = threading.Thread(target=write, name="targets", daemon=True)
        self._writer.start()

    def _write(self, epoch: int, shard: int, rows: Mapping[Ask, Tensor]) -> None:
        for ask, found in rows.items():
            self._store.put(self._place(ask, epoch, shard), self._shard_ids(epoch, shard), found)

    # --- a later shard ------------------------------------------------------------------------------------

    def _ahead(self, shard: int) -> bool:
        """Compute a later shard of this epoch or the next that nobody has begun. False: there is none."""
        locks: Locks = {}
        found = from_first(lambda: self._unbegun(shard, locks))
        if found is None:
            return False
        epoch, later, asks = found
        try:
            passes = self._ids(epoch)[later * self._length : (later + 1) * self._length]
            made: dict[Ask, list[Tensor]] = {ask: [] for ask in asks}
            for done, ids in enumerate(passes):
                heartbeat(f"epoch {epoch}: the teacher's answers ahead, {done + 1}/{len(passes)}")
                for ask, answer in self._shared.answers_to(epoch, ids, asks).items():
                    made[ask].append(answer)
            self._write(epoch, later, {ask: torch.cat(parts).cpu() for ask, parts in made.items()})
            from_each(None)
        finally:
            self._release(locks)
        return True

    def _unbegun(self, shard: int, locks: Locks) -> tuple[int, int, frozenset[Ask]] | None:
        """(epoch, shard, asks) of the next one to compute ahead; its locks are taken."""
        count = -(-len(self._ids(self._number)) // self._length)
        places = [(self._number, later) for later in range(shard + 1, count)]
        if self._number < self._shared.last_epoch:
            places += [(self._number + 1, later) for later in range(count)]
        for epoch, later in places:
            asks = self._absent(epoch, later)
            if not asks or not self._admitted(epoch, later, asks):
                continue
            taken = self._take_locks(epoch, later, asks)
            if taken is None:
                continue
            if self._absent(epoch, later) == asks:
                locks.update(taken)
                return epoch, later, asks
            self._release(taken)
        return None

    def _absent(self, epoch: int, shard: int) -> frozenset[Ask]:
        every = self._shared.series
        return frozenset(ask for ask in every if not self._store.has(self._place(ask, epoch, shard)))

    # --- parts of both ------------------------------------------------------------------------------------

    def _take_locks(self, epoch: int, shard: int, asks: frozenset[Ask]) -> Locks | None:
        """All locks or none: whoever waits for one must hold no other."""
        taken: Locks = {}
        for place in (self._place(ask, epoch, shard) for ask in sorted(asks)):
            lock = self._store.lock(place)
            if lock is None:
                self._release(taken)
                return None
            taken[place] = lock
        return taken

    def _release(self, locks: Locks, but: Collection[Place] = ()) -> None:
        for place in [place for place in locks if place not in but]:
            self._store.release(place, locks.pop(place))

    def _admitted(self, epoch: int, shard: int, asks: frozenset[Ask]) -> bool:
        images = len(self._shard_ids(epoch, shard))
        size = sum(images * (4 * self._shared.series[ask].width + 8) for ask in asks)
        return self._store.admits(epoch, size)

    def _place(self, ask: Ask, epoch: int, shard: int) -> Place:
        return Place(self._shared.series[ask], epoch, shard, rank())

    def _ids(self, epoch: int) -> Sequence[np.ndarray]:
        if epoch not in self._epochs:
            self._epochs[epoch] = self._shared.ids_of(epoch)
        return self._epochs[epoch]

    def _shard_ids(self, epoch: int, shard: int) -> np.ndarray:
        return np.concatenate(self._ids(epoch)[shard * self._length : (shard + 1) * self._length])
