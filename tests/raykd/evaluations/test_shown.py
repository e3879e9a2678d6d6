"""Evaluations where people look: TensorBoard, the page, a study's tables, the model card."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from histories import ARM_A, BASE, history_of
from histories import a_study as recorded_study
from ledger_records import evaluated
from studies import GAMMA, METHODS, study
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raykd.ablation.by_task import by_task, conclude_by
from raykd.ablation.conclusions import conclude
from raykd.ablation.report import markdown
from raykd.export.evaluation_card import evaluation_parts
from raykd.records.history import History
from raykd.records.ledger import KINDS, Ledger
from raykd.records.recorded_spec import spec_of
from raykd.records.tensorboard import TensorBoardWriter
from raykd.report import build
from raykd.report.elements import Collapsible, Section, Table
from raykd.spec.study import StudySpec
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "sweeps"


def a_study(scores: dict[str, list[float | None]], **change: Any) -> tuple[StudySpec, History]:
    """A study whose students score on `linear` what they scored in the search, and on `near` 40 less."""
    spec = study(GAMMA, **{"replicates": max(map(len, scores.values())), **change})
    history = history_of(spec, scores)
    for trial in list(history.trials.values()):
        label, score = trial.params["arm"], trial.last
        if trial.status == "finished" and score is not None:
            history.add(evaluated(trial.trial, "linear", score, label, trial.replicate))
            history.add(evaluated(trial.trial, "near", score - 40, label, trial.replicate))
    return spec, history


SCORES: dict[str, list[float | None]] = {BASE: [70.0, 71.0, 69.5], ARM_A: [75.0, 75.5, 75.2]}


def test_a_study_is_compared_by_each_task_with_one_alpha_for_all() -> None:
    spec, history = a_study(SCORES)
    own, found = conclude(spec, history), by_task(spec, history)
    assert list(found) == ["evaluate/quick/linear", "evaluate/quick/near"]
    linear = found["evaluate/quick/linear"]
    assert [arm.scores for arm in linear.arms] == [arm.scores for arm in own.arms]
    ours, theirs = (next(a.comparison for a in r.arms if a.label == ARM_A) for r in (own, linear))
    assert ours is not None and theirs is not None and theirs.mean == pytest.approx(ours.mean)
    assert theirs.p_holm == pytest.approx(2 * theirs.p), "two tasks share one alpha"
    assert found["evaluate/quick/near"].base.mean == pytest.approx(own.base.mean - 40)
    assert "evaluate/quick/linear" in linear.scored and "test split" in linear.scored
    assert conclude_by(spec, history, None) == own
    with pytest.raises(UserError, match=r"^--by: no such score .*Did you mean 'evaluate/quick/near'"):
        conclude_by(spec, history, "evaluate/quick/neer")
    with pytest.raises(UserError, match=r"^--by: no such score .*Expected a study that was evaluated"):
        conclude_by(spec, history_of(spec, SCORES), "evaluate/quick/near")


def test_a_failed_replicate_has_no_score_and_ranks_are_by_the_task() -> None:
    spec = study(METHODS, replicates=2)
    history = history_of(spec, {"retro": [70.0, 71.0], "seed": [72.0, None], "moco": [60.0, 61.0]})
    for trial in list(history.trials.values())[:-1]:
        if trial.status == "finished":
            history.add(evaluated(trial.trial, "linear", 100.0 - (trial.last or 0), "row", trial.replicate))
    found = by_task(spec, history)["evaluate/quick/linear"]
    scores = {arm.label: arm.scores for arm in found.arms}
    assert scores["retro"] == (30.0, 29.0) and math.isnan(scores["seed"][1]) and math.isnan(scores["moco"][1])
    assert found.ranking is not None


def test_looks_of_a_sequential_study_were_by_the_probe() -> None:
    spec, history = a_study(SCORES, replicates=None, decide=True, max_replicates=3)
    found = by_task(spec, history)["evaluate/quick/linear"]
    assert not found.rules.sequential and all(arm.verdict is None for arm in found.arms)
    assert any("chosen by the probe's score" in note for note in found.notes)


def test_the_markdown_of_a_study_has_a_table_a_task() -> None:
    spec, history = a_study(SCORES)
    text = markdown(conclude(spec, history), list(by_task(spec, history).values()))
    assert text.count("## By evaluate/quick/") == 2 and "share one alpha" in text


def test_the_page_has_the_tables_and_can_be_made_by_a_task(tmp_path: Path) -> None:
    spec, history = a_study(SCORES)
    folder = recorded_study(tmp_path, spec, SCORES)
    with Ledger.open(folder) as ledger:
        for one in history.evaluated:
            ledger.append("evaluated", **{name: one[name] for name in KINDS["evaluated"]})
    page = build(folder, folder / "report.html", time.time())
    (section,) = (s for s in page.sections if s.title == "Evaluations")
    tables = [part for part in section.parts if isinstance(part, Table)]
    assert [row[0] for row in tables[0].rows] == [BASE, ARM_A] and tables[0].columns[2:] == ["linear", "near"]
    assert tables[1].columns[0] == f"minus {BASE}" and [row[0] for row in tables[1].rows] == [ARM_A]
    studies = [part for part in section.parts if isinstance(part, Collapsible)]
    assert [part.title for part in studies] == [
        f"The study by evaluate/quick/{t}" for t in ("linear", "near")
    ]
    by = build(folder, folder / "report.html", time.time(), by="evaluate/quick/near")
    assert "30.17 ±" in json.dumps([_cells(s) for s in by.sections], ensure_ascii=False)
    with pytest.raises(UserError, match=r"^--by: no such score"):
        build(folder, folder / "report.html", time.time(), by="score")


def _cells(section: Section) -> list[Any]:
    return [part.rows for part in section.parts if isinstance(part, Table)]


def test_tensorboard_grows_by_what_is_evaluated_and_is_rebuilt_to_the_same(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "finished", tmp_path / "finished"))
    history = History.of(Ledger.read(folder))
    spec = spec_of(history)
    name = next(iter(history.trials))
    live = TensorBoardWriter(folder, spec)
    live.rebuild(history)
    more = [
        evaluated(name, "linear", 70.0, name),
        evaluated(name, "linear", 74.0, name, suite_seed=1),
        evaluated(name, "near", 50.0, name),
        evaluated(None, "near", 55.0, "the teacher", None, who="teacher"),
        evaluated(name, "near", 0.0, name, suite_seed=1, reason="it failed", metrics={}),
    ]
    for one in more:
        history.add(one)
        live(one, history)
    events = EventAccumulator(str(folder / "tensorboard" / name)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("evaluate/quick/linear")] == [(1, 70.0), (2, 72.0)]
    assert [e.value for e in events.Scalars("evaluate/quick/near")] == [50.0]
    written = {path: path.read_bytes() for path in (folder / "tensorboard").rglob("*tfevents*")}
    assert any(
        b"evaluate/quick/near" in content for path, content in written.items() if path.parent.name != name
    )
    for content in ("as it is", "without the last scalar", "gone"):
        file = next(path for path in written if path.parent.name == name)
        if content == "without the last scalar":
            file.write_bytes(file.read_bytes()[:-20])
        elif content == "gone":
            file.unlink()
        TensorBoardWriter(folder, spec).rebuild(history)
        assert {path: path.read_bytes() for path in written} == written, content


def test_a_model_card_shows_the_student_and_its_row(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "finished", tmp_path / "finished"))
    history, sweep = History.of(Ledger.read(folder)), open_sweep(folder)
    first, other = list(history.trials.values())[:2]
    assert not list(evaluation_parts(history, first, sweep))
    for one in (
        evaluated(first.trial, "linear", 70.0, first.trial),
        evaluated("deadbeef", "linear", 80.0, first.trial, 1),
        evaluated(other.trial, "linear", 33.0, other.trial),
        evaluated(None, "linear", 90.5, "the teacher", None, who="teacher"),
    ):
        history.add(one)
    text = "\n\n".join(evaluation_parts(history, first, sweep))
    assert (
        "linear 70.00" in text
        and f"| {first.trial} | 2 | 75.00" in text
        and "| the teacher | 1 | 90.50" in text
    )
    assert "33.00" not in text, "other students have cards of their own"
