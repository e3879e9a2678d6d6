"""A spec from Python is the spec that a file with the same content gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import SMALL

from raykd.ablation.study import load_study
from raykd.ablation.study_file import StudyFile
from raykd.runs.start import SearchRequest
from raykd.runs.study import StudyRequest
from raykd.spec.axis_kinds import Log, Pick
from raykd.spec.given import Given, as_overrides, written
from raykd.spec.samplers import TPE
from raykd.spec.search import SearchSpec, load_sweep
from raykd.spec.sections import BaselineSpec
from raykd.storage.local import LocalStorage
from trainables.core.errors import UserError

RAW = yaml.safe_load(SMALL.replace("1e-3", "0.001"))
AXES = {"gamma": Log(log=(0.003, 3)), "adapter": Pick(pick=("linear", "mlp"))}
STUDY: dict[str, Any] = {
    "name": "mine",
    "base": {name: RAW[name] for name in ("method", "preset", "student", "teacher", "data", "epochs")},
    "design": "one_at_a_time",
    "factors": {"adapter": ["linear", "mlp"]},
    "replicates": 2,
}


@pytest.mark.parametrize(
    "given",
    [
        SMALL,
        RAW,
        {**RAW, "seeds": (0,), "epochs": np.int64(4), "axes": AXES},
        {**RAW, "sampler": TPE(), "baseline": BaselineSpec(method="moco", preset="digits")},
        SearchSpec(**RAW),
        SearchSpec(**{**RAW, "axes": AXES, "sampler": TPE()}),
    ],
    ids=["YAML", "dict", "dict of other types", "dict of sections", "spec", "spec of axes"],
)
def test_every_form_is_the_same_search(given: Given, tmp_path: Path) -> None:
    """With the defaults of a new sweep: those of the model are for older ledgers."""
    (tmp_path / "small.yaml").write_text(SMALL)
    found = SearchRequest.find(given, {"samples": 7, "axes.gamma.log": [0.01, 1], "fixed.queue_size": 512})
    sets = ["samples=7", "axes.gamma.log=[0.01, 1]", "fixed.queue_size=512"]
    assert found.spec.hash() == load_sweep(tmp_path / "small.yaml", sets).hash()
    assert found.spec.teacher_pixels == "trained" and found.source is None


def test_a_dict_is_not_changed() -> None:
    before = yaml.safe_dump(RAW)
    SearchRequest.find(RAW, {"optim.lr": 0.1})
    assert yaml.safe_dump(RAW) == before


def test_a_file_is_known_again(tmp_path: Path) -> None:
    """`resume` looks whether it has changed."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    for given in (path, str(path)):
        source = SearchRequest.find(given, ["samples=3"]).source
        assert source is not None and source.path == path and source.overrides == ["samples=3"]


def test_relative_paths_start_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    data = {"name": "folder", "path": Path("pictures"), "image_size": 16}
    assert SearchRequest.find({**RAW, "data": data}).spec.data["path"] == str(tmp_path / "pictures")


@pytest.mark.parametrize("given", [STUDY, StudyFile(**STUDY), yaml.safe_dump(STUDY)], ids=type)
def test_every_form_is_the_same_study(given: Given, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    found = StudyRequest.find(given, None, {"replicates": 3}, LocalStorage(tmp_path))
    assert found.spec.hash() == load_study(tmp_path / "mine.yaml", ["replicates=3"], tmp_path).hash()
    assert found.given is None and found.sweep.path == tmp_path / "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["retro"], r"spec: cannot be read"),
        ({**RAW, "epoch": 4}, r"epoch: no such field.*Did you mean 'epochs'"),
        ({**RAW, "design": "grid"}, r"design: no such field|design: .*study"),
        ("name: x\nmethod: [", r"the spec, line 2: not valid YAML"),
        ("just\nwords", r"the spec: "),
        ({name: value for name, value in RAW.items() if name != "name"}, r"name: is missing"),
    ],
    ids=["list", "key", "study", "broken", "words", "no name"],
)
def test_mistakes_are_told(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        SearchRequest.find(given)


def test_overrides_are_those_of_the_command_line() -> None:
    given = {"optim.lr": 1e-5, "data.path": Path("/p"), "axes.gamma": None, "adapter": "mlp", "on": True}
    said = ["optim.lr=1e-05", 'data.path="/p"', "axes.gamma=null", 'adapter="mlp"', "on=true"]
    assert as_overrides(given) == said and as_overrides(said) == said
    with pytest.raises(UserError, match="overrides: is text"):
        as_overrides("samples=4")


def test_names_and_paths_are_left_to_be_found() -> None:
    assert written("quickstart") is None and written(Path("a.yaml")) is None
