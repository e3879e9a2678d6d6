"""Which networks are evaluated, which jobs are left, and what the records say together."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input import SWEEP
from ledger_records import record
from simulated import drive
from studies import GAMMA, study

from raykd.evaluations import tables
from raykd.evaluations.jobs import Job, jobs_of
from raykd.evaluations.networks import Network, Selection, chosen, find_networks
from raykd.evaluations.results import OUTCOMES, gather, outcomes_of
from raykd.records.evaluations import evaluations_table, readings, trial_columns
from raykd.records.history import History
from raykd.records.ledger import TRIALS, Ledger
from raykd.records.tables import trials_table
from raykd.spec.document import parse_yaml
from raykd.spec.search import SearchSpec, build_sweep
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError
from trainables.spec.parse import build
from trainables.spec.suite import SuiteSpec
from trainables.spec.trial import DataSpec
from trainables.training.resolve import resolve

RAW = parse_yaml(SWEEP, "")
TASKS = {"linear": {"task": "frozen", "probe": "ridge"}, "near": {"task": "frozen", "probe": "knn"}}


def suite(name: str = "quick", **change: Any) -> SuiteSpec:
    return build(SuiteSpec, {"name": name, "tasks": TASKS, **change})


def a_search(folder: Path, **change: Any) -> tuple[SearchSpec, History]:
    """A search that has ended, whose trials have all left a file."""
    spec = build_sweep({**RAW, "samples": 3, "scheduler": "none", **change})
    history = drive(folder, spec)
    for trial in history.trials:
        (folder / TRIALS / trial).mkdir(parents=True, exist_ok=True)
        (folder / TRIALS / trial / "best.safetensors").write_bytes(b"a student")
    return spec, history


def test_of_a_search_the_best_configurations_with_all_of_their_seeds(tmp_path: Path) -> None:
    spec, history = a_search(tmp_path / "small", seeds=[3, 1])
    found = find_networks(spec, history, open_sweep(tmp_path / "small"), Selection(2, (), ("start",)))
    students = [network for network in found.networks if network.who == "student"]
    assert [network.seed for network in students] == [1, 3, 1, 3] and len({n.row for n in students}) == 2
    best = history.best()
    assert best is not None and best.trial in {network.name for network in students[:2]}
    assert all(network.trial.signature() == network.signature == network.name for network in students)
    starts = [network for network in found.networks if network.who == "start"]
    assert [network.seed for network in starts] == [1, 3], "one of each seed, not of each configuration"
    assert len({network.row for network in starts}) == 1 and len({network.name for network in starts}) == 2


def test_trials_by_name(tmp_path: Path) -> None:
    spec, history = a_search(tmp_path / "small", seeds=[0, 1])
    name = list(history.trials)[2]
    (found,) = chosen(spec, history, Selection(1, (name[:6],))).items()
    of_row = [t for t in history.trials.values() if t.arm == history.trials[name].arm]
    assert found == (min(of_row, key=lambda t: t.replicate).trial, [history.trials[name]])
    second = next(t.trial for t in history.trials.values() if t.replicate == 1)
    (row,) = chosen(spec, history, Selection(1, (second,)))
    assert row in chosen(spec, history, Selection(9)) and row != second, "the row that it has among all"
    with pytest.raises(UserError, match=r"^trial: no such trial"):
        chosen(spec, history, Selection(1, ("zz",)))
    history.trials[name].status = "failed"
    with pytest.raises(UserError, match=r"^--trials: has left no student to evaluate: it is failed"):
        chosen(spec, history, Selection(1, (name,)))


def test_a_student_whose_file_is_gone_is_left_out_and_said(tmp_path: Path) -> None:
    spec, history = a_search(tmp_path / "small")
    best = next(iter(chosen(spec, history, Selection())))
    (tmp_path / "small" / TRIALS / best / "best.safetensors").unlink()
    with pytest.raises(UserError, match=r"is left out: .*best\.safetensors is gone; `raykd resume small"):
        find_networks(spec, history, open_sweep(tmp_path / "small"), Selection(1, (), ()))
    found = find_networks(
        spec, history, open_sweep(tmp_path / "small"), Selection(3, (), ("teacher", "baseline"))
    )
    assert len(found.networks) == 2 and len(found.remarks) == 2, "it, and a teacher that was never trained"
    assert any("the teacher, test_resnet is left out" in remark for remark in found.remarks)


def test_no_trial_with_a_score_is_said(tmp_path: Path) -> None:
    spec = build_sweep(RAW)
    with pytest.raises(UserError, match="no trial of it has ended with a score"):
        find_networks(spec, History(), open_sweep(tmp_path / "none"), Selection())


def test_of_a_study_every_arm_in_its_order(tmp_path: Path) -> None:
    spec = study(GAMMA, replicates=2)
    history = drive(tmp_path / "gamma", spec)
    rows = chosen(spec, history, Selection())
    assert list(rows) == list(spec.arms)
    assert all([trial.replicate for trial in trials] == [0, 1] for trials in rows.values())


def network(name: str, row: str = "", seed: int | None = 0, who: Any = "student", **data: Any) -> Network:
    trial = resolve({
        "method": "moco", "preset": "digits", "epochs": 1, "student": {"arch": "test_efficientnet"},
        "data": {"name": "digits", "image_size": 16, **data},
    })  # fmt: skip
    return Network(who, name, row or name, trial, name if who == "student" else None, seed)


def recorded(job: Job, score: float = 70.0, reason: str | None = None, **more: float) -> dict[str, Any]:
    """The record of a job that has ended."""
    metrics = {"score": score, "fitted": 100.0, "tested": 50.0, **more} if reason is None else {}
    return record("evaluated", **job.record(metrics, reason))


def test_what_is_recorded_is_not_run_again() -> None:
    networks = [network("aaaa0000"), network("bbbb0000", seed=1)]
    jobs = jobs_of(networks, [suite(seeds=[0, 5])], [], False)
    assert len(jobs.run) == len({job.id for job in jobs.run}) == 8 and not jobs.known
    assert [job.name for job in jobs.run[:4]] == ["linear"] * 4, (
        "task by task, so that whole columns come first"
    )
    records = [recorded(job) for job in jobs.run[:3]] + [recorded(jobs.run[3], reason="no memory")]
    left = jobs_of(networks, [suite(seeds=[0, 5])], records, False)
    assert [job.id for job in left.run] == [job.id for job in jobs.run[4:]] and left.known == 3
    again = jobs_of(networks, [suite(seeds=[0, 5])], records, True)
    assert [job.id for job in again.run] == [job.id for job in jobs.run[3:]], "a failure is no result"


def test_another_size_of_images_is_another_job_and_the_same_split() -> None:
    small, large = network("aaaa0000"), network("aaaa0000", image_size=24)
    one, other = (jobs_of([net], [suite()], [], False).run[0] for net in (small, large))
    assert one.key != other.key and one.split == other.split == "digits"
    task = suite().tasks["linear"]
    here, there = (DataSpec(name="folder", path=Path(path)) for path in ("/a", "/b"))
    assert task.split(here) != task.split(there)


def test_a_detector_reads_its_own_images_and_not_the_split_of_the_student(tmp_path: Path) -> None:
    parts = {name: {"images": tmp_path / name, "annotations": tmp_path / f"{name}.json"} for name in "abc"}
    for name in parts:
        (tmp_path / f"{name}.json").write_text(f'{{"images": "{name}"}}')
    tasks = {
        name: {"task": "detection", "epochs": 1, "train": parts["a"], "val": parts[name]}
        for name in ("b", "c")
    }
    one, other = jobs_of([network("aaaa0000")], [suite(tasks=tasks)], [], False).run
    assert one.split.startswith("b-") and other.split.startswith("c-")
    assert one.task.images(one.network.trial.data) == "b"


def test_a_task_that_two_suites_have_is_run_once_and_stands_in_both() -> None:
    networks = [network("aaaa0000")]
    other = suite("other", tasks={"ridge": TASKS["linear"]})
    both = jobs_of(networks, [suite(), other], [], False)
    assert len(both.run) == 2
    records = [recorded(job, 60.0 + at) for at, job in enumerate(both.run)]
    after = jobs_of(networks, [suite(), other], records, False)
    assert not after.run and len(after.renamed) == 1
    records += [record("evaluated", **fields) for fields in after.renamed]
    assert not jobs_of(networks, [suite(), other], records, False).renamed
    found = gather(records, None)
    assert found.columns == ("evaluate/quick/linear", "evaluate/quick/near", "evaluate/other/ridge")
    assert found.rows[0].cells["evaluate/other/ridge"].mean == 60
    assert [reading.times for reading in readings(records)] == [1], "it was read by one suite"


def test_a_result_in_another_row_is_recorded_in_the_row_that_it_has_now() -> None:
    alone = [recorded(job, 60.0) for job in jobs_of([network("s1", "s1", 1)], [suite()], [], False).run]
    nets = [network("s0", "s0", 0), network("s1", "s0", 1)]
    jobs = jobs_of(nets, [suite()], alone, False)
    records = alone + [recorded(job, 70.0) for job in jobs.run]
    records += [record("evaluated", **fields) for fields in jobs.renamed]
    (row,) = gather(records, None).rows
    assert (row.name, row.cells["evaluate/quick/linear"].runs) == ("s0", 2)
    assert not jobs_of(nets, [suite()], records, False).renamed


def test_students_that_came_with_other_weights_are_no_seeds_of_one_row() -> None:
    records = []
    for name, seed, score in (("a", 0, 10.0), ("a", 1, 12.0), ("b", 0, 50.0)):
        net = network(f"start-{name}-{seed}", "the student, untrained", seed, "start")
        records += [recorded(job, score) for job in jobs_of([net], [suite()], records, False).run]
    rows = {row.name: row.cells["evaluate/quick/linear"] for row in gather(records, None).rows}
    assert {name: (cell.mean, cell.runs) for name, cell in rows.items()} == {
        "the student, untrained (a)": (11.0, 2),
        "the student, untrained (b)": (50.0, 1),
    }


def test_a_searched_student_is_named_in_its_row_whichever_is_chosen(tmp_path: Path) -> None:
    def rows(folder: str, **change: Any) -> set[str]:
        spec, history = a_search(tmp_path / folder, **change)
        found = find_networks(spec, history, open_sweep(tmp_path / folder), Selection(1, (), ("start",)))
        return {network.row for network in found.networks if network.who == "start"}

    axes = {"student.arch": {"pick": ["test_efficientnet", "test_resnet"]}}
    (row,) = rows("searched", axes=axes)
    assert row.startswith("the student, untrained (test_") and rows("one") == {"the student, untrained"}


def test_going_back_to_former_settings_shows_their_results() -> None:
    nets, changed = (
        [network("aaaa0000")],
        suite(tasks={**TASKS, "linear": {"task": "frozen", "probe": "ridge_5shot"}}),
    )
    records = list[dict[str, Any]]()
    for asked, score in ((suite(), 50.0), (changed, 80.0), (suite(), math.nan)):
        jobs = jobs_of(nets, [asked], records, False)
        records += [recorded(job, score) for job in jobs.run]
        records += [record("evaluated", **fields) for fields in jobs.renamed]
    assert gather(records, None).rows[0].cells["evaluate/quick/linear"].mean == 50
    assert not jobs_of(nets, [suite()], records, False).renamed
    assert [reading.times for reading in readings(records)] == [2], "nothing was read for it"


def test_a_changed_suite_reads_the_split_once_more() -> None:
    nets = [network("aaaa0000")]
    first = jobs_of(nets, [suite()], [], False).run
    records = [recorded(job) for job in first]
    assert [reading.times for reading in readings(records)] == [1], "two tasks of one suite"
    more = suite(tasks={**TASKS, "five": {"task": "frozen", "probe": "ridge_5shot"}})
    records += [recorded(job) for job in jobs_of(nets, [more], records, False).run]
    (reading,) = readings(records)
    assert (reading.network, reading.split, reading.times) == ("aaaa0000", "digits", 2)
    found = gather(records, None)
    assert found.rows[0].cells["evaluate/quick/five"].reads == 2
    assert any("read 2 times" in note and "aaaa0000" in note for note in tables.notes(found))
    other = jobs_of(
        nets, [suite("other", tasks={"shot": {"task": "frozen", "probe": "ridge_1shot"}})], [], False
    )
    records += [recorded(job) for job in other.run]
    alone = gather(records, None, suites=["other"])
    assert alone.rows[0].cells["evaluate/other/shot"].reads == 3, "also where the other suites are not shown"
    assert any("read 3 times" in note for note in tables.notes(alone))
    records = records[:-1]
    assert evaluations_table(records)["reads"].to_pylist() == [2, 2, 2]


def test_a_task_that_was_changed_under_its_name_shares_no_column_with_its_former_self() -> None:
    nets = [network("aaaa0000"), network("bbbb0000")]
    records = [recorded(job, 50.0) for job in jobs_of(nets, [suite()], [], False).run]
    changed = suite(tasks={"linear": {"task": "frozen", "probe": "ridge_5shot"}})
    records += [recorded(job, 80.0) for job in jobs_of(nets[:1], [changed], records, False).run]
    found = gather(records, None)
    cells = {row.name: row.cells.get("evaluate/quick/linear") for row in found.rows}
    assert cells["aaaa0000"] is not None and cells["aaaa0000"].mean == 80 and cells["bbbb0000"] is None
    columns = trial_columns(records, ["aaaa0000", "bbbb0000"])
    assert columns["evaluate/quick/linear"].to_pylist() == [80.0, None]
    assert columns["evaluate/quick/near"].to_pylist() == [50.0, 50.0]


def test_trials_have_the_mean_over_the_seeds_of_a_suite(tmp_path: Path) -> None:
    _, history = a_search(tmp_path / "small")
    names = list(history.trials)
    for seed, score in ((0, 70.0), (1, 74.0)):
        job = Job(network(names[1]), "quick", "00000000", "linear", suite().tasks["linear"], seed)
        history.add(recorded(job, score))
    table = trials_table(history)
    assert table["evaluate/quick/linear"].to_pylist() == [None, 72.0, None]
    assert history.snapshot().evaluated == history.evaluated


def test_the_ledger_holds_a_record_and_reads_it_back(tmp_path: Path) -> None:
    job = jobs_of([network("aaaa0000")], [suite()], [], False).run[0]
    with Ledger.create(tmp_path / "s") as ledger:
        ledger.append("evaluated", **job.record({"score": 70.0}))
        ledger.append("evaluated", **job.record({}, "it failed"))
    assert [one["metrics"] for one in History.of(Ledger.read(tmp_path / "s")).evaluated] == [
        {"score": 70.0},
        {},
    ]


RNG = np.random.default_rng(0)
EASY = RNG.random(200)


def with_outcomes(folder: Path, job: Job, share: float, labels: np.ndarray | None = None) -> dict[str, Any]:
    """The record of a job that has left what became of each image, in an order of its own."""
    hits = (EASY * share > RNG.random(200) * 0.5).astype(np.float64)
    given = np.arange(200) % 4 if labels is None else labels
    order = RNG.permutation(200)
    place = folder / job.folder
    place.mkdir(parents=True)
    np.savez_compressed(place / OUTCOMES, hits=hits[order], ids=np.arange(200)[order], labels=given[order])
    score = hits.mean() if labels is None else np.mean([hits[labels == c].mean() for c in np.unique(labels)])
    return recorded(job, float(np.float32(100 * score)))


def jobs_for(*networks: Network) -> list[Job]:
    return jobs_of(networks, [suite(tasks={"linear": TASKS["linear"]})], [], False).run


def test_rows_are_means_over_seeds_with_intervals_over_seeds_and_images(tmp_path: Path) -> None:
    nets = [network(f"aaaa000{seed}", "ours", seed) for seed in (0, 1, 2)]
    nets += [
        network("teacher-1", "the teacher", None, "teacher"),
        network("baseline-1", "none", 0, "baseline"),
    ]
    records = [with_outcomes(tmp_path, job, 0.9) for job in jobs_for(*nets)]
    found = gather(records, open_sweep(tmp_path))
    ours, none, teacher = found.rows
    (cell,) = ours.cells.values()
    assert (ours.who, none.who, teacher.who) == ("student", "baseline", "teacher") and found.base == "none"
    assert cell.over == "runs and images" and cell.runs == 3
    assert cell.mean == pytest.approx(np.mean([r["metrics"]["score"] for r in records[:3]]))
    assert [row.cells[found.columns[0]].over for row in (none, teacher)] == ["images", "images"]
    assert ours.differences[found.columns[0]].pairs == 3, "each seed with the one baseline"
    assert not none.differences and gather(records, open_sweep(tmp_path), "teacher").base == "the teacher"
    with pytest.raises(UserError, match=r"^--base: has not been evaluated"):
        gather(records, open_sweep(tmp_path), "start")
    columns, rows = tables.scores(found)
    assert columns == ["network", "runs", "linear"] and [row[1] for row in rows] == ["3", "1", "1"]
    assert all("[" in row[2] for row in rows)
    shown = tables.compared(found)
    assert shown is not None and all(", p " in row[1] for row in shown[1])


def test_without_what_became_of_each_image_there_are_the_seeds_alone(tmp_path: Path) -> None:
    nets = [network(f"aaaa000{seed}", "ours", seed) for seed in (0, 1, 2)] + [
        network("t", "t", None, "teacher")
    ]
    records = [with_outcomes(tmp_path, job, 0.9) for job in jobs_for(*nets)]
    (tmp_path / records[1]["folder"] / OUTCOMES).write_bytes(b"torn")
    (tmp_path / records[3]["folder"] / OUTCOMES).unlink()
    ours, teacher = gather(records, open_sweep(tmp_path)).rows
    (cell,), (single,) = ours.cells.values(), teacher.cells.values()
    assert cell.over == "runs" and single.over == "" and math.isnan(single.interval.low)
    assert ours.differences["evaluate/quick/linear"].over == "runs"


def test_a_score_that_is_a_mean_over_classes_is_known_by_its_value(tmp_path: Path) -> None:
    labels = np.array([0] * 150 + [1] * 50)
    nets = [network("aaaa0000", "plain"), network("bbbb0000", "by class")]
    plain, by_class = jobs_for(*nets)
    records = [with_outcomes(tmp_path, plain, 0.7), with_outcomes(tmp_path, by_class, 0.7, labels)]
    widths = [
        next(iter(row.cells.values())).interval.half_width
        for row in gather(records, open_sweep(tmp_path)).rows
    ]
    assert widths[1] > widths[0]
    records[1]["metrics"]["score"] -= 7  # now it is neither mean
    assert gather(records, open_sweep(tmp_path)).rows[1].cells["evaluate/quick/linear"].over == ""


@pytest.mark.parametrize("kept", [True, False])
def test_a_score_at_which_both_means_agree_is_read_as_the_others_are(kept: bool, tmp_path: Path) -> None:
    labels = np.array([0] * 150 + [1] * 50)
    nets = [
        network("aaaa0000", "ours", 0),
        network("aaaa0001", "ours", 1),
        network("t", "t", None, "teacher"),
    ]
    records = [
        with_outcomes(tmp_path, job, share, labels)
        for job, share in zip(jobs_for(*nets), (0.7, 9, 9), strict=True)
    ]
    for one in records[1:]:
        place = tmp_path / one["folder"] / OUTCOMES
        metric = {"metric": np.array("mean_per_class")} if kept else {}
        np.savez_compressed(place, hits=np.ones(200), ids=np.arange(200), labels=labels, **metric)
        one["metrics"]["score"] = 100.0
    if kept:
        outcomes = outcomes_of(records[1], open_sweep(tmp_path))
        assert outcomes is not None and outcomes.metric == "mean_per_class"
        (tmp_path / records[0]["folder"] / OUTCOMES).unlink()
    ours, _ = gather(records, open_sweep(tmp_path), "teacher").rows
    column = "evaluate/quick/linear"
    assert ours.cells[column].over == ("runs" if kept else "runs and images")
    difference = ours.differences[column]
    assert difference.interval.low <= difference.mean <= difference.interval.high
    if not kept:
        (alone,) = gather([records[0]], open_sweep(tmp_path)).rows
        assert alone.cells[column].over == "images"
        assert difference.interval.half_width > 0 and difference.mean == pytest.approx(
            ours.cells[column].mean - 100
        )


def test_a_network_that_was_tested_with_several_seeds_of_the_task(tmp_path: Path) -> None:
    nets = [
        network("aaaa0000", "ours", 0),
        network("aaaa0001", "ours", 1),
        network("t", "t", None, "teacher"),
    ]
    wanted = jobs_of(nets, [suite(tasks={"linear": TASKS["linear"]}, seeds=[0, 1, 2])], [], False).run
    records = [with_outcomes(tmp_path, job, 0.9) for job in wanted]
    ours, teacher = gather(records, open_sweep(tmp_path)).rows
    assert ours.cells["evaluate/quick/linear"].runs == 2 and teacher.cells["evaluate/quick/linear"].runs == 1
    assert ours.differences["evaluate/quick/linear"].pairs == 2


def test_failures_are_said_and_later_results_take_their_place() -> None:
    (job,) = jobs_for(network("aaaa0000", "ours", 3))
    failed = [recorded(job, reason="out of memory")]
    assert (
        gather(failed, None).failed == ("linear on ours, seed 3: out of memory",)
        and not gather(failed, None).rows
    )
    assert tables.notes(gather(failed, None)) == ["failed: linear on ours, seed 3: out of memory"]
    assert not gather([*failed, recorded(job)], None).failed


def test_suites_of_one_name_are_shown_alone() -> None:
    nets = [network("aaaa0000")]
    jobs = jobs_of(
        nets, [suite(), suite("other", tasks={"five": {"task": "frozen", "probe": "ridge_5shot"}})], [], False
    )
    records = [recorded(job) for job in jobs.run]
    assert gather(records, None, suites=["other"]).columns == ("evaluate/other/five",)
    assert tables.titles(gather(records, None).columns) == ["quick/linear", "quick/near", "other/five"]
    plain = tables.data(gather(records, None))
    assert [row["task"] for row in plain["rows"]] == ["linear", "near", "five"]


def test_a_record_is_of_the_job_that_it_is_of() -> None:
    (job,) = jobs_for(network("aaaa0000"))
    same = dataclasses.replace(job, suite="other")
    assert same.key == job.key and same.folder == job.folder and same.record({})["suite"] == "other"


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_damaged_file_of_outcomes_is_as_none(kept: float, tmp_path: Path) -> None:
    sweep = open_sweep(tmp_path / "small")
    path = tmp_path / "small" / "task" / OUTCOMES
    path.parent.mkdir(parents=True)
    ids = np.arange(200)
    np.savez_compressed(path, hits=np.random.default_rng(0).random(200), ids=ids, labels=ids % 3)
    found = outcomes_of({"folder": "task"}, sweep)
    assert found is not None and len(found.hits) == 200
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert outcomes_of({"folder": "task"}, sweep) is None
    flipped = bytearray(whole)
    flipped[int(kept * 1000) + 60] ^= 0xFF
    path.write_bytes(flipped)
    outcomes_of({"folder": "task"}, sweep)  # whatever it finds, no error of zip, zlib or NumPy ends a table
