"""`raykd compare`: spec differences, scores at equal compute, intervals over seeds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import raykd
from histories import a_sweep, put
from ledger_records import record, report
from scipy import stats

import raykd as package
from raykd.overview.compare import Comparison, compare
from raykd.overview.progress import leaders, seconds_spent
from raykd.records.ledger import Ledger
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError
from trainables.training.flat_names import flatten

AXES = {"lr": [0.001, 0.01]}
Curves = list[tuple[float, int, list[float]]]  # learning rate, seed, score after each epoch


def write(folder: Path, curves: Curves, device: str = "CPU", code: str = "", **changes: Any) -> Path:
    """The ledger of a sweep with these trials, one after the other, ten seconds an epoch."""
    spec = a_sweep(AXES, len(curves), **{"seeds": sorted({seed for _, seed, _ in curves}), **changes})
    recorded = {**spec.model_dump(mode="json"), "name": folder.name}
    head = {"spec": recorded, "spec_hash": "0" * 8, "source": None, "sampler": {}, "scheduler": {}}
    versions = {"raykd": "0.1.0"}
    time = 100.0
    records = [record("sweep", time, **head, versions=versions)]
    if code:
        records[0]["plugins"] = {"own": {"code": code, "file": "own.py", "files": {}}}
    records.append(record("driver", time, event="start", host="h", pid=1, versions={}, device=device))
    for number, (rate, seed, scores) in enumerate(curves):
        name, params = f"{number:08x}", {"lr": rate}
        about = {"trial": name, "number": number, "arm": f"{rate:08.4f}"[-8:], "replicate": seed}
        config = flatten(spec.trial(params, seed))
        more = {"params": params, "config": config, "origin": "sampler", "attrs": {}}
        records.append(record("suggest", time, **about, **more))
        records.append(record("start", time, trial=name, attempt=1, lane="lane-0"))
        for epoch, score in enumerate(scores, start=1):
            time += 10
            records.append(report(name, epoch, score, time))
        records.append(record("end", time, trial=name, status="finished", reason=None))
        time += 1000  # a pause, which is no training
    put(folder, records)
    return folder


def compared(*folders: Path) -> Comparison:
    return compare([open_sweep(folder) for folder in folders])


def test_the_best_after_equal_numbers_of_epochs_and_hours(tmp_path: Path) -> None:
    """The smaller sweep's budget and parts of it; pauses do not count."""
    a = write(tmp_path / "a", [(0.001, 0, [10, 20, 30, 40]), (0.01, 0, [15, 25, 35, 50])])
    b = write(tmp_path / "b", [(0.01, 0, [12, 22]), (0.001, 0, [60, 30])])
    found = compared(a, b)
    assert found.by_epochs == [[1, 10, 12], [2, 20, 22], [4, 40, 60]]
    assert [[round(3600 * row[0]), *row[1:]] for row in found.by_hours] == [
        [5, None, None], [10, 10, 12], [20, 20, 22], [40, 40, 60],
    ]  # fmt: skip
    ahead = found.ahead
    assert ahead is not None and (ahead.name, ahead.second, ahead.by, ahead.low) == ("b", "a", 20, None)
    assert "one seed" in ahead.said
    assert found.differences == []


def test_an_interval_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    """Paired: that of Student's t for the differences. The leader is the setting with the best mean."""
    ours, theirs = [70.0, 72.0, 71.5], [69.0, 70.0, 71.0]
    a = write(tmp_path / "a", [(0.01, s, [x]) for s, x in enumerate(ours)] + [(0.001, 0, [50.0])])
    b = write(tmp_path / "b", [(0.001, s, [x]) for s, x in enumerate(theirs)] + [(0.01, 0, [90.0])])
    ahead = compared(a, b).ahead
    assert ahead is not None and (ahead.name, ahead.seeds) == ("a", 3)
    low, high = stats.ttest_1samp([x - y for x, y in zip(ours, theirs, strict=True)], 0).confidence_interval()
    assert (ahead.low, ahead.high) == pytest.approx((low, high))
    assert ahead.by == pytest.approx(sum(ours) / 3 - sum(theirs) / 3)
    one = write(tmp_path / "c", [(0.01, 0, [10.0]), (0.001, 0, [60.0])])
    ahead = compared(a, one).ahead
    assert ahead is not None and ahead.low is None and "higher by luck" in ahead.said


