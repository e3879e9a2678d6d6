"""Score against size: what Optuna is told, that both samplers find small students, and the front."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import proposing
import pytest
from command import raykd as verb
from histories import put
from ledger_records import end, head, report, start, suggest
from optuna.trial import TrialState
from proposing import Driver, play, states, sweep

import raykd
from raykd.console.sizes import front_table, shown_sizes
from raykd.records.earlier import Earlier, ToldTrial
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.report import build, front_section
from raykd.report.elements import Figure
from raykd.searching.front import front, objectives, weighed
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.search import SearchSpec, build_sweep
from trainables.core.errors import SweepFailed, UserError

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "sweeps" / "finished"
WIDTH = "student.options.width"
AXES: dict[str, Any] = {WIDTH: {"log": [0.05, 1]}, "lr": {"log": [1e-3, 1e-1]}}


def both(sampler: str = "tpe", objective: Any = ("score", "macs"), **change: Any) -> SearchSpec:
    start = {"method": "moco", "preset": "digits", "student": {"arch": "raykd/resnet9"}, "samples": 24}
    return sweep(sampler, **{**start, "axes": AXES, "objective": objective, **change})


@pytest.fixture
def wide_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposing, "score", lambda params, epoch: 70 + 9 * math.log10(params[WIDTH]) + epoch)


def test_optuna_is_told_the_score_and_the_sizes() -> None:
    driver, proposer = play(both(objective=["macs", "score", "params"]))
    told = {t.number: t for t in proposer.study.get_trials()}
    assert [d.name for d in proposer.study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert driver.spec.objective == ("score", "macs", "params"), "the score comes first"
    seen = set()
    for trial in driver.history.trials.values():
        found = told[trial.number]
        seen.add(trial.status)
        if trial.status == "failed":
            assert found.state == TrialState.FAIL
            continue
        # A stopped trial too, by the best score that it reached: Optuna's samplers of several objectives know
        # no PRUNED ones.
        assert trial.best is not None and found.state == TrialState.COMPLETE
        sizes = [math.log10(trial.size[name]) for name in ("macs", "params")]
        assert found.values == pytest.approx([trial.best[0], *sizes])
    assert seen == {"finished", "stopped", "failed"}


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random", "gp"])
def test_a_resumed_search_goes_on_as_the_uninterrupted_one(sampler: str) -> None:
    driver = Driver(both(sampler, limits={"params": "1M"}, samples=6 if sampler == "gp" else 12))
    proposer, going = Proposer(driver.spec), True
    while going:
        resumed, written = driver.resumed(), len(driver.records)
        assert states_of(resumed) == states_of(proposer)
        going = driver.step(proposer)
        made = [r for r in driver.records[written:] if r["kind"] in ("suggest", "repeat")]
        if made:
            again = json.loads(json.dumps(resumed.propose().record()))  # type: ignore[union-attr]
            assert again == {k: v for k, v in made[0].items() if k not in ("kind", "time")}


def states_of(proposer: Proposer) -> list[Any]:
    return [(t.state, t.params, t.values, t.constraints) for t in proposer.study.get_trials()]


@pytest.mark.parametrize("median", [None, math.nan])
def test_a_latency_whose_record_is_lost_costs_its_trials_alone(median: float | None) -> None:
    """A ledger without the latency of one student is replayed; its trials have no value to be told by."""
    spec = both(objective=["score", "latency", "macs"], samples=6)
    driver, proposer = Driver(spec), Proposer(spec)
    proposer.measure_by(lambda trial: 1000 * trial.student.options["width"])
    while driver.step(proposer):
        pass
    history = driver.history
    well = [trial for trial in history.trials.values() if trial.status != "failed"]
    lost, *others = (trial.student for trial in well)
    for student in [*others, *([] if median is None else [lost])]:
        found = {"median_ms": 2.0 if student in others else median}
        driver.write("latency", student=student, label="s", metrics=found, where="host")
    told = {t.number: t for t in driver.resumed().study.get_trials()}
    assert {told[trial.number].state for trial in well if trial.student == lost} == {TrialState.FAIL}
    assert {told[t.number].values[1] for t in well if t.student != lost} == {math.log10(2)}
    more = driver.resumed(samples=7).propose()
    assert isinstance(more, Proposal), "without latencies to ask for, as a repair proposes"


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_a_told_trial_whose_student_does_not_fit_is_told_as_refused(sampler: str) -> None:
    axes = {"student.arch": ["test_resnet", "inception_v3"], "lr": AXES["lr"]}
    change = {"student": {"arch": "test_resnet"}, "data": {"name": "digits", "image_size": 16}, "axes": axes}
    spec = both(sampler, **change, warm_start=["earlier"])
    rows = [("test_resnet", 0.01), ("inception_v3", 0.02)]
    known = [
        ToldTrial("earlier", f"{at:08x}", {"student.arch": arch, "lr": lr}, "finished", {1: 50.0})
        for at, (arch, lr) in enumerate(rows)
    ]
    fits, refused = Proposer(spec, earlier=Earlier(told=tuple(known))).study.get_trials()
    assert fits.state == TrialState.COMPLETE and len(fits.values) == 2
    assert refused.state == (TrialState.PRUNED if spec.sampler.learns_limits else TrialState.FAIL)


@pytest.mark.usefixtures("wide_is_better")
def test_small_students_are_tried_where_size_counts() -> None:
    """With the score alone a search goes to the widest one. With both it keeps to the whole front."""

    def late(spec: SearchSpec) -> float:
        driver, _ = play(spec)
        return fmean(math.log10(p.params[WIDTH]) for p in driver.done[12:])

    assert late(both()) < late(both(objective=())) - 0.1


def test_what_was_one_objective_is_as_ever() -> None:
    alone, plain = both(objective="score"), both(objective=())
    assert alone == plain and "objective" not in plain.model_dump(mode="json")
    recorded = both().model_dump(mode="json")
    assert SearchSpec.model_validate(recorded) == both() and list(recorded["objective"]) == ["score", "macs"]
    assert both(objective=["score", "latency"]).latency is not None
    one, _ = play(plain)
    assert states(one.resumed())[0][0] in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"objective": ["macs"]}, "objective"),
        ({"objective": ["score", "flops"]}, "objective.1"),
        ({"objective": ["score", "score"]}, "objective.1"),
        ({"sampler": {"name": "cmaes"}}, "sampler.name"),
        ({"warm_start": ["a"], "objective": ["score", "latency"]}, "warm_start"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(change: dict[str, Any], field: str) -> None:
    raw = {k: v for k, v in both().model_dump(mode="json").items() if k != "limits"}
    with pytest.raises(UserError) as error:
        build_sweep({**raw, **change})
    assert error.value.field == field


def a_history(rows: dict[str, tuple[float | None, int, str]], **spec: Any) -> History:
    """Of trials by name: score, multiply-adds, status."""
    records = [head()]
    records[0]["spec"].update({"seeds": [0], **spec})
    for number, (name, (score, macs, status)) in enumerate(rows.items()):
        sized = {"size": {"params": 1000, "macs": macs}, "student": f"{macs:08x}"}
        records.append({**suggest(name, number), **sized, "arm": name[:4]})
        records.append(start(name))
        if score is not None:
            records.append(report(name, 1, score))
        records.append(end(name, status))
    return History.of(records)


def test_the_front_of_a_sweep() -> None:
    history = a_history(
        {
            "small": (50.0, 10, "stopped"),
            "same": (49.0, 10, "finished"),
            "large": (90.0, 100, "finished"),
            "waste": (60.0, 200, "finished"),
            "bad": (99.0, 5, "failed"),
            "none": (None, 1, "finished"),
            "nan": (math.nan, 1, "finished"),
        }
    )
    assert objectives(history) == ("macs",)
    assert [(one.trial.trial, one.front) for one in weighed(history)] == [
        ("small", True), ("same", False), ("large", True), ("waste", False)
    ]  # fmt: skip
    columns, rows = front_table(history)
    assert columns[:4] == ["trial", "multiply-adds", "score", "status"]
    assert [row[:4] for row in rows] == [["small", "10", 50.0, "stopped"], ["large", "100", 90.0, "finished"]]
    with pytest.raises(SweepFailed, match="known size"):
        front(a_history({"none": (None, 1, "finished")}))


def test_with_several_seeds_the_mean_of_a_configuration_counts() -> None:
    history = a_history(
        {
            "aaaa1": (50.0, 10, "finished"),
            "aaaa2": (90.0, 10, "finished"),
            "bbbb1": (75.0, 20, "finished"),
            "bbbb2": (77.0, 20, "finished"),
        },
        seeds=[0, 1],
    )
    assert [(one.trial.trial, one.score) for one in front(history)] == [("aaaa2", 70.0), ("bbbb2", 76.0)]


def test_what_is_an_objective_or_a_limit_is_a_column_of_every_table() -> None:
    alike = {"a": (50.0, 10, "finished"), "b": (51.0, 10, "finished")}
    assert shown_sizes(a_history(alike)) == []
    assert shown_sizes(a_history(alike, objective=["score", "macs"])) == ["macs"]
    assert shown_sizes(a_history(alike, limits={"params": 5000, "macs": None})) == ["params"]


def test_the_page_shows_it_with_the_others_in_grey(tmp_path: Path) -> None:
    driver, _ = play(both(objective=["score", "macs", "params"]))
    put(tmp_path / "s", driver.records)
    found = front_section.front(driver.history)
    assert found is not None
    figures = [part for part in found.parts if isinstance(part, Figure)]
    assert [figure.title for figure in figures] == ["Score and multiply-adds", "Score and parameters"]
    dots = {trace["name"]: trace for trace in figures[0].plot["data"] if trace["mode"] == "markers"}
    assert dots["beaten by another one"]["marker"]["color"] == "@faint"
    on = sum(len(trace["x"]) for name, trace in dots.items() if name.startswith("on the front"))
    assert on == len(front(driver.history)) == len(figures[0].table.rows)  # type: ignore[union-attr]
    assert on + len(dots["beaten by another one"]["x"]) == len(weighed(driver.history))
    assert "Score and size" in [s.title for s in build(tmp_path / "s", tmp_path / "page.html", 0.0).sections]
    without, _ = play(both(objective=(), axes={"lr": AXES["lr"]}, samples=4))
    assert front_section.front(without.history) is None


@pytest.fixture
def sized(tmp_path: Path) -> raykd.Sweep:
    """A sweep that was trained, with sizes as if its students differed."""
    folder = Path(shutil.copytree(OLD, tmp_path / "sweeps" / "finished"))
    records = list(Ledger.read(folder))
    names = [r["trial"] for r in records if r["kind"] == "suggest"]
    for record in records:
        if record["kind"] == "suggest":
            at = names.index(record["trial"])
            record.update(student=f"{at:08x}", size={"params": 100 + at, "macs": 1000 + at})
    put(folder, records)
    return raykd.open(folder)


def test_each_student_of_the_front_is_exported(sized: raykd.Sweep, tmp_path: Path) -> None:
    names = [trial.name for trial in sized.front()]
    assert names and sized.best().name in names
    folders = sized.export_front(tmp_path / "out")
    assert [folder.name for folder in folders] == names
    assert all((folder / "student").is_dir() and (folder / "config.yaml").exists() for folder in folders)


def test_the_verbs(sized: raykd.Sweep, tmp_path: Path) -> None:
    storage = ["--storage", str(sized.path.parent)]
    said = json.loads(verb("best", "finished", "--front", "--json", *storage).stdout)
    assert [row["trial"] for row in said] == [trial.name for trial in sized.front()]
    assert said[0]["trial"] in verb("best", "finished", "--front", *storage).stdout
