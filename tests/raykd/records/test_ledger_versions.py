"""Ledgers and specs as another version of raykd would write them: read where that is safe, else refused.

A user's mistake or another version is one message; a traceback never.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input import STUDY
from command import SMALL
from histories import put
from ledger_records import end, head, record, report, start, suggest
from simulated import drive

from raykd.ablation.study import build_study
from raykd.cli import main
from raykd.records.format import FORMAT
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.runs import sweep as engine
from raykd.runs.changed_spec import other_versions, refuse_changed_spec
from raykd.spec.document import parse_yaml
from raykd.spec.search import SearchSpec, build_sweep, load_sweep
from trainables.core.errors import SweepFailed, UserError

Records = list[dict[str, Any]]


def _sweep(**change: Any) -> SearchSpec:
    return build_sweep({**parse_yaml(SMALL, ""), **change})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Records]:
    """Whole ledgers of a search and of a study."""
    storage = tmp_path_factory.mktemp("recorded")
    drive(storage / "small", _sweep())
    drive(storage / "t", build_study(parse_yaml(STUDY, ""), storage))
    found = {name: Ledger.read(storage / name) for name in ("small", "t")}
    for records in found.values():
        for one in records:
            if one["kind"] == "sweep":
                one["versions"] = {"raykd": "9.8.7", "torch": "1.0"}
    return found


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `raykd` answers on standard error, which is one message where it is any; any exception fails."""
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        answer = capsys.readouterr()
        assert ended.code in (0, 1, 2), answer.err
        assert ended.code == 0 or answer.err.strip() or answer.out.strip()
        assert "Traceback" not in answer.err + answer.out
        return answer.err
    raise AssertionError("main returned")


VERBS = (
    ("status", "NAME"), ("status", "NAME", "--json"), ("best", "NAME"), ("best", "NAME", "--json"),
    ("importance", "NAME", "--resamples", "20"), ("report", "NAME"), ("export", "NAME", "--out", "OUT"),
    ("resume", "NAME"), ("resume", "NAME", "--repair"), ("ablate", "NAME", "--json"),
    ("ablate", "NAME", "--plan"), ("attach", "NAME"), ("list", "teachers"),
)  # fmt: skip


def ask(capsys: pytest.CaptureFixture[str], storage: Path, name: str, verb: tuple[str, ...]) -> str:
    words = [{"NAME": name, "OUT": str(storage.parent / "out")}.get(word, word) for word in verb]
    shutil.rmtree(storage.parent / "out", ignore_errors=True)
    return said(capsys, *words, "--storage", storage)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """`resume` ends where it would start Ray: everything before has read the ledger."""

    def refuse(*_: object, **__: object) -> None:
        raise SweepFailed("here Ray would start")

    monkeypatch.setattr(engine, "_cluster", refuse)
    monkeypatch.chdir("/")


