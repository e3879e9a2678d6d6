"""`about`, `paper`, `cost` and `command` of a file: read for lists, and no part of a spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ledger_records import head

from raykd.ablation.study import load_study
from raykd.records.history import History
from raykd.runs.changed_spec import refuse_changed_spec
from raykd.spec.description import description_of
from raykd.spec.search import load_sweep
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError

SPACE = """\
method: moco
preset: digits
student: {arch: test_resnet}
data: {name: digits, image_size: 16}
views: {recipe: digits}
epochs: 2
axes: {lr: {log: [1e-3, 1e-2]}}
samples: 2
"""
STUDY = """\
base:
  {method: moco, student: {arch: test_resnet}, data: {name: digits, image_size: 16}, epochs: 2}
design: one_at_a_time
factors: {temperature: [0.2, 0.1]}
replicates: 2
"""
KEYS = """\
about: >-
  MoCo-v2 on digits:
  its learning rate.
paper: arXiv 2003.04297
cost: 2 trials of 2 epochs
command: |-
  raykd run small
  raykd run small --set samples=4
"""


def load(path: Path, study: bool) -> SweepSpec:
    return load_study(path, [], path.parent) if study else load_sweep(path)


@pytest.mark.parametrize(("text", "study"), [(SPACE, False), (STUDY, True)])
def test_a_sweep_goes_on_with_a_file_whose_header_became_keys(text: str, study: bool, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"# MoCo-v2 on digits: its learning rate.\n#\n# Cost  2 trials\n\n{text}")
    then = load(path, study)
    path.write_text(KEYS + text)
    now = load(path, study)
    assert now.hash() == then.hash() and "arXiv" not in json.dumps(now.model_dump(mode="json"))
    source = {"path": str(path), "overrides": [], "folder": str(tmp_path)}
    history = History.of([{**head(), "spec": then.model_dump(mode="json"), "source": source}])
    refuse_changed_spec(then, history, tmp_path)
    path.write_text(KEYS + text.replace("epochs: 2", "epochs: 3"))
    with pytest.raises(UserError, match=r"not what this sweep was started with: epochs: 2 -> 3"):
        refuse_changed_spec(then, history, tmp_path)


def test_texts_are_one_line_and_commands_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(KEYS + SPACE)
    said = description_of(path)
    assert said.about == "MoCo-v2 on digits: its learning rate."
    assert said.command == "raykd run small\nraykd run small --set samples=4"


@pytest.mark.parametrize(
    ("first", "about"),
    [("# A search of mine.\n", "A search of mine."), ("", None), ("# Not this\nabout: X\n", "X")],
)
def test_a_comment_in_the_first_line_stands_in_for_about(
    first: str, about: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(first + SPACE)
    assert description_of(path).about == about


@pytest.mark.parametrize(("text", "study"), [(SPACE, False), (STUDY, True)])
def test_wrong_keys_are_refused(text: str, study: bool, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("abuot: X\n" + text)
    with pytest.raises(UserError, match=r"abuot: no such field .* Did you mean 'about'\?"):
        load(path, study)
    path.write_text("cost: 3\n" + text)
    with pytest.raises(UserError, match=r"cost: wrong value \(got 3\)\. Expected text"):
        load(path, study)
