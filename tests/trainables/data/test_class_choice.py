"""`data.classes`: which images are left, how they are numbered, and what a trial on them is called."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_trials import run, tiny, workspace

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.evaluation.evaluate import Examiner
from trainables.spec.parse import build
from trainables.spec.trial import DataSpec, ProbeSpec


def spec(**more: Any) -> DataSpec:
    return build(DataSpec, {"name": "digits", "image_size": 16, **more})


def test_the_parts_hold_these_classes_numbered_anew(tmp_path: Path) -> None:
    every, some = open_data(spec(), tmp_path), open_data(spec(classes=[7, 2, 5]), tmp_path)
    kept = np.flatnonzero(np.isin(every.train.labels, [2, 5, 7]))
    assert some.classes == 3 == some.train.classes
    assert sorted([*some.train_ids, *some.val_ids]) == kept.tolist()
    assert not {*some.train_ids} & {*some.val_ids} and set(some.probe_ids) == set(some.train_ids)
    assert (np.array([2, 5, 7])[some.train.labels[kept]] == every.train.labels[kept]).all()
    assert some.test is not None and every.test is not None
    assert some.test_ids.tolist() == np.flatnonzero(np.isin(every.test.labels, [2, 5, 7])).tolist()
    assert (some.train.take(kept[:9]) == every.train.take(kept[:9])).all()
    other = open_data(spec(classes=[2, 5, 8]), tmp_path)
    assert len({one.fingerprint for one in (every, some, other)}) == 3
    again = pickle.loads(pickle.dumps(some.train))
    assert (again.labels == some.train.labels).all() and again.fingerprint == some.train.fingerprint


def test_what_is_known_before_reading_is_what_is_read(tmp_path: Path) -> None:
    given = spec(classes=[0, 3, 4, 9], validation=0.25)
    facts, data = check_data(given), open_data(given, tmp_path)
    assert (facts.train_images, facts.validation_images) == (len(data.train_ids), len(data.val_ids))
    assert facts.classes == 4 and sum(facts.class_images) == len(data.probe_ids)
    assert facts.class_images == tuple(np.bincount(data.train.labels[data.probe_ids]))


def test_a_trial_trains_and_is_probed_on_them_alone(tmp_path: Path) -> None:
    """By a method that learns from the labels: chance of five classes is 20 %, not 10 %."""
    trial = tiny("supervised", data={"name": "digits", "classes": [5, 6, 7, 8, 9]}, epochs=1)
    place = workspace(tmp_path)
    heard = run(trial, place)
    assert 20 < heard.reports[0].metrics["probe/ridge"] <= 100
    data = open_data(trial.data, place.cache)
    final = Examiner(ProbeSpec(), data, 16, torch.device("cpu"), final=True)
    assert set(final.val_labels.tolist()) == set(range(5)) and len(final.val_ids) == len(data.test_ids)


def test_the_order_of_classes_is_no_setting_and_none_is_the_old_name() -> None:
    both = [tiny(data={"name": "digits", "classes": of}).signature() for of in ([3, 1, 2], [1, 2, 3])]
    assert both[0] == both[1] != tiny().signature()
    assert tiny(data={"name": "digits", "classes": None}).signature() == tiny().signature()


def test_classes_of_a_folder_have_names(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for image in range(6):
            picture = Image.new("RGB", (16, 16), (40 * number, 10 * image, 0))
            picture.save(tmp_path / "images" / name / f"{image}.png")
    folder = {"name": "folder", "path": tmp_path / "images"}
    named = spec(**folder, classes=["dog", "bee"])
    facts = check_data(named)
    assert facts.class_names == ("bee", "dog") and facts.train_images + facts.validation_images == 12
    data = open_data(named, tmp_path / "cache")
    numbered = open_data(spec(**folder, classes=[1, 3]), tmp_path / "cache")
    assert data.fingerprint == numbered.fingerprint
    assert data.train.take(data.train_ids)[:, 0].float().mean((1, 2)).unique().tolist() == [40, 120]
    with pytest.raises(UserError, match="'cat'") as caught:
        check_data(spec(**folder, classes=["cta", "dog"]))
    assert caught.value.field == "data.classes"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ([3, 10], "at most 9"),
        ([3], "at least two"),
        ("3", "no list"),
        (3, "no list"),
        ([1, 1], "twice"),
        ([-1, 2], "below 0"),
        ([1, "2"], "all by number"),
        ([True, 2], "all by number"),
        ([0.5, 2], "all by number"),
        (["three", "four"], "no names"),
        ([], "at least two"),
    ],
)
def test_classes_that_cannot_be_chosen(given: Any, word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        check_data(tiny(data={"name": "digits", "classes": given}).data)
    assert caught.value.field == "data.classes"


def test_a_source_that_counts_its_classes_when_it_reads_them_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match="before they are read"):
        check_data(spec(name="cifar10", path=tmp_path, classes=[0, 1]))