def test_hours_of_gpus_count_the_gpus_of_a_lane(tmp_path: Path) -> None:
    curves: Curves = [(0.01, 0, [10, 20, 30, 40])]
    a = write(tmp_path / "a", curves, "GPU", workers={"count": 2, "gpus": 1})
    b = write(tmp_path / "b", curves, "GPU", workers={"count": 1, "gpus": 0.5})
    found = compared(a, b)
    assert found.hours_of == "GPU"
    assert [round(3600 * row[0], 3) for row in found.by_hours] == [2.5, 5, 10, 20]
    assert found.by_hours[-1][1:] == [10, 40]
    c = write(tmp_path / "c", curves, "CPU")
    assert compared(a, c).by_hours == [] and compared(a, c).by_epochs
    rows = {row[0]: row[1:] for row in found.differences}
    assert rows == {"workers.count": [2, 1], "workers.gpus": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": {"name": "digits", "image_size": 32}}, "data.image_size"),
        ({"data": {"name": "digits", "image_size": 16, "validation": 0.5}}, "data.validation"),
        ({"data": {"name": "digits", "image_size": 16, "split_seed": 1}}, "data.split_seed"),
        ({"probe": {"score": "ridge_1shot"}}, "probe.score"),
        ({"probe": {"point": "head"}}, "probe.point"),
        ({"fixed": {"probe.draws": 10}}, "probe.draws"),
    ],
)
def test_scores_of_other_images_or_another_probe_are_not_compared(
    change: dict[str, Any], field: str, tmp_path: Path
) -> None:
    a, b = (write(tmp_path / name, [(0.01, 0, [50.0])], **more) for name, more in (("a", {}), ("b", change)))
    found = compared(a, b)
    assert list(found.incomparable) == [field] and found.differences
    assert (found.by_epochs, found.by_hours, found.ahead) == ([], [], None)
    done = raykd("compare", "a", "b", "--storage", tmp_path)
    assert done.returncode == 1 and f"{field}  a: " in done.stdout and "hours" not in done.stdout


@pytest.mark.parametrize(
    "change", [{"probe": {"every": 2}}, {"probe": {"record": ["knn"]}}, {"epochs": 8}, {"method": "seed"}]
)
def test_what_changes_no_score_s_meaning_is_no_hindrance(change: dict[str, Any], tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, [(0.01, 0, [50.0])], **more) for name, more in (("a", {}), ("b", change)))
    found = compared(a, b)
    assert not found.incomparable and found.by_epochs and found.differences


def test_a_score_that_ranks_trials_of_one_method(tmp_path: Path) -> None:
    probe = {"probe": {"score": "rankme"}}
    a, b, c = (
        write(tmp_path / name, [(0.01, 0, [50.0])], **probe, method=method)
        for name, method in (("a", "retro"), ("b", "seed"), ("c", "retro"))
    )
    assert list(compared(a, b).incomparable) == ["method"]
    assert not compared(a, c).incomparable


def test_code_of_ones_own_is_a_difference_and_no_hindrance_for_raykd_s_probes(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [(0.01, 0, [50.0])], code="1" * 8)
    b = write(tmp_path / "b", [(0.01, 0, [51.0])], code="2" * 8)
    found = compared(a, b)
    assert found.differences == [["code.own", "1" * 8, "2" * 8]]
    assert not found.incomparable


