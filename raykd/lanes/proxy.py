"""A Tune trial: a stateless proxy that posts its task to the broker and relays the lane's reports.

A proxy may be killed at any time: the task goes on in its lane, and a new proxy gets the reports that were
not answered. It posts its task in `step`, not in `setup` or `reset_config`, because Tune also starts actors
that it then discards.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache

from raykd.lanes.messages import Message, Task

# A proxy must not take a worker's slot, and `{"cpu": 0.01}` would take a whole one.
RESOURCES = [{"node:__internal_head__": 0.001}]
METRICS = "metrics/"
_NOTHING: tuple[int, int | None] = (0, None)
_APART = ("metrics", "mistake")  # `metrics` has a key each; a trial's failure is told as text alone
_PASSED = ("RAY_", "TRAIN_")  # prefixes of the environment variables that a proxy's process needs


def keep_secrets_out() -> None:
    """Stop Tune from passing this process's credentials to its trials.

    Tune copies `AWS_SECRET_ACCESS_KEY` and similar variables into the runtime environment of each trial's
    actor, and Ray's agent writes that to `runtime_env_agent.log`. A proxy needs none of them.
    """
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith(_PASSED)
    }


class NotKept:
    """A base class of what Tune would pickle to restore from: a sweep is restored from the ledger."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class TrialProxy(tune.Trainable):
    """Config: `broker` and `namespace` (its actor's), and the fields of a `Task` under `task`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Post nothing yet."""
        self._posted: str | None = None
        self._relayed = _NOTHING

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let Tune use this actor for another trial."""
        self._posted, self._relayed = None, _NOTHING
        return True

    def step(self) -> dict[str, Any]:
        """Post the task if that is not done, and wait for the next message about it, as a Tune result."""
        task = Task(**self.config["task"])
        broker = ray.get_actor(self.config["broker"], namespace=self.config["namespace"])
        if self._posted != task.id:
            ray.get(broker.post.remote(task))
            self._posted = task.id
        said: Any = ray.get(broker.listen.remote(task.id, *self._relayed))
        self._relayed = (said.attempt, None) if said.attempt else (self._relayed[0], said.epoch)
        return pack(said)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: all state is in the lane, the broker and the ledger."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, likewise."""


def pack(message: Message) -> dict[str, Any]:
    """A message as a Tune result, its metrics under `metrics/`."""
    said: dict[str, Any] = {name: value for name, value in vars(message).items() if name not in _APART}
    return {**said, **{METRICS + name: value for name, value in message.metrics.items()}}


def unpack(result: dict[str, Any]) -> Message:
    """The message that `pack` put into a Tune result."""
    metrics = {key[len(METRICS) :]: value for key, value in result.items() if key.startswith(METRICS)}
    plain = {field.name: result[field.name] for field in fields(Message) if field.name not in _APART}
    return Message(**plain, metrics=metrics)
