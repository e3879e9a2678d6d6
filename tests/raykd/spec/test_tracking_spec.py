"""`track`: how it may be written, and a tracker whose package is missing."""

from __future__ import annotations

from importlib import util
from typing import Any

import pytest
from bad_input import STUDY, SWEEP
from command import raykd

from raykd.ablation.study import read_study
from raykd.spec.document import parse_yaml
from raykd.spec.search import build_sweep
from raykd.spec.tracking import TrackSpec


@pytest.mark.parametrize(
    ("written", "means"),
    [
        (None, {}),
        ([], {}),
        ("wandb", {"wandb": {}}),
        (["wandb", "mlflow"], {"wandb": {}, "mlflow": {}}),
        ({"mlflow": None}, {"mlflow": {}}),
        ({"wandb": {"project": "x", "mode": "online"}}, {"wandb": {"project": "x", "mode": "online"}}),
        ({"mlflow": {"uri": "postgresql+psycopg://db/x"}}, {"mlflow": {"uri": "postgresql+psycopg://db/x"}}),
    ],
)
def test_a_name_a_list_or_options(written: Any, means: dict[str, Any], tmp_path: Any) -> None:
    """What is recorded reads as the same again; without trackers it is what older ledgers hold."""
    spec = build_sweep({**parse_yaml(SWEEP, ""), "track": written})
    recorded = spec.model_dump(mode="json")
    assert recorded.get("track", {}) == means == spec.track.model_dump()
    assert ("track" in recorded) == bool(means)
    assert build_sweep({**parse_yaml(SWEEP, ""), "track": means}).hash() == spec.hash()
    assert read_study({**parse_yaml(STUDY, ""), "track": written}, [], tmp_path).track == spec.track


def test_every_tracker_has_a_writer_and_an_extra() -> None:
    from pathlib import Path

    from raykd.records.tracking.base import TRACKERS

    assert set(TRACKERS) == set(TrackSpec.model_fields)
    setup = (Path(__file__).resolve().parents[3] / "setup.cfg").read_text()
    assert all(f"\n{name} =\n" in setup for name in TRACKERS)


@pytest.mark.parametrize("verb", ["run", "ablate"])
def test_a_missing_package_is_refused_before_anything_starts(
    verb: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside a folder called `wandb`, which wandb makes wherever it runs."""
    find = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *rest: None if name == "mlflow" else find(name, *rest)
    )
    path = tmp_path / "s.yaml"
    path.write_text(f"{SWEEP if verb == 'run' else STUDY}\ntrack: [mlflow]\n")
    done = raykd(verb, path, "--dry-run" if verb == "run" else "--plan", "--storage", tmp_path)
    assert done.returncode == 2
    assert "track.mlflow: its package is not installed" in done.stderr
    assert "`pip install raykd[mlflow]`" in done.stderr


def test_a_folder_is_no_package(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from raykd.spec import tracking
    from trainables.core.errors import UserError

    (tmp_path / "raykd_no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    class Track(TrackSpec):
        def named(self) -> dict[str, Any]:
            return {"raykd_no_such_tracker": None}

    with pytest.raises(UserError, match="its package is not installed"):
        tracking.check_installed(Track())