def test_a_probe_of_another_code_is_refused(tmp_path: Path) -> None:
    """Also where that code is not here."""
    folders = []
    for name, code in (("a", "1" * 8), ("b", "2" * 8), ("c", "1" * 8)):
        folder = write(tmp_path / name, [(0.01, 0, [50.0])], code=code)
        records = Ledger.read(folder)
        for each in records:
            if each["kind"] == "suggest":
                each["config"]["probe.score"] = "raykd_own_probe"
        put(folder, records)
        folders.append(folder)
    a, b, c = folders
    assert list(compared(a, b).incomparable) == ["plugins.own"]
    assert not compared(a, c).incomparable


def test_a_sweep_without_a_score_yet(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [(0.01, 0, [50.0])])
    b = write(tmp_path / "b", [(0.01, 0, [])])
    assert (compared(a, b).by_epochs, compared(a, b).ahead) == ([], None)
    done = raykd("compare", "a", "b", "--storage", tmp_path)
    assert done.returncode == 0 and "nothing to compare" in done.stdout


def test_three_from_python_and_the_command_line(tmp_path: Path) -> None:
    """By name in one storage, or by folder, also two of one name."""
    folders = [
        write(tmp_path / where / "s", [(0.01, 0, [score])]) for where, score in (("x", 1.0), ("y", 2.0))
    ]
    third = write(tmp_path / "x" / "t", [(0.01, 0, [3.0]), (0.001, 0, [float("nan")])])
    found = package.compare(*folders, third)
    assert found.names == [str(folders[0]), str(folders[1]), "t"]
    assert found.by_epochs == [[1, 1.0, 2.0, 3.0]]
    assert found.ahead is not None and (found.ahead.name, found.ahead.second) == ("t", str(folders[1]))
    assert package.compare("s", "t", storage=tmp_path / "x").names == ["s", "t"]
    done = raykd("compare", "s", third, "--storage", tmp_path / "y", "--json")
    assert json.loads(done.stdout)["by_epochs"] == [[1, 2.0, 3.0]]
    for names, said in ((["s"], "nothing to compare it with"), (["s", "s"], "stands there twice")):
        with pytest.raises(UserError, match=said):
            package.compare(*names, storage=tmp_path / "x")


def test_progress_counts_reports_and_seconds_of_training() -> None:
    """Of two trials at once both count; what is before the first score has no leader."""
    about = {"arm": "a" * 8, "replicate": 0, "params": {}, "config": {}, "origin": "sampler", "attrs": {}}
    records = [record("sweep", 0.0, spec={"name": "s", "samples": 2, "seeds": [0]})]
    for number, name in enumerate(("x", "y")):
        records.append(record("suggest", 0.0, trial=name, number=number, **about))
        records.append(record("start", 0.0, trial=name, attempt=1, lane=name))
    records += [report("x", 1, float("nan"), 5.0), report("y", 1, 40.0, 8.0), report("x", 1, 99.0, 9.0)]
    assert seconds_spent(records) == [5.0, 13.0]
    assert leaders(records, [0, 1, 2, 2]) == [{}, {}, {0: 40.0}, {0: 40.0}]


def test_another_folder_of_images_is_other_images(tmp_path: Path) -> None:
    """A set that is the same everywhere may lie elsewhere."""
    folders = []
    for name in ("digits", "folder"):
        for side in "ab":
            folder = write(tmp_path / f"{name}-{side}", [(0.01, 0, [50.0])])
            records = Ledger.read(folder)
            for each in records:
                if each["kind"] == "suggest":
                    each["config"] |= {"data.name": name, "data.path": f"/{side}"}
            put(folder, records)
            folders.append(folder)
    assert not compared(*folders[:2]).incomparable
    assert compared(*folders[2:]).incomparable == {"data.path": [["/a"], ["/b"]]}


def test_an_older_ledger_has_the_defaults_of_fields_that_came_later(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, [(0.01, 0, [50.0])]) for name in "ab")
    records = Ledger.read(b)
    for each in records:
        if each["kind"] == "suggest":
            del each["config"]["data.fit"], each["config"]["data.keep"]
    put(b, records)
    assert not compared(a, b).incomparable
