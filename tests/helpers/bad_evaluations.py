"""Mistakes in suites, and in what is evaluated."""

from __future__ import annotations

from pathlib import Path

import torch
from bad_input import Bad

from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec

SUITE = "HERE/suite.yaml"
TASK = "tasks: {linear: {task: frozen, probe: ridge}}"
ON = f"--on {SUITE}"


def suite(name: str, arguments: str, field: str, word: str, content: str = TASK) -> Bad:
    """A command on the suite of this content, beside the checkpoint HERE/t.pt, which names no network."""

    def both(here: Path) -> None:
        (here / "suite.yaml").write_text(content)
        torch.save(build_backbone(ModelSpec(arch="test_resnet"), 0).model.state_dict(), here / "t.pt")

    return Bad(name, both, arguments, field, word)


EVALUATIONS = [
    suite("a sweep that is not there to evaluate", f"evaluate swep {ON}", "name", "'sweep'"),
    suite("a sweep that has left no student", f"evaluate sweep {ON}", "name", "has no student"),
    suite("a suite that is nearly there", "evaluate sweep --on HERE/siute.yaml", "--on", "suite.yaml"),
    suite("a suite that is a list", f"evaluate sweep {ON}", SUITE, "mapping", "[a, b]"),
    suite("a suite without tasks", f"evaluate sweep {ON}", "tasks", "is empty", "tasks: {}"),
    suite("an unknown kind of task", f"evaluate sweep {ON}", "tasks.a.task", "'frozen'",
          "tasks: {a: {task: frosen}}"),
    suite("an unknown field of a task", f"evaluate sweep {ON}", "tasks.a.prob", "'probe'",
          "tasks: {a: {task: frozen, prob: knn}}"),
    suite("an override of no task", f"evaluate sweep {ON} --set sedes=[0]", "sedes", "'seeds'"),
    suite("a suite's name with a slash", f"evaluate sweep {ON}", "--on", "cannot be the name",
          f"name: a/b\n{TASK}"),
    suite("a suite on the command line twice", f"evaluate sweep {ON} {ON}", "--on", "two suites"),
    suite("a trial to evaluate that is not there", f"evaluate sweep {ON} --trials zzzz", "trial",
          "no such trial"),
    suite("trials and the best ones", f"evaluate sweep {ON} --trials TRIAL --best 2", "--trials",
          "one of them"),
    suite("the best none of a sweep", f"evaluate sweep {ON} --best 0", "--best", "below 1"),
    suite("an unknown row beside a sweep", f"evaluate sweep {ON} --beside techer", "--beside", "'teacher'"),
    suite("a network of a sweep", f"evaluate sweep {ON} --arch resnet18", "--arch", "checkpoint"),
    suite("data of a sweep", f"evaluate sweep {ON} --data digits", "--data", "checkpoint"),
    suite("a network whose file is not there", f"evaluate HERE/none.pth {ON}", "WHAT", "no such file"),
    suite("a checkpoint that is none", f"evaluate {SUITE} {ON} --arch resnet18 --data digits", "WHAT",
          "cannot be read"),
    suite("a checkpoint without its architecture", f"evaluate HERE/t.pt {ON} --data digits", "--arch",
          "does not say"),
    suite("a checkpoint of another architecture",
          f"evaluate HERE/t.pt {ON} --data digits --arch test_efficientnet", "--arch",
          "test_efficientnet"),
    suite("a network that is a list", f"evaluate HERE/t.pt {ON} --arch '[a]'", "--arch", "is no network"),
    suite("a checkpoint without data", f"evaluate HERE/t.pt {ON} --arch test_resnet", "--data", "is missing"),
    suite("data that are a list", f"evaluate HERE/t.pt {ON} --arch test_resnet --data '[a]'", "--data",
          "is no data set"),
    suite("a checkpoint on unknown data", f"evaluate HERE/t.pt {ON} --arch test_resnet --data digts",
          "--data", "'digits'"),
    suite("the best of a checkpoint", f"evaluate HERE/t.pt {ON} --arch test_resnet --best 2", "--best",
          "goes with a sweep"),
    suite("a sample of a checkpoint", f"evaluate HERE/t.pt {ON} --arch test_resnet --sample 5", "--sample",
          "goes with a sweep"),
    suite("a task that the data do not allow",
          f"evaluate HERE/t.pt {ON} --arch test_resnet --data digits", "suite suite: tasks.linear.probe",
          "'ridge'", TASK.replace("ridge", "rigde")),
    suite("a report by the score of a search", "report sweep --by evaluate/a/b", "--by", "goes with a study"),
]  # fmt: skip
