"""`warm_start` from the plan to the end of a sweep: earlier sweeps are found, and a copy is enough."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bad_input import SWEEP, changed
from command import raykd
from invariants import all_gone, check
from kills import Sweep
from simulated import Engine, drive

from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.report.sweep_sections import answer
from raykd.runs.start import SearchRequest
from raykd.runs.sweep import Place
from raykd.spec.document import parse_yaml
from raykd.spec.search import build_sweep
from raykd.storage.open_storage import open_storage
from trainables.core.errors import UserError

RAW = parse_yaml(SWEEP, "")
LONGER = {"samples": 6, "epochs": 5, "sampler": {"name": "random", "seed": 7}}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the sweeps `old`, of the same trials, and `longer`, of others."""
    folder = tmp_path_factory.mktemp("storage")
    for name, change in (("old", {"samples": 5}), ("longer", LONGER)):
        assert drive(folder / name, build_sweep({**RAW, "name": name, **change})).done
    return folder


@pytest.mark.parametrize("named", ["old", "{storage}/old", "file://{storage}/old"])
def test_an_earlier_sweep_is_named_by_its_name_folder_or_uri(named: str, storage: Path) -> None:
    spec = {**RAW, "samples": 8, "warm_start": [named.format(storage=storage)], "sampler": "random"}
    request = SearchRequest.find(spec)  # as `raykd.search` does with a dict
    planned, remarks = request.plan(Place(open_storage(storage).sweep("small")))
    assert [(row["trials"], row["use"]) for row in planned["warm_start"]] == [(5, "told")]
    assert any("`sampler: random` learns from no score" in remark for remark in remarks)


def test_a_relative_folder_is_of_where_the_sweep_is_started(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(storage)
    spec = SearchRequest.find({**RAW, "warm_start": ["./old", "longer"]}).spec
    assert spec.warm_start == (str(storage / "old"), "longer")
    with pytest.raises(UserError, match=r"warm_start.0: is the sweep itself"):
        SearchRequest.find({**RAW, "warm_start": ["./old"]}).plan(Place(open_storage(storage).sweep("old")))


def test_the_dry_run_counts_them_and_says_why(storage: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    change = {"samples": 12, "warm_start": ["old", "longer"], "axes/gamma": {"log": [0.003, 0.5]}}
    file.write_text(changed(SWEEP, change))
    words = ("run", file, "--storage", storage, "--dry-run")
    planned = json.loads(raykd(*words, "--json").stdout)
    rows = planned["warm_start"]
    counted = {(row["sweep"], row["use"]): row["trials"] for row in rows}
    of = {name: History.of(Ledger.read(storage / name)).trials.values() for name in ("old", "longer")}
    for name, trials in of.items():
        above = sum(trial.params["gamma"] > 0.5 for trial in trials)
        assert counted.get((name, "outside"), 0) == above
    inside = sum(trial.params["gamma"] <= 0.5 for trial in of["longer"])
    assert counted["longer", "point"] + counted.get(("longer", "spare"), 0) == inside
    assert counted["longer", "point"] == min(3, inside)
    reasons = {row["use"]: row["reason"] for row in rows}
    assert reasons["outside"] == "gamma above 0.5" and reasons["point"] == "epochs 5, here 4"
    known = [trial.params for trial in of["longer"]]
    first = planned["samples"][: counted["longer", "point"]]  # the method's own settings are told
    assert first and all(sample["params"] in known for sample in first)
    screen = " ".join(raykd(*words).stdout.split())
    assert all(said in screen for said in ("told to the sampler", "gamma above 0.5", "epochs 5, here 4"))


def test_status_and_report_say_what_the_sampler_began_with(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path, dirs_exist_ok=True)
    spec = build_sweep({**RAW, "name": "new", "samples": 3, "warm_start": ["old"]})
    history = drive(tmp_path / "new", spec)
    shutil.rmtree(tmp_path / "old")
    said = raykd("status", "new", "--storage", tmp_path).stdout
    assert "warm start from old: 5 trials told to the sampler" in said and "3 of 3 trials ended" in said
    page = str(answer(spec, history, ""))
    assert "began with the scores of 5 trials of old" in page
    best = json.loads(raykd("best", "new", "--storage", tmp_path, "--json").stdout)
    assert best["trial"] in history.trials
    assert not any(
        t in page for t in History.of(Ledger.read(storage / "old")).trials if t not in history.trials
    )
    assert drive(tmp_path / "new", spec, extend=2).done, "and it goes on without the earlier sweep"


def test_a_driver_that_died_before_it_had_read_them_has_a_follower_that_does(
    storage: Path, tmp_path: Path
) -> None:
    spec = build_sweep({**RAW, "name": "new", "samples": 3, "warm_start": ["old"]})
    with Ledger.create(tmp_path / "new") as ledger:
        Engine(ledger, spec)  # which writes the heads
    refused = raykd("resume", "new", "--storage", tmp_path, here=True)
    assert refused.returncode == 2 and "warm_start.0: no such sweep" in refused.stderr
    assert History.of(Ledger.read(tmp_path / "new")).earlier is None


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_by_its_own_copy(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path, dirs_exist_ok=True)
    sweep = Sweep(tmp_path, "small", changed(SWEEP, {"samples": 5, "warm_start": ["old", "longer"]}))
    sweep.go_on()
    assert sweep.wait(lambda h: len(h.arrivals) >= 2)
    sweep.kill()
    for name in ("old", "longer"):
        shutil.rmtree(tmp_path / name)
    last = raykd("resume", "small", "--storage", tmp_path)
    assert last.returncode == 0, last.stdout + last.stderr
    all_gone(sweep.mark)
    history = check(sweep.folder)
    assert history.earlier is not None and len(history.earlier.told) == 5 and len(history.trials) == 5
    trials = sorted(history.trials.values(), key=lambda t: t.number)
    assert trials[0].origin == "point" and trials[0].params == history.earlier.points[0].params
    assert not {told.trial for told in history.earlier.told} & {t.trial for t in trials[:1]}
