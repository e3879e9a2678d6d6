"""Suites in files: those that come with raykd, overrides, paths, and what people get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_suites import SUITES, BadSuite

from raykd.spec.document import write_yaml
from raykd.spec.shipped import suites
from raykd.spec.suite_file import load_suite, read_suite
from trainables.core.errors import UserError
from trainables.data.sources import find_source
from trainables.evaluation.probes import load_probe
from trainables.spec.suite import FrozenTask
from trainables.spec.suite_trained import FineTuneTask, LinearTask, TrainedTask
from trainables.spec.trial import DataSpec
from trainables.views.recipes import check_views

IMAGENET = DataSpec(name="imagenet", image_size=224, margin=32, keep="jpeg", fit="whole", short_side=300)


def test_suites_of_the_papers_come_with_raykd() -> None:
    assert {"quick", "retro", "sacl_xd", "rrkd", "projector"} <= set(suites())


@pytest.mark.parametrize("name", suites())
def test_a_shipped_suite_names_what_there_is(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name and suite.description
    for task in suite.tasks.values():
        data = task.data_of(IMAGENET)
        find_source(data.name)
        if isinstance(task, FrozenTask):
            load_probe(task.probe)
        if isinstance(task, TrainedTask):
            assert not (check_views(task.views).pad and data.fit == "whole")


def test_the_page_names_every_suite_kind_preset_and_field() -> None:
    page = (Path(__file__).parents[3] / "docs/evaluation.md").read_text()
    kinds = (FrozenTask, LinearTask, FineTuneTask)
    fields = {field for kind in kinds for field in kind.model_fields}
    names = {
        *suites(),
        *LinearTask.presets,
        *FineTuneTask.presets,
        *fields,
        *(k.model_fields["task"].default for k in kinds),
    }
    assert not [name for name in names if f"`{name}`" not in page]


def test_overrides_are_laid_over_a_suite() -> None:
    changed = load_suite(
        "retro", ["tasks.linear.epochs=90", "seeds=[0, 1]", "tasks.linear_1_percent.labels=0.02"]
    )
    linear, few = changed.tasks["linear"], changed.tasks["linear_1_percent"]
    assert isinstance(linear, LinearTask) and isinstance(few, LinearTask)
    assert (linear.epochs, few.labels, changed.seeds) == (90, 0.02, (0, 1))


def test_relative_paths_start_where_the_command_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text("tasks: {t: {task: frozen, labels: lists/1percent.txt, data: {path: images}}}")
    suite = load_suite(file)
    task = suite.tasks["t"]
    assert isinstance(task, FrozenTask) and suite.name == "mine"
    assert task.labels == str(tmp_path / "lists/1percent.txt")
    assert task.data["path"] == str(tmp_path / "images")
    elsewhere = load_suite(file, folder=tmp_path / "other").tasks["t"]
    assert elsewhere.data["path"] == str(tmp_path / "other/images")


def test_a_name_that_is_near_one_is_suggested() -> None:
    with pytest.raises(UserError, match=r"--on: no such file or suite .*Did you mean 'retro'"):
        load_suite("rerto")


@pytest.mark.parametrize("bad", SUITES, ids=lambda bad: bad.name)
def test_what_people_get_wrong(bad: BadSuite, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(write_yaml(bad.suite))
    with pytest.raises(UserError) as found:
        load_suite(file)
    assert found.value.field == bad.field and bad.word in str(found.value), str(found.value)
    with pytest.raises(UserError):
        read_suite(bad.suite)
