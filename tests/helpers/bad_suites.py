"""Mistakes in suites of evaluations: what a file says, how the message begins, and what it says besides."""

from __future__ import annotations

from typing import Any, NamedTuple


class BadSuite(NamedTuple):
    """One mistake."""

    name: str
    suite: dict[str, Any]
    field: str
    word: str


def task(name: str, field: str, word: str, **fields: Any) -> BadSuite:
    """A suite of one task with these fields; `field` is within it."""
    whole = f"tasks.t.{field}" if field else "tasks.t"
    return BadSuite(name, {"name": "s", "tasks": {"t": {"task": "frozen", **fields}}}, whole, word)


SUITES = [
    BadSuite("no tasks", {"name": "s"}, "tasks", "is missing"),
    BadSuite("an empty list of tasks", {"name": "s", "tasks": {}}, "tasks", "is empty"),
    BadSuite("a list of tasks", {"name": "s", "tasks": [{"task": "frozen"}]}, "tasks", "not a mapping"),
    BadSuite("an unknown field", {"name": "s", "taks": {}}, "taks", "'tasks'"),
    BadSuite("a number for a task", {"name": "s", "tasks": {"t": 3}}, "tasks.t", "not a mapping"),
    BadSuite(
        "no kind of task", {"name": "s", "tasks": {"t": {"probe": "knn"}}}, "tasks.t.task", "is missing"
    ),
    BadSuite(
        "a seed below 0",
        {"name": "s", "tasks": {"t": {"task": "frozen"}}, "seeds": [-1]},
        "seeds.0",
        "greater than or equal to 0",
    ),
    task("an unknown kind", "task", "'finetune'", task="fine_tune"),
    task("a kind that is a list", "task", "no such kind", task=["frozen"]),
    task("another kind's field", "lr", "no such field", lr=[1]),
    task("a word near a field", "probs", "'probe'", probs="knn"),
    task("labels of nothing", "labels", "no share", labels=0),
    task("more labels than there are", "labels", "no share", labels=1.5),
    task("one label in words", "labels", "no share", labels=1),
    task("labels of a class that are text", "labels.per_class", "no number", labels={"per_class": "five"}),
    task("no labels of a class", "labels.per_class", "no number", labels={"per_class": 0}),
    task("a word near per_class", "labels.per_clas", "'per_class'", labels={"per_clas": 5}),
    task("a list of labels", "labels", "wrong value", labels=[0.1]),
    task("yes for labels", "labels", "not yes or no", labels=True),
    task("strengths of another probe", "strengths", "probe: logistic", strengths=[1]),
    task("a strength of 0", "strengths.1", "greater than 0", probe="logistic", strengths=[1, 0]),
    task("one draw", "draws", "greater than or equal to 2", draws=1),
    task("an empty list of learning rates", "lr", "empty list", task="linear", lr=[]),
    task("a learning rate twice", "lr", "twice", task="linear", lr=[1, 1]),
    task("a learning rate in words", "lr", "no number", task="finetune", lr="high"),
    task("a learning rate below 0", "lr.0", "greater than 0", task="finetune", lr=[-1]),
    task(
        "a learning rate among the optimizer's", "optim.lr", "beside `optim`", task="linear", optim={"lr": 3}
    ),
    task(
        "a word near the optimizer's field",
        "optim.batchsize",
        "'batch_size'",
        task="linear",
        optim={"batchsize": 64},
    ),
    task("a list for the optimizer", "optim", "not a mapping", task="linear", optim=[1]),
    task("decays that are never reached", "optim.decay_epochs", "such as [6, 8]", task="linear", epochs=10),
    task("no epochs", "epochs", "greater than or equal to 1", task="linear", epochs=0),
    task("an unknown preset", "preset", "'moco'", task="linear", preset="mocco"),
    task("another kind's preset", "preset", "no such preset", task="finetune", preset="moco"),
    task(
        "a layer decay above 1", "layer_decay.0", "less than or equal to 1", task="finetune", layer_decay=[2]
    ),
    task("an unknown mode of batch norm", "batch_norm", "eval, train", task="finetune", batch_norm="frozen"),
    task(
        "a word near a field of the views",
        "views.recpie",
        "'recipe'",
        task="linear",
        views={"recpie": "none"},
    ),
    task("a list for data", "data", "not a mapping", data=["digits"]),
]
