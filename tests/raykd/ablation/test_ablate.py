"""`raykd ablate`, end to end, on one real study; and the other verbs on it."""

from __future__ import annotations

import csv
import json
import math
import random
import subprocess
import time
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest
from command import raykd
from invariants import all_gone, check
from kills import Sweep

from raykd.records.history import History
from raykd.records.ledger import Ledger

pytestmark = pytest.mark.ray

STUDY = """\
# A study that takes seconds once its lanes are warm.
name: gamma
base:
  method: retro
  preset: digits
  student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
  teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 1}}
  data: {name: digits, image_size: 16}
  views: {recipe: digits, strength: 0.5}
  epochs: 1
  fixed: {queue_size: 256}
design: one_at_a_time
factors:
  gamma: [0.1, 3.0]
replicates: 3
lanes: 1
published: {source: "Table 9", values: {"3.0": 81.5}}
"""
Ran = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    storage = tmp_path_factory.mktemp("studies")
    spec = storage / "gamma.yaml"
    spec.write_text(STUDY)
    return storage, raykd("ablate", spec, "--storage", storage)


@pytest.fixture(scope="module")
def storage(ran: Ran) -> Path:
    assert ran[1].returncode == 0, ran[1].stdout + ran[1].stderr
    return ran[0]


def test_a_study_says_what_its_data_support(ran: Ran) -> None:
    out = ran[1].stdout
    assert ran[1].returncode == 0, out + ran[1].stderr
    for said in (
        "gamma=0.1",
        "gamma=3.0",
        "p (Holm)",
        "equal epochs (1)",
        "the paper's",
        "81.50",
        "Table 9",
        "flops a step",
        "×1.00",
    ):
        assert said in out, out


def test_the_tables_say_what_the_ledger_says(storage: Path) -> None:
    folder = storage / "gamma"
    history = History.of(Ledger.read(folder))
    scores: dict[str, dict[int, float]] = {}
    for trial in history.trials.values():
        scores.setdefault(trial.params["arm"], {})[trial.replicate] = trial.reports[1]["score"]
    assert {arm: sorted(found) for arm, found in scores.items()} == {
        "gamma=0.1": [0, 1, 2],
        "gamma=3.0": [0, 1, 2],
    }
    with (folder / "ablation.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    for arm, found in scores.items():
        assert math.isclose(float(rows[arm]["mean"]), fmean(found.values()))
    paired = [scores["gamma=3.0"][seed] - scores["gamma=0.1"][seed] for seed in range(3)]
    assert math.isclose(float(rows["gamma=3.0"]["difference"]), fmean(paired))
    assert rows["gamma=3.0"]["published_by_the_paper"] == "81.5"
    assert rows["gamma=0.1"]["published_by_the_paper"] == ""
    assert float(rows["gamma=3.0"]["flops"]) == 7 * float(rows["gamma=3.0"]["step_flops"]) > 1e9
    assert r"\toprule" in (folder / "ablation.tex").read_text()
    assert "| gamma=3.0 | 3 |" in (folder / "ablation.md").read_text()
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    assert {(row["arm_name"], row["replicate"], row["config/gamma"]) for row in trials} == {
        (arm, seed, gamma) for arm, gamma in (("gamma=0.1", 0.1), ("gamma=3.0", 3.0)) for seed in range(3)
    }


@pytest.mark.slow
def test_a_study_that_was_killed_ends_with_the_same_table(storage: Path, tmp_path: Path) -> None:
    moments, rows = random.Random(time.time_ns()), []
    study = Sweep(tmp_path, "gamma", STUDY, "ablate")
    for _ in range(2):
        study.go_on()
        reports = len(study.history.arrivals) + 1
        assert study.wait(lambda h, reports=reports: len(h.arrivals) >= reports), study.text()
        time.sleep(moments.uniform(0, 0.5))
        study.kill()
    done = raykd("ablate", "gamma", "--storage", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check(study.folder)
    all_gone(study.mark)
    for folder in (study.folder, storage / "gamma"):
        with (folder / "ablation.csv").open() as file:
            rows.append([{**row, "wall_s": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    for table, costs in (("ablation.md", "## Cost"), ("ablation.tex", "the cost of a trial")):
        # Seconds stand among the costs, and are not the same twice.
        texts = [
            (folder / table).read_text().partition(costs) for folder in (study.folder, storage / "gamma")
        ]
        assert texts[0][1] == costs and texts[0][0] == texts[1][0]


def test_the_verbs_of_sweeps_work_on_a_study(storage: Path, tmp_path: Path) -> None:
    standing = json.loads(raykd("status", "gamma", "--storage", storage, "--json").stdout)
    assert standing["state"] == "done" and standing["trials"]["finished"] == 6
    best = json.loads(raykd("best", "gamma", "--storage", storage, "--json").stdout)
    results = json.loads(raykd("ablate", "gamma", "--storage", storage, "--json", here=True).stdout)
    means = {arm["arm"]: arm["mean"] for arm in results["arms"]}
    assert best["params"]["arm"] == max(means, key=lambda arm: means[arm])
    done = raykd("export", "gamma", "--storage", storage, "--out", tmp_path / "student")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_extending_adds_replicates_and_keeps_those_there(storage: Path) -> None:
    before = History.of(Ledger.read(storage / "gamma"))
    done = raykd("ablate", "gamma", "--extend", "1", "--storage", storage)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "extended by 1 replicate after 3" in done.stdout
    after = History.of(Ledger.read(storage / "gamma"))
    assert len(after.trials) == 8 and after.done
    assert all(after.trials[name].reports == trial.reports for name, trial in before.trials.items())
    assert {t.replicate for t in after.trials.values()} == {0, 1, 2, 3}


def test_resume_refuses_a_changed_file(storage: Path) -> None:
    spec = storage / "gamma.yaml"
    spec.write_text(STUDY.replace("replicates: 3", "replicates: 4"))
    try:
        refused = raykd("ablate", "gamma", "--storage", storage, here=True)
        assert refused.returncode == 2 and "study.replicates: 3 -> 4" in refused.stderr, refused.stderr
        assert "--as-started" in refused.stderr
        done = raykd("ablate", "gamma", "--as-started", "--storage", storage, here=True)
        assert done.returncode == 0 and "every trial of this sweep has ended" in done.stdout, done.stderr
    finally:
        spec.write_text(STUDY)


def test_a_base_may_be_the_best_trial_of_a_sweep(storage: Path) -> None:
    other = STUDY.partition("base:")[0].replace("gamma", "again") + (
        "base: {sweep: gamma}\ndesign: one_at_a_time\nfactors: {temperature: [0.2, 0.5]}\nreplicates: 2\n"
    )
    (storage / "again.yaml").write_text(other)
    done = raykd("ablate", storage / "again.yaml", "--storage", storage, "--plan", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(done.stdout)
    assert [arm["arm"] for arm in plan["arms"]] == ["temperature=0.2", "temperature=0.5"]
    assert (plan["trials"], plan["most_epochs"]) == (4, 4) and not (storage / "again").exists()
