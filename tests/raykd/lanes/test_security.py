"""Names cannot leave the storage folder, and nothing that lies in it is run."""

from __future__ import annotations

import ast
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import SMALL
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ledger_records import end, report, start, suggest

from raykd.cli import main
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.searching.optuna_state import End, StudyState
from raykd.spec.search import build_sweep
from trainables.core.errors import SweepFailed, UserError

ROOT = Path(__file__).resolve().parents[3]

# Pieces of names that lead elsewhere, and anything else that text may hold.
PIECES = st.sampled_from(
    ["..", "/", ".", "~", "\\", "a", " ", "-", "\n", "%2e", "ü", "𝔘", "\u202e", "C:", "$HOME"]
)
NAMES = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=30), st.just("a" * 300))


def written(folder: Path) -> None:
    """A sweep with one trial that has ended."""
    spec = build_sweep({**yaml.safe_load(SMALL), "name": "done"})
    params = {"gamma": 0.1, "adapter": "linear"}
    trial = spec.trial(params, 0)
    name = trial.signature()
    records = [
        {**suggest(name), "params": params, "config": trial.config, "arm": trial.arm()},
        *(start(name), report(name, 4, 50.0), end(name)),
    ]
    empty: dict[str, Any] = {"sampler": {}, "scheduler": {}, "versions": {}, "source": None}
    with Ledger.create(folder) as ledger:
        ledger.append("sweep", spec=spec.model_dump(mode="json"), spec_hash=spec.hash(), **empty)
        for record in records:
            ledger.append(**{key: value for key, value in record.items() if key != "time"})
    (folder / "trials" / name).mkdir(parents=True)
    (folder / "trials" / name / "best.safetensors").touch()


def says_no(*arguments: str) -> int:
    """The exit code of `raykd`, which must be one message and no traceback."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@settings(max_examples=150, deadline=None)
@given(NAMES)
@example("..")
@example("../../etc")
@example("/etc/passwd")
@example("a/../../b")
@example("nul\0l")
@example(".hidden")
@example("-flag")
def test_the_name_in_a_spec_is_one_folder_below_the_storage(name: str) -> None:
    try:
        spec = build_sweep({**yaml.safe_load(SMALL), "name": name})
    except UserError as error:
        assert error.field == "name" and len(str(error)) < 1000
        return
    storage = Path("/storage")
    assert os.path.normpath(storage / spec.name) == f"/storage/{name}" and "\0" not in name
    assert Path(name).name == name and not name.startswith((".", "-"))


@settings(max_examples=5, deadline=None)
@given(NAMES.filter(lambda name: not name.startswith("-") and "\0" not in name))
@example("..")
@example("../outside")
@example("inside/../../outside")
@example("~nobody-here")
@example("a" * 300)
def test_a_name_on_the_command_line_finds_nothing_outside_the_storage(name: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        storage = Path(top, "storage")
        for sweep in (Path(top), Path(top, "outside"), storage / "inside"):
            sweep.mkdir(parents=True, exist_ok=True)
            written(sweep)
        before = sorted(Path(top).rglob("*"))
        at = ("--storage", str(storage))
        for verb in ("status", "ablate"):  # the others look as `status` does
            if name != "inside":
                assert says_no(verb, name, *at) == 2, verb
        assert sorted(Path(top).rglob("*")) == before


@pytest.mark.parametrize("out", ["/", "..", ".", "/proc/none/x", "a" * 300, "full", "file", "file/below"])
def test_an_export_goes_to_a_new_folder_or_nowhere(out: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "sweeps" / "done").mkdir(parents=True)
    written(tmp_path / "sweeps" / "done")
    before = sorted(tmp_path.rglob("*"))
    assert says_no("export", "done", "--out", out) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("trial", ["../../../outside", "/etc", "..", "a/b", "", "nul\0l", "a" * 300])
def test_a_ledger_that_names_a_trial_elsewhere_is_refused(trial: str) -> None:
    with pytest.raises(SweepFailed, match="names a trial"):
        History.of([suggest(trial)])


class Bomb:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_a_pickle_hidden_in_the_ledger_is_not_loaded(tmp_path: Path) -> None:
    from optuna.distributions import FloatDistribution
    from optuna.samplers import CmaEsSampler
    from optuna.trial import TrialState

    trace = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists(), "the bomb works"
    trace.unlink()
    hidden = {f"{kind}:optimizer:0": pickle.dumps(Bomb(trace)).hex() for kind in ("cma", "sepcma", "cmawm")}
    space = {name: FloatDistribution(0.0, 1.0) for name in ("x", "y")}
    state = StudyState()
    for value in range(4):
        values, attrs = {"x": value / 4, "y": 0.5}, {**hidden, "study": hidden}
        end = End(TrialState.COMPLETE, {}, float(value))
        if value % 2:
            state.place(values, space, attrs, end)
        else:
            state.tell(state.place(values, space, attrs), end)
    sampler = CmaEsSampler(seed=0, n_startup_trials=1)
    state.ask(sampler, {}, lambda trial: {n: trial.suggest_float(n, 0.0, 1.0) for n in space})
    assert not trace.exists()


def test_nothing_reads_what_could_run_code() -> None:
    """No call unpickles but torch.load with weights_only, and three of what this process has just made."""
    allowed = {
        ("raykd/searching/optuna_state.py", "pickle.loads"),
        ("trainables/core/errors.py", "pickle.loads"),
        ("trainables/core/workers.py", "pickle.loads"),
    }
    for path in [*(ROOT / "raykd").rglob("*.py"), *(ROOT / "trainables").rglob("*.py"), ROOT / "sweep.py"]:
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            if call == "torch.load":
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("weights_only") == "True", f"{where}:{node.lineno}"
            assert call not in ("eval", "exec", "yaml.unsafe_load", "joblib.load", "torch.hub.load"), where
            assert not call.endswith(("pickle.load", "Unpickler")), f"{where}:{node.lineno}"
            assert (where, call) in allowed or call not in ("pickle.loads", "cloudpickle.loads"), where
            assert "allow_pickle" not in {k.arg for k in node.keywords}, f"{where}:{node.lineno}"
