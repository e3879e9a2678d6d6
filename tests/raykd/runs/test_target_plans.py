"""Plans say which trials share what the teacher says; `raykd clean` shows and frees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import SMALL, raykd

from raykd.ablation.study import load_study
from raykd.runs.sharing import room_for, sharing
from raykd.spec.document import parse_yaml
from raykd.spec.search import SearchSpec, build_sweep
from raykd.storage.cache_content import content, remove_targets
from trainables.core.errors import UserError
from trainables.targets.room import FOLDER, files
from trainables.targets.series import Series
from trainables.targets.store import Place, TargetStore


def sweep(**changed: Any) -> SearchSpec:
    return build_sweep({**parse_yaml(SMALL, "small"), **changed})


def lines(**changed: Any) -> str:
    return " ".join(sharing(sweep(**changed))["lines"])


@pytest.mark.parametrize(
    ("written", "room"),
    [
        ("auto", "auto"),
        ("off", "off"),
        ("50GB", 50 * 10**9),
        ("1.5 tb", 15 * 10**11),
        (5 * 10**9, 5 * 10**9),
        ({"room": "800MB"}, 8 * 10**8),
    ],
)
def test_room_is_read(written: Any, room: Any) -> None:
    assert sweep(targets=written).targets.room == room
    assert parse_yaml("targets: off", "text") == {"targets": "off"}


@pytest.mark.parametrize("written", ["fifty", "50", 50, "-1GB", -1, True, {"rom": 1}])
def test_a_room_that_is_none_is_refused(written: Any) -> None:
    with pytest.raises(UserError, match="targets"):
        sweep(targets=written)


def test_a_plan_says_what_is_shared_and_what_is_not() -> None:
    # 898 images, of which 7 batches of 128 are trained on; 128 numbers an answer and an id, two views.
    assert "embeddings of views 1 and 2 are computed once a node, for all trials of a seed" in lines()
    assert f"{2 * 896 * (4 * 128 + 8) / 1e3:.3g} kB an epoch" in lines()
    assert "`raykd clean --targets` removes them" in lines()
    assert "at most a quarter" in lines() and "at most 2 GB" in lines(targets="2GB")
    assert "computed in every trial: `targets: off`" in lines(targets="off")

    ranged = {"axes": {"views.strength": {"uniform": [0.5, 1]}}}
    assert room_for(sweep(**ranged)) == "off"
    assert "each has its own, because of views.strength" in lines(**ranged)
    picked = {"axes": {"views.recipe": ["light", "moco_v2"], "batch_size": [64, 128]}, "samples": 12}
    assert room_for(sweep(**picked)) == "auto"
    assert "trials with the same views.recipe, batch_size (4 combinations, 12 trials a seed)" in lines(
        **picked
    )
    assert room_for(sweep(**{**picked, "samples": 4})) == "off"
    assert room_for(sweep(axes={"lr": {"log": [1e-4, 1e-2]}})) == "auto"

    compiled = {"axes": {"compile": ["on", "off"]}, "samples": 2}
    assert room_for(sweep(**compiled)) == "off"  # a compiled teacher gives other bits

    teacher = {**parse_yaml(SMALL, "small")["teacher"], "batch_norm": "batch"}
    assert "depends on the other images of its batch" in lines(teacher=teacher)
    several = lines(method=["retro", "rkd", "at"], fixed={}, axes={"lr": {"log": [1e-4, 1e-2]}})
    assert "embeddings of views 1 and 2 (retro)" in several and "features of view 1 (rkd)" in several
    assert "every trial of at: it compares feature maps" in several
    assert lines(method="moco", axes={"lr": {"log": [1e-4, 1e-2]}}, fixed={}) == ""


def test_trials_that_ask_for_different_views_share_those_that_both_ask_for(tmp_path: Path) -> None:
    both = sharing(sweep(method=["retro", "seed"], fixed={}, axes={"lr": {"log": [1e-4, 1e-2]}}))["lines"]
    once = f"once a node, for all trials of a seed: {896 * (4 * 128 + 8) / 1e3:.3g} kB an epoch"
    assert both[:2] == [
        f"the teacher's embeddings of view 1 (retro, seed) are computed {once}",
        f"the teacher's embeddings of view 2 (retro) are computed {once}",
    ]
    study = " ".join(sharing(load_study("methods", [], tmp_path))["lines"])
    for words in (
        "embeddings of view 1 (retro, disco, seed) are computed once a node",
        "embeddings of view 2 (retro, disco) are computed once a node",
        "features of view 1 (compress) are computed in every trial: no other arm asks the same",
    ):
        assert words in study


def test_a_study_s_plan_says_which_arms_share(tmp_path: Path) -> None:
    study = load_study("retro_parts", ["targets=2GB"], tmp_path)
    assert study.targets.room == 2 * 10**9
    said = " ".join(sharing(study)["lines"])
    assert "computed once a node, for all trials of a seed" in said


def test_clean_shows_and_frees(tmp_path: Path) -> None:
    store = TargetStore(tmp_path / FOLDER, "auto")
    facts = {"arch": "resnet50", "what": "embed", "view": 0, "seed": 3}
    for epoch in (1, 2):
        store.put(Place(Series(facts, 4), epoch, 0), np.arange(5), torch.zeros(5, 4))
    (tmp_path / "images" / "digits-16px").mkdir(parents=True)
    (tmp_path / "images" / "digits-16px" / "train.arrow").write_bytes(b"x" * 2000)
    env = {"RAYKD_CACHE": str(tmp_path)}
    shown = raykd("clean", **env)
    assert shown.returncode == 0, shown.stderr
    for words in ("resnet50: embed, view 1, seed 3, epochs: 2", "digits-16px", "2 kB"):
        assert words in " ".join(shown.stdout.split())
    parts = json.loads(raykd("clean", "--json", **env).stdout)
    assert {part["kind"] for part in parts} == {"decoded images", "teachers' answers"}
    freed = raykd("clean", "--targets", "--yes", **env)
    assert freed.returncode == 0 and "freed" in freed.stdout
    assert [part.kind for part in content(tmp_path)] == ["decoded images"]
    assert raykd("clean", "--targets", "--yes", **env).returncode == 0  # nothing is left


def test_clean_says_what_it_freed_and_not_what_it_could_not_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = [Series({"name": name}, 4) for name in ("mine", "another user's")]
    for one in series:
        TargetStore(tmp_path / FOLDER, "auto").put(Place(one, 1, 0), np.arange(5), torch.zeros(5, 4))
    sizes = {held.series: held.bytes for held in files(tmp_path / FOLDER)}
    rmtree = shutil.rmtree

    def refused(path: Any, ignore_errors: bool = False) -> None:
        if Path(path).name != series[1].key:
            rmtree(path, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", refused)
    assert remove_targets(tmp_path) == sizes[series[0].key]
    assert remove_targets(tmp_path) == 0
