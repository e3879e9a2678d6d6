"""Fine-tuning a detector: SGD with warm-up and steps, several workers by DDP, and checkpoints on the way."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from trainables.core.errors import TrialFailed, UserError
from trainables.core.heartbeat import heartbeat
from trainables.core.isolation import rng_state, set_rng_state
from trainables.core.workers import from_each, from_first, mean_over_workers, on_each, rank, sent, world_size
from trainables.downstream.detection.annotations import Picture
from trainables.downstream.detection.batches import Drawn, Draws, Example, ahead, example
from trainables.downstream.detection.detectors import Detector
from trainables.spec.suite_detection import DetectionTask
from trainables.training.checkpoints import Checkpoints

_WARMUP_FROM = 1e-3  # of the learning rate
_DROP = 0.1
_CHECKPOINT_EVERY = 1000  # steps


def steps_of(task: DetectionTask, pictures: int) -> int:
    """The number of steps in a training on so many images."""
    if task.iterations is not None:
        return task.iterations
    assert task.epochs is not None
    return math.ceil(task.epochs * pictures / task.batch)


def learning_rate(task: DetectionTask, step: int, steps: int) -> float:
    """Of a step, counted from 0: linear warm-up, and a tenth after each of the task's drops."""
    warmup = min(task.warmup, steps // 10)
    warm = 1.0 if step >= warmup else _WARMUP_FROM + (1 - _WARMUP_FROM) * step / warmup
    passed = sum(step >= round(share * steps) for share in task.drops)
    return task.lr * warm * _DROP**passed


def check_share(task: DetectionTask, workers: int) -> None:
    """Raise `UserError` where a step cannot be divided among the workers and passes."""
    if task.batch % (workers * task.accumulate):
        expected = f"a multiple of {workers * task.accumulate}: {workers} workers, {task.accumulate} passes"
        raise UserError("batch", "cannot be divided", value=task.batch, expected=expected)


class Training:
    """A detector in training on this worker. With several, each works on a share of every step's images."""

    def __init__(
        self,
        task: DetectionTask,
        detector: Detector,
        pictures: Sequence[Picture],
        categories: Sequence[str],
        seed: int,
        device: torch.device,
    ) -> None:
        check_share(task, world_size())
        self.task, self.detector, self.device = task, detector, device
        self.pictures, self.categories = pictures, categories
        self.steps, self.step = steps_of(task, len(pictures)), 0
        self.draws = Draws(len(pictures), task.batch, seed, task.flip)
        self.optimizer = torch.optim.SGD(_groups(detector, task.weight_decay), task.lr, task.momentum)
        self.share = task.batch // world_size()

    def run(self, checkpoints: Checkpoints, identity: str) -> None:
        """Train to the last step, from a checkpoint of the same `identity` if there is one.

        Raises, on every worker, `TrialFailed` for a loss that is not finite and `UserError` for an image that
        cannot be decoded.
        """
        self._resume(from_first(checkpoints.load), identity)
        module = self._parallel()
        self.detector.train()
        masks = self.task.detector == "mask_rcnn"
        make = functools.partial(self._example, masks=masks)
        for batch in _on_all(ahead(make, self._batches())):
            self._step(module, batch)
            self.step += 1
            heartbeat(f"detection, step {self.step}/{self.steps}")
            if self.step % _CHECKPOINT_EVERY == 0 and self.step < self.steps:
                self._save(checkpoints, identity)
        self.detector.eval()
        if self.task.batch_norm == "train" and world_size() > 1:
            for buffer in self.detector.buffers():
                torch.distributed.broadcast(buffer, 0)
        from_first(checkpoints.discard)

    def _batches(self) -> Iterator[list[Drawn]]:
        first = rank() * self.share if world_size() > 1 else 0
        for step in range(self.step, self.steps):
            yield self.draws.of_step(step)[first : first + self.share]

    def _example(self, drawn: Drawn, masks: bool) -> Example:
        return example(self.pictures[drawn.picture], self.categories, drawn.mirrored, masks, "train")

    def _step(self, module: nn.Module, batch: Sequence[Example]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.task, self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        size = self.share // self.task.accumulate
        total = torch.zeros((), device=self.device)
        for start in range(0, self.share, size):
            loss = self._loss(module, batch[start : start + size]) / self.task.accumulate
            loss.backward()
            total += loss.detach()
        if not torch.isfinite(mean_over_workers(total)):
            problem = f"the detector's loss is not finite at step {self.step + 1} of {self.steps}"
            raise TrialFailed(f"{problem}; a lower `lr` ({self.task.lr:g}) or a longer `warmup` may help")
        self.optimizer.step()

    def _loss(self, module: nn.Module, batch: Sequence[Example]) -> Tensor:
        images = [sent(one.pixels, self.device).float() / 255 for one in batch]
        targets = [{name: sent(of, self.device) for name, of in one.target.items()} for one in batch]
        half = self.task.precision == "bfloat16" or (
            self.task.precision == "auto" and self.device.type == "cuda"
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            losses: dict[str, Tensor] = module(images, targets)
        return torch.stack([one.float() for one in losses.values()]).sum()

    def _parallel(self) -> nn.Module:
        """The detector, with gradients averaged over the workers. All its trained parameters are used."""
        if world_size() == 1:
            return self.detector
        return DistributedDataParallel(self.detector, broadcast_buffers=False)

    def _save(self, checkpoints: Checkpoints, identity: str) -> None:
        generators = from_each(rng_state())
        state = {
            "identity": identity,
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generators,
        }
        from_first(lambda: checkpoints.save(self.step, state))

    def _resume(self, found: tuple[int, dict[str, Any]] | None, identity: str) -> None:
        """Go on from a checkpoint of the same training by as many workers; from others nothing is taken."""
        if found is None:
            return
        step, state = found
        if state.get("identity") != identity or len(state["generators"]) != world_size():
            return
        self.detector.load_state_dict(state["detector"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_rng_state(state["generators"][rank() if world_size() > 1 else 0])
        self.step = step


def _on_all(batches: Iterator[list[Example]]) -> Iterator[list[Example]]:
    """The batches of this worker; an error of one is raised on all before any of them begins the step.

    In the step itself the others would wait for that worker's gradients.
    """
    while (batch := on_each(lambda: next(batches, None))) is not None:
        yield batch


def _groups(detector: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters: those of norms without decay, as in detectron2."""
    kinds = (_NormBase, nn.GroupNorm, nn.LayerNorm)
    norms = {id(p) for m in detector.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)}
    trained = [p for p in detector.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in norms], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]
