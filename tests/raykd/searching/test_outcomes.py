"""How well a search's score ranks what its students are worth on tasks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from histories import AXES, a_sweep
from ledger_records import evaluated
from simulated import drive

from raykd.evaluations.networks import Selection, chosen
from raykd.records.evaluations import in_drawing_order
from raykd.records.history import History, TrialRecord
from raykd.report.elements import Figure, Table
from raykd.report.outcome_section import outcomes
from raykd.searching.outcomes import lines, rankings
from raykd.spec.search import SearchSpec

SAMPLES = 30


def a_search(folder: Path, **more: object) -> tuple[SearchSpec, History]:
    """A search in which no trial is stopped."""
    spec = a_sweep(AXES, SAMPLES, scheduler="none", epochs=4, references=[], baseline=None, **more)
    return spec, drive(folder / "known", spec)


def evaluate(history: History, trials: Iterable[TrialRecord], worth: Callable[[TrialRecord], float]) -> None:
    """Record that the students of these trials scored `worth` on the task `linear`."""
    for trial in trials:
        history.add(evaluated(trial.trial, "linear", worth(trial), trial.trial, trial.replicate))


def best(trial: TrialRecord) -> float:
    assert trial.best is not None
    return trial.best[0]


def noise(trial: TrialRecord) -> float:
    return random.Random(f"worth {trial.trial}").random()


@pytest.mark.parametrize(("worth", "low", "high"), [(best, 0.999, 1.0), (noise, -0.5, 0.5)])
def test_a_score_ranks_what_it_is_worth(
    worth: Callable[[TrialRecord], float], low: float, high: float, tmp_path: Path
) -> None:
    spec, history = a_search(tmp_path)
    evaluate(history, history.trials.values(), worth)
    (ranking,) = rankings(spec, history)
    found = ranking.found[None]
    assert ranking.column == "evaluate/quick/linear" and ranking.metric == "score" and ranking.chance
    assert found.trials == SAMPLES and low <= found.correlation.value <= high
    assert (found.regret.value == pytest.approx(0)) == (worth is best)


def test_those_that_were_drawn_count_alone_beside_the_best(tmp_path: Path) -> None:
    """The best ones are worth nothing here: with them the score would seem to mislead."""
    spec, history = a_search(tmp_path)
    leaders = [trials[0] for trials in chosen(spec, history, Selection(5)).values()]
    evaluate(history, leaders, lambda trial: -best(trial))
    assert [ranking.chance for ranking in rankings(spec, history)] == [False]
    assert any("chosen by their score" in line for line in lines(spec, history))
    both = {
        trial for row in chosen(spec, history, Selection(5, sample=12)).values() for trial in [row[0].trial]
    }
    drawn = set(in_drawing_order(t.arm for t in history.trials.values())[:12])
    assert {t.trial for t in history.trials.values() if t.arm in drawn} | {t.trial for t in leaders} == both
    spec, history = a_search(tmp_path / "again")
    evaluate(history, [history.trials[name] for name in sorted(both)], best)
    (ranking,) = rankings(spec, history)
    assert ranking.chance and 12 <= ranking.found[None].trials <= len(both)
    assert any("drawn by chance" in line for line in lines(spec, history))


def test_a_seed_that_failed_does_not_end_what_was_drawn(tmp_path: Path) -> None:
    """A configuration that lacks a seed is not drawn, and is none of those that the drawn ones stand for."""
    spec, history = a_search(tmp_path, seeds=[0, 1])
    first = in_drawing_order(trial.arm for trial in history.trials.values())[0]
    broken = next(t for t in history.trials.values() if t.arm == first and t.replicate == 1)
    broken.status = "failed"
    rows = chosen(spec, history, Selection(1, sample=12))
    assert all(trial.arm != first for trials in rows.values() for trial in trials)
    evaluate(history, [trial for trials in rows.values() for trial in trials], best)
    (ranking,) = rankings(spec, history)
    assert ranking.chance and ranking.found[None].trials >= 12
    assert any("drawn by chance" in line for line in lines(spec, history))


def test_the_epoch_that_predicts_a_task_is_of_those_that_were_drawn(tmp_path: Path) -> None:
    """The best ones are worth nothing here: with them no epoch would seem to predict the task."""
    spec, history = a_search(tmp_path)
    drawn, more = (chosen(spec, history, Selection(0, sample=n)) for n in (15, SAMPLES))
    evaluate(history, (row[0] for row in drawn.values()), lambda trial: trial.reports[2]["score"])
    alone = lines(spec, history)
    assert any("predicts it from epoch 2 on" in line for line in alone)
    others = [row[0] for name, row in more.items() if name not in drawn]
    next_one = in_drawing_order(trial.arm for trial in others)[0]
    leaders = [trial for trial in others if trial.arm != next_one]
    evaluate(history, leaders, lambda trial: -trial.reports[2]["score"])
    assert lines(spec, history) == alone


def test_samples_are_nested(tmp_path: Path) -> None:
    spec, history = a_search(tmp_path)
    few, more = (set(chosen(spec, history, Selection(1, sample=n))) for n in (6, 15))
    assert few < more and 6 <= len(few) <= 7


def test_a_configuration_counts_once_with_the_mean_of_its_seeds(tmp_path: Path) -> None:
    spec, history = a_search(tmp_path, seeds=[0, 1, 2])
    evaluate(history, history.trials.values(), lambda trial: trial.replicate * 1000 + best(trial))
    (ranking,) = rankings(spec, history)
    assert ranking.found[None].trials == SAMPLES
    assert ranking.found[None].correlation.value == pytest.approx(1)


def test_too_few_say_nothing_and_the_page_shows_the_rest(tmp_path: Path) -> None:
    spec, history = a_search(tmp_path)
    trials = list(history.trials.values())
    evaluate(history, trials[:2], best)
    assert not rankings(spec, history) and not outcomes(spec, history) and not lines(spec, history)
    evaluate(history, trials, best)
    parts = outcomes(spec, history)
    figure, table = (next(part for part in parts if isinstance(part, kind)) for kind in (Figure, Table))
    assert table.rows[0][:5] == ["quick/linear", "score", "all", "30, chosen by chance", table.rows[0][4]]
    assert table.rows[0][4].startswith("1.00 [") and figure.plot["data"][0]["x"][0] == pytest.approx(1)


def test_the_first_epoch_that_predicts_a_task_is_named(tmp_path: Path) -> None:
    """What a student is worth is here its score at epoch 2."""
    spec, history = a_search(tmp_path)
    evaluate(history, history.trials.values(), lambda trial: trial.reports[2]["score"])
    said = next(line for line in lines(spec, history) if "predicts it from" in line)
    assert "the score predicts it from epoch 2 on" in said and "rank correlation 1.00" in said
    spec, history = a_search(tmp_path / "again")
    evaluate(history, history.trials.values(), noise)
    assert any("no probe predicts it" in line for line in lines(spec, history))
    assert all(math.isfinite(r.found[None].correlation.value) for r in rankings(spec, history))
