"""The fold: what records add up to, in any prefix; and the tables, read back as their readers would."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_records import end, head, record, report, start, suggest

from raykd.cli import reading
from raykd.records.history import ENDED, STATUSES, History
from raykd.records.ledger import Ledger
from raykd.records.tables import CURVES, TRIALS, curves_table, trials_table, write_tables
from raykd.records.views import status
from trainables.core.errors import UserError


def test_a_trial_from_waiting_to_finished():
    history = History.of([suggest("t", lr=0.1)])
    trial = history.trials["t"]
    assert (trial.status, trial.epoch, trial.method) == ("waiting", 0, "retro")
    assert (trial.best, trial.last) == (None, None)
    history.add(start("t"))
    history.add(report("t", 1, 50.0))
    history.add(record("verdict", trial="t", epoch=1, verdict="go"))
    assert (trial.status, trial.epoch, trial.best, trial.attempts) == ("running", 1, (50.0, 1), 1)
    history.add(report("t", 2, 70.0))
    history.add(report("t", 3, 60.0))
    history.add(end("t", reason="last epoch"))
    assert (trial.status, trial.best, trial.last, trial.reason) == ("finished", (70.0, 2), 60.0, "last epoch")
    assert (trial.best_at(1), trial.best_at(3), trial.best_at(0)) == (50.0, 70.0, None)
    assert history.counts() == {"finished": 1, "stopped": 0, "failed": 0, "running": 0, "waiting": 0}


def test_nan_and_infinity_are_kept_and_never_best():
    history = History.of([suggest("t"), start("t"), report("t", 1, math.nan), report("t", 2, math.inf)])
    trial = history.trials["t"]
    assert trial.best is None and history.best() is None and trial.last == math.inf
    history.add(report("t", 3, 10.0))
    history.add(report("t", 4, math.nan))
    assert trial.best == (10.0, 3) and math.isnan(trial.last) and math.isnan(trial.reports[1]["score"])
    assert history.best() is trial


def test_the_first_report_of_an_epoch_counts_and_so_does_the_first_verdict():
    history = History.of([suggest("t"), start("t"), report("t", 1, 10.0), report("t", 1, 99.0)])
    for verdict in ("go", "stop"):
        history.add(record("verdict", trial="t", epoch=1, verdict=verdict))
    history.add(report("t", 2, 20.0))
    assert history.trials["t"].reports == {1: {"score": 10.0}, 2: {"score": 20.0}}
    assert history.arrivals == [("t", 1), ("t", 2)]
    assert history.trials["t"].verdicts == {1: "go"}


def test_the_earliest_of_equal_scores_is_best():
    history = History.of([suggest("t"), start("t"), report("t", 2, 10.0), report("t", 1, 10.0)])
    assert history.trials["t"].best == (10.0, 1)
    history.add(suggest("u", 1))
    history.add(report("u", 1, 10.0))
    assert history.best().trial == "t"


def test_epochs_without_a_probe_leave_score_and_last_alone():
    history = History.of([suggest("t"), start("t"), report("t", 1, 10.0), report("t", 2, lr=0.1)])
    trial = history.trials["t"]
    assert (trial.last, trial.best, trial.epoch) == (10.0, (10.0, 1), 2)


def test_what_ended_has_ended():
    history = History.of([suggest("t"), start("t"), end("t", "failed", "loss is NaN")])
    for later in (start("t", 2), report("t", 1, 99.0), end("t", "finished")):
        history.add(later)
    trial = history.trials["t"]
    assert (trial.status, trial.reason, trial.attempts, trial.reports) == ("failed", "loss is NaN", 1, {})


def test_wall_time_leaves_out_the_pause_between_two_drivers():
    history = History.of(
        [
            suggest("t", time=0.0),
            start("t", time=10.0),
            report("t", 1, 1.0, time=14.0),
            # killed; resumed a day later
            start("t", attempt=2, time=90000.0),
            report("t", 1, 1.0, time=90002.0),
            end("t", time=90005.0),
        ]
    )
    trial = history.trials["t"]
    assert (trial.wall_s, trial.started, trial.ended, trial.attempts) == (9.0, 10.0, 90005.0, 2)


def test_samples_grow_by_extensions_and_the_rest_is_kept():
    history = History.of([head(3), record("extend", samples=2), record("extend", samples=1)])
    assert history.samples == 6
    for driver in ("start", "end"):
        history.add(record("driver", event=driver, host="h", pid=1))
    for label in ("first", "second"):
        history.add(record("reference", name="untrained", label=label, metrics={"score": 1.0}, trial=None))
    history.add(record("repeat", number=4, params={}, trial="t"))
    assert [d["event"] for d in history.drivers] == ["start", "end"] and len(history.repeats) == 1
    assert history.references["untrained"]["label"] == "second"


def test_a_sweep_that_died_before_its_head_says_so():
    with pytest.raises(UserError, match="died before its first record"):
        _ = History.of([]).spec


def test_records_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="never suggested"):
        History.of([start("t")])
    with pytest.raises(UserError, match="`status`"):
        History.of([suggest("t"), end("t", "paused")])


def test_kinds_of_a_later_raykd_are_passed_over():
    assert not History.of([record("telepathy")]).trials


def test_find_takes_a_prefix_and_suggests_the_nearest():
    history = History.of([suggest("0a1b2c3d"), suggest("0a1bffff", 1)])
    assert history.find("0A1B2").trial == "0a1b2c3d"
    with pytest.raises(UserError, match="2 trials start like this"):
        history.find("0a1b")
    with pytest.raises(UserError, match="Did you mean '0a1b2c3d'"):
        history.find("0a1b2c3e")


steps = st.one_of(
    st.builds(start, st.sampled_from("tuv"), st.integers(1, 3)),
    st.builds(report, st.sampled_from("tuv"), st.integers(1, 4), st.floats(0, 100) | st.just(math.nan)),
    st.builds(end, st.sampled_from("tuv"), st.sampled_from(ENDED)),
)


@given(st.lists(steps, max_size=30), st.integers(0, 30))
def test_a_fold_can_be_cut_anywhere(records, cut):
    records = [suggest(t, i) for i, t in enumerate("tuv")] + records
    once = History.of(records)
    twice = History.of(records[:cut])
    for later in records[cut:]:
        twice.add(later)
    assert repr(once.trials) == repr(twice.trials)
    assert sum(once.counts().values()) == 3 and list(once.counts()) == list(STATUSES)
    for trial in once.trials.values():
        finite = [m["score"] for m in trial.reports.values() if math.isfinite(m["score"])]
        assert (trial.best and trial.best[0]) == max(finite, default=None)


def two_trials() -> History:
    return History.of(
        [
            head(),
            suggest("t", 0, lr=0.1, hidden=64, symmetric=True, adapter="linear", views=[1, 2], start=1),
            start("t"),
            report("t", 1, 50.0, **{"loss/total": 1.0}),
            report("t", 2, math.nan, **{"loss/total": math.nan}),
            end("t", "stopped", "asha"),
            suggest("u", 1, lr=1, tau=None, adapter="mlp", start="warm"),
        ]
    )


def test_trials_table():
    table = trials_table(two_trials())
    asked = ["trial", "method", "arm", "replicate", "status", "epoch", "score", "last", "wall_s"]
    assert set(asked) <= set(table.column_names)
    first, second = table.to_pylist()
    assert (first["trial"], first["status"], first["epoch"], first["score"]) == ("t", "stopped", 2, 50.0)
    assert (first["best_epoch"], first["reason"]) == (1, "asha") and math.isnan(first["last"])
    assert (second["score"], second["last"], second["best_epoch"], second["reason"]) == (None,) * 4
    names = ("lr", "hidden", "symmetric", "adapter")
    types = [table.schema.field(f"config/{name}").type for name in names]
    assert types == [pa.float64(), pa.int64(), pa.bool_(), pa.string()]
    assert (first["config/views"], second["config/views"]) == ("[1, 2]", None)
    assert (first["config/start"], second["config/start"]) == ("1", "warm")
    assert table["config/tau"].to_pylist() == [None, None]


def test_curves_table():
    table = curves_table(two_trials())
    assert table.column_names == ["trial", "epoch", "score", "loss/total"]
    assert table["epoch"].to_pylist() == [1, 2]
    assert table["score"].null_count == 0 and math.isnan(table["score"].to_pylist()[1])
    history = two_trials()
    history.add(start("u"))
    history.add(report("u", 1, lr=0.1))
    assert curves_table(history).to_pylist()[-1] == {
        "trial": "u", "epoch": 1, "score": None, "loss/total": None, "lr": 0.1
    }  # fmt: skip


def test_tables_of_an_empty_history(tmp_path):
    write_tables(History(), tmp_path)
    assert pq.read_table(tmp_path / TRIALS).num_rows == pq.read_table(tmp_path / CURVES).num_rows == 0


def test_parquet_round_trip_through_a_ledger(tmp_path):
    with Ledger.create(tmp_path / "s") as ledger:
        for r in (suggest("t", lr=0.1), start("t"), report("t", 1, math.nan), report("t", 2, -math.inf)):
            ledger.append(**{k: v for k, v in r.items() if k != "time"})
    history = History.of(Ledger.read(tmp_path / "s"))
    for _ in range(2):  # the second time over the first's files
        write_tables(history, tmp_path)
    assert pq.read_table(tmp_path / TRIALS).equals(trials_table(history))
    scores = pq.read_table(tmp_path / CURVES)["score"].to_pylist()
    assert math.isnan(scores[0]) and scores[1] == -math.inf
    assert sorted(p.name for p in tmp_path.iterdir()) == [CURVES, "s", TRIALS]


def test_gpus_in_quarantine_are_those_of_the_last_driver(tmp_path):
    driver = {"host": "here", "pid": 1}
    sick = {"gpu": "GPU 3 of node1", "reason": "an ECC error"}
    records = [head(), record("driver", event="start", **driver), record("quarantine", **sick)]
    history = History.of(records)
    assert status(history, tmp_path)["quarantine"] == [sick]
    history.add(record("driver", event="end", **driver))
    assert history.quarantined, "until another one tries them again"
    history.add(record("driver", event="start", **driver))
    assert status(history, tmp_path)["quarantine"] == []
    with Ledger.create(tmp_path / "s") as ledger:
        ledger.append("quarantine", **sick)
    assert [r["gpu"] for r in Ledger.read(tmp_path / "s")] == ["GPU 3 of node1"]


def test_status_names_gpus_in_quarantine(tmp_path, capsys):
    sick = {"gpu": "GPU 3 of node1", "reason": "an [ECC] error"}
    with Ledger.create(tmp_path / "s") as ledger:
        for one in (head(), record("quarantine", **sick)):
            ledger.append(one["kind"], **{k: v for k, v in one.items() if k not in ("kind", "time")})
    reading.status("s", str(tmp_path))
    assert "GPU 3 of node1 is in quarantine: an [ECC] error" in capsys.readouterr().out


def test_a_number_of_any_size_has_a_place_in_the_tables():
    history = History.of([suggest("t"), start("t"), report("t", 1, 2**70), report("t", 2, 3)])
    assert history.trials["t"].reports == {1: {"score": 2.0**70}, 2: {"score": 3}}


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([math.nan, 1.0, 2.0, 3.0])), max_size=30))
def test_the_leader_is_the_earliest_of_the_best(reports: list[tuple[int, float]]) -> None:
    names = [f"{number:08x}" for number in range(5)]
    history = History.of([head(), *(suggest(name, number) for number, name in enumerate(names))])
    for epoch, (number, score) in enumerate(reports, start=1):
        history.add(report(names[number], epoch, score))
        scored = [t for t in history.trials.values() if t.best]
        assert history.best() is max(scored, key=lambda t: t.best[0], default=None)