def test_a_recorded_ledger_reads(
    recorded: dict[str, Records], tmp_path: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    for name in recorded:
        put(tmp_path / "s" / name, recorded[name])
    for verb in VERBS[:6]:
        assert ask(capsys, tmp_path / "s", "small", verb) == ""
    assert "has left no student" in ask(capsys, tmp_path / "s", "small", VERBS[6])


NEWER: dict[str, Callable[[Records], object]] = {
    "a kind": lambda records: records.insert(5, record("omen", what="new", trial="0a1b2c3d")),
    "a field of every record": lambda records: [one.update(novel={"deep": [1]}) for one in records],
    "a version": lambda records: records[0]["versions"].update(raykd="99.0"),
    "the format it has": lambda records: [one.update(format=FORMAT) for one in records],
}


@pytest.mark.parametrize("what", NEWER)
def test_what_is_new_in_a_known_format_is_kept_and_passed_over(
    what: str, recorded: dict[str, Records], tmp_path: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    for name, verbs in (("small", VERBS[:6]), ("t", (VERBS[0], VERBS[5], ("ablate", "NAME", "--json")))):
        records = copy.deepcopy(recorded[name])
        before = History.of(records)
        NEWER[what](records)
        put(tmp_path / "s" / name, records)
        content = (tmp_path / "s" / name / LEDGER).read_bytes()
        history = History.of(Ledger.read(tmp_path / "s" / name))
        assert history.counts() == before.counts() and history.trials == before.trials
        for verb in verbs:
            assert ask(capsys, tmp_path / "s", name, verb) == "", verb
        assert (tmp_path / "s" / name / LEDGER).read_bytes() == content


REFUSED: dict[str, tuple[Callable[[Records], object], str]] = {
    "a later format": (lambda records: records[0].update(format=FORMAT + 1), f"format {FORMAT + 1}"),
    "a driver of a later format": (
        lambda records: records.append(
            record("driver", event="start", host="h", pid=1, format=7, versions={"raykd": "9.8.8"})
        ),
        "format 7",
    ),
    "a format that is no number": (lambda records: records[1].update(format="two"), "format 'two'"),
    "a field less": (lambda records: _first(records, "suggest").pop("attrs"), "`attrs` is missing"),
    "another type": (lambda records: _first(records, "report").update(epoch="1"), "`epoch` is not"),
    "a truth value for a number": (
        lambda records: _first(records, "start").update(attempt=True),
        "`attempt`",
    ),
    "no metrics": (lambda records: _first(records, "report").update(metrics=None), "`metrics`"),
    "text in the metrics": (
        lambda records: _first(records, "report")["metrics"].update(a="b"),
        "`metrics.a`",
    ),
    "another status": (lambda records: _first(records, "end").update(status="paused"), "`status`"),
    "another verdict": (lambda records: _first(records, "verdict").update(verdict="wait"), "`verdict`"),
    "no time": (lambda records: records[3].pop("time"), "`time` is missing"),
    "a time that is none": (lambda records: records[3].update(time=float("inf")), "`time`"),
    "a kind that is no text": (lambda records: records[3].update(kind=3), "is no record"),
    "something else than a record": (lambda records: records.insert(2, ["a"]), "is no record"),
    "no samples": (lambda records: _spec(records).pop("samples"), "`spec.samples` is missing"),
    "seeds as text": (lambda records: _spec(records).update(seeds="0"), "`spec.seeds`"),
    "a source that is text": (lambda records: records[0].update(source="a.yaml"), "`source`"),
}


def _first(records: Records, kind: str) -> dict[str, Any]:
    return next(one for one in records if one["kind"] == kind)


def _spec(records: Records) -> dict[str, Any]:
    return records[0]["spec"]


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_misread_is_refused_in_one_line_that_names_the_versions(
    what: str, recorded: dict[str, Records], tmp_path: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    records = copy.deepcopy(recorded["small"])
    change, word = REFUSED[what]
    change(records)
    put(tmp_path / "s" / "small", records)
    for verb in (VERBS[0], VERBS[2], VERBS[7], VERBS[8]):
        answer = " ".join(ask(capsys, tmp_path / "s", "small", verb).split())
        assert word in answer and answer.count("raykd:") == 1, answer
        assert "written by raykd 9.8." in answer and "this is raykd" in answer, answer


SPECS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a field": (lambda spec: spec.update(novel=1), "novel"),
    "a field of a section": (lambda spec: spec["scheduler"].update(novel=1), "scheduler.novel"),
    "a scheduler": (lambda spec: spec["scheduler"].update(name="pbt"), "pbt"),
    "a sampler": (lambda spec: spec.update(sampler={"name": "botorch"}), "sampler"),
    "a kind of axis": (lambda spec: spec["axes"].update(gamma={"normal": [0, 1]}), "axes.gamma"),
    "no axes": (lambda spec: spec.update(axes={}), "gamma"),
    "an axis that is a number": (lambda spec: spec.update(axes=3), "axes"),
    "no epochs": (lambda spec: spec.pop("epochs"), "epochs"),
    "a method": (lambda spec: spec.update(method="clairvoyance"), "clairvoyance"),
    "a probe": (lambda spec: spec.update(probe={"score": "crystal_ball"}), "today"),
    "a section that is a list": (lambda spec: spec.update(optim=[1]), "optim"),
}


@pytest.mark.parametrize("what", SPECS)
def test_a_spec_of_another_version_is_refused_where_it_matters(
    what: str, recorded: dict[str, Records], tmp_path: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    records = copy.deepcopy(recorded["small"])
    change, word = SPECS[what]
    for one in records[:2]:
        change(one["spec"])
    put(tmp_path / "s" / "small", records)
    assert ask(capsys, tmp_path / "s", "small", VERBS[0]) == ""  # how many trials there are is known
    for verb in (VERBS[6], VERBS[7]):
        answer = " ".join(ask(capsys, tmp_path / "s", "small", verb).split())
        assert word in answer and answer.count("raykd:") == 1, answer


def test_a_ledger_from_before_formats_reads_as_ever(tmp_path: Path) -> None:
    trial = "0a1b2c3d"
    driver = record("driver", event="start", host="h", pid=1)
    records = [head(), driver, suggest(trial), start(trial), report(trial, 1, 50.0), end(trial)]
    put(tmp_path / "old", records)
    history = History.of(Ledger.read(tmp_path / "old"))
    assert history.trials["0a1b2c3d"].best == (50.0, 1) and history.trials["0a1b2c3d"].status == "finished"


def test_a_driver_records_its_versions_and_a_resume_under_others_says_so() -> None:
    now = {"raykd": "1.1", "torch": "3.0", "python": "3.12"}
    history = History.of([head()])
    assert other_versions(history, now) == []  # an old ledger that names none
    sweep = {**head(), "versions": {"raykd": "1.0", "torch": "3.0", "python": "3.12"}}
    history = History.of([sweep])
    assert len(other_versions(history, now)) == 1 and "raykd 1.0 -> 1.1" in other_versions(history, now)[0]
    assert "torch" not in other_versions(history, now)[0]
    driver = record("driver", event="start", host="h", pid=1, versions=now, format=FORMAT)
    assert other_versions(History.of([sweep, driver]), now) == []  # it was said then
    assert "torch 3.0 -> 4.0" in other_versions(History.of([sweep, driver]), {**now, "torch": "4.0"})[0]


def test_a_spec_with_relative_paths_is_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    text = SMALL.replace("data: {name: digits,", "data: {name: folder, path: p,")
    text += "  teacher.checkpoint: {pick: [v.pth, /w.pth]}\npoints: [{teacher.checkpoint: v.pth}]\n"
    (tmp_path / "a" / "spec.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "a")
    spec = load_sweep("spec.yaml", ["teacher={arch: resnet18, checkpoint: w.pth}"])
    source = engine.Source(Path("spec.yaml"), ["teacher={arch: resnet18, checkpoint: w.pth}"]).recorded()
    assert list(spec.axes["teacher.checkpoint"].levels(2)) == [str(tmp_path / "a" / "v.pth"), "/w.pth"]
    assert spec.points[0] == {"teacher.checkpoint": str(tmp_path / "a" / "v.pth")}
    history = History.of([{**head(), "source": source}])
    for folder in (tmp_path / "a", tmp_path / "b", Path("/")):
        monkeypatch.chdir(folder)
        refuse_changed_spec(spec, history, tmp_path)


def test_an_old_ledger_is_compared_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before format 1 the folder of the start is not known, and settings kept their relative paths."""
    monkeypatch.chdir(tmp_path)
    text = SMALL.replace("data: {name: digits,", "data: {name: folder, path: p,")
    Path("spec.yaml").write_text(text.replace("{queue_size: 256}", "{teacher.checkpoint: w.pth}"))
    spec = load_sweep("spec.yaml", settings=False)
    assert spec.fixed == {"teacher.checkpoint": "w.pth"}
    source = {"path": str(tmp_path / "spec.yaml"), "overrides": []}
    history = History.of([{**head(), "source": source}])
    refuse_changed_spec(spec, history, tmp_path)
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match=r"data\.path"):
        refuse_changed_spec(spec, history, tmp_path)


# --- anything at all ----------------------------------------------------------------------------------------

ODD = (
    None, True, False, 0, 1, -1, 2**70, 1e300, float("nan"), float("inf"), "", "x", "\x1b[2J", "=1+1",
    "\ud800", "0a1b2c3d", [], [None], ["x"], {}, {"x": 1}, {"$float": "nan"}, {"name": "x"}, "go", "stop",
)  # fmt: skip
STRANGE = ({}, [], 3, "x", {"kind": "omen", "time": 3.0}, {"kind": "report", "time": 3.0})


def mutate(rng: random.Random, records: Records) -> None:
    """Change one thing anywhere: a value, a field, a record."""
    where = rng.random()
    at = rng.randrange(len(records))
    if where < 0.1:
        del records[at]
    elif where < 0.15:
        records.insert(rng.randrange(len(records)), copy.deepcopy(records[at]))
    elif where < 0.2:
        records.insert(at, copy.deepcopy(rng.choice(STRANGE)))
    else:
        here: Any = records[at]
        while isinstance(here, dict | list) and here:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            key = rng.choice(keys)
            if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.25:
                what = rng.random()
                if what < 0.25:
                    del here[key]
                elif what < 0.35 and isinstance(here, dict):
                    here[rng.choice(["novel", "name", "score", "$x", "\x1b]0;x\x07"])] = rng.choice(ODD)
                else:
                    here[key] = copy.deepcopy(rng.choice(ODD))
                return
            here = here[key]


@pytest.mark.parametrize("name", ["small", "t"])
def test_no_change_of_a_ledger_gives_a_traceback(
    name: str, recorded: dict[str, Records], tmp_path: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    rng = random.Random(f"{name} 11")
    quick = [verb for verb in VERBS if verb[0] not in ("importance",)]
    for turn in range(TURNS):
        records = copy.deepcopy(recorded[name])
        for _ in range(rng.choice([1, 1, 2, 4])):
            mutate(rng, records)
        if rng.random() < 0.3:  # both heads alike, as another version would write them
            records[1:2] = [copy.deepcopy(records[0])]
        storage = tmp_path / str(turn)
        put(storage / name, records)
        for verb in rng.sample(quick, 2):
            try:
                ask(capsys, storage, name, verb)
            except BaseException:
                print(json.dumps([verb, [r for r in records if r not in recorded[name]]], default=str)[:3000])
                raise


TURNS = 25
