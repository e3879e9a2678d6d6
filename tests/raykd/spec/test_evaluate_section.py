"""`evaluate` in a spec: how it may be written, what is recorded, and that it changes no sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bad_input import STUDY, SWEEP

from raykd.ablation.study import read_study
from raykd.runs.changed_spec import as_begun
from raykd.runs.retune import searches
from raykd.spec.document import parse_yaml
from raykd.spec.evaluate_section import BESIDE, EvaluateSpec, suites_of
from raykd.spec.search import SearchSpec, build_sweep, load_sweep, read_sweep
from raykd.spec.suite_file import load_suite
from trainables.core.errors import UserError

RAW, ONE = parse_yaml(SWEEP, ""), parse_yaml(STUDY, "")
SUITE = "tasks: {linear: {task: frozen, probe: ridge}}\n"
WRITTEN: list[tuple[Any, EvaluateSpec]] = [
    ("quick", EvaluateSpec(on=("quick",))),
    (["quick", "retro"], EvaluateSpec(on=("quick", "retro"))),
    ({"on": "quick", "best": 3}, EvaluateSpec(on=("quick",), best=3)),
    ({"on": ["quick"], "beside": "teacher"}, EvaluateSpec(on=("quick",), beside=("teacher",))),
    ({"on": "quick", "beside": []}, EvaluateSpec(on=("quick",), beside=())),
]


@pytest.mark.parametrize(("written", "means"), WRITTEN)
def test_it_may_be_written_briefly_and_is_recorded_whole(written: Any, means: EvaluateSpec) -> None:
    spec = build_sweep({**RAW, "evaluate": written})
    assert spec.evaluate == means
    recorded = spec.model_dump(mode="json")
    assert SearchSpec.model_validate(recorded) == spec
    assert build_sweep({**RAW, "evaluate": recorded["evaluate"]}).hash() == spec.hash()
    assert read_study({**ONE, "evaluate": written}, [], Path("nowhere")).evaluate == means


def test_without_it_nothing_is_recorded_and_with_it_trials_keep_their_names() -> None:
    plain, asking = build_sweep(RAW), build_sweep({**RAW, "evaluate": "quick"})
    assert "evaluate" not in plain.model_dump(mode="json") and EvaluateSpec(on=("a",)).beside == BESIDE
    assert plain.trial({}, 0).signature() == asking.trial({}, 0).signature()
    for then, now in ((plain, asking), (asking, plain)):
        assert as_begun(now, then).hash() == then.hash(), "it may change when a sweep goes on"


def test_paths_are_those_of_where_the_sweep_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE)
    (tmp_path / "s.yaml").write_text(f"{SWEEP}\nevaluate: [mine.yaml, ./sub/mine.yaml, quick]\n")
    monkeypatch.chdir(tmp_path)
    spec = load_sweep("s.yaml")
    assert spec.evaluate is not None
    assert spec.evaluate.on == (f"{tmp_path}/mine.yaml", f"{tmp_path}/sub/mine.yaml", "quick")
    monkeypatch.chdir("/")
    again = read_sweep({**RAW, "evaluate": "mine.yaml"}, folder=tmp_path)
    assert [suite.name for suite in suites_of(again.evaluate)] == ["mine"]
    study = read_study({**ONE, "evaluate": "mine.yaml"}, [], tmp_path, tmp_path)
    assert suites_of(study.evaluate) == suites_of(again.evaluate)


def test_suites_of_one_name_and_the_override_of_one(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(SUITE)
    both = EvaluateSpec(on=(f"{tmp_path}/a/mine.yaml", f"{tmp_path}/b/mine.yaml"))
    with pytest.raises(UserError, match=r"^evaluate\.on: two suites have this name"):
        suites_of(both)
    assert suites_of(None) == []
    suite = load_suite(tmp_path / "a" / "mine.yaml", ["seeds=[1, 2]", "tasks.linear.probe=knn"])
    assert suite.seeds == (1, 2) and suite.tasks["linear"].probe == "knn"


def test_an_arms_own_search_is_not_evaluated() -> None:
    asking = {**ONE, "factors": {"gamma": [0.1, 1.0]}, "evaluate": "quick", "retune": 2}
    assert {search.evaluate for search in searches(read_study(asking, [], Path("nowhere"))).values()} == {
        None
    }
