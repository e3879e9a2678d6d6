"""Probes against scikit-learn, against formulas worked out the long way, and at their edges."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from trainables.core.errors import TrialFailed, UserError
from trainables.evaluation import probes, ridge_regression
from trainables.evaluation.probes import check_probe, find_probe, load_probe, probe
from trainables.evaluation.probes.base import Features, Probe, ProbeResult
from trainables.evaluation.ridge_regression import draw_shots, ridge, ridge_fit, standardise
from trainables.spec.trial import ProbeSpec


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x.astype(np.float32), y, test_size=600, stratify=y, random_state=0)
    train, val, train_y, val_y = (torch.from_numpy(p) for p in parts)
    return train, train_y, val, val_y


def blobs(n: int, dim: int, classes: int, seed: int = 0, noise: float = 1.5) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=g)
    y = torch.arange(2 * n) % classes
    x = centres[y] + noise * torch.randn(2 * n, dim, generator=g)
    return x[:n], y[:n], x[n:], y[n:]


@pytest.mark.parametrize(("size", "dim"), [(60, 20), (25, 40), (30, 30)])  # primal, dual, the edge
def test_ridge_is_scikit_learns_at_the_strength_that_leaving_one_out_picks(size: int, dim: int) -> None:
    x, y, _, _ = blobs(size, dim, 3)
    x, _ = standardise(x, x)
    onehot = torch.nn.functional.one_hot(y).double() * 2 - 1
    weight, bias = ridge_fit(x[None], onehot[None])

    # The long way: refit without each sample, for each strength.
    centred = (x - x.mean(0)).numpy()
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    strengths = [s * values.sum() / min(size - 1, dim) for s in ridge_regression._STRENGTHS]

    def fit(rows: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        a, b = x.numpy()[rows], onehot.numpy()[rows]
        ca, cb = a - a.mean(0), b - b.mean(0)
        w = np.linalg.solve(ca.T @ ca + strength * np.eye(dim), ca.T @ cb)
        return w, b.mean(0) - a.mean(0) @ w

    errors = []
    for strength in strengths:
        total = 0.0
        for i in range(size):
            w, b = fit(np.delete(np.arange(size), i), strength)
            total += float(((x[i].numpy() @ w + b - onehot[i].numpy()) ** 2).sum())
        errors.append(total)
    best = strengths[int(np.argmin(errors))]
    w, b = fit(np.arange(size), best)
    np.testing.assert_allclose(weight[0].numpy(), w, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(bias[0, 0].numpy(), b, rtol=1e-6, atol=1e-9)

    sk = RidgeClassifier(alpha=best).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight[0].numpy(), sk.coef_.T, rtol=1e-6, atol=1e-9)


def test_ridge_scores_digits_as_scikit_learn_does(digits: tuple[Tensor, ...]) -> None:
    train, y, val, val_y = digits
    ours = probe("ridge", train, y, val, val_y)
    a, b = (part.numpy() for part in standardise(train, val))
    values = np.linalg.eigvalsh(a.T @ a)
    near = [
        100 * RidgeClassifier(alpha=s * values.mean()).fit(a, y.numpy()).score(b, val_y.numpy())
        for s in ridge_regression._STRENGTHS
    ]
    assert any(abs(ours.score - score) < 1e-9 for score in near)
    assert 91 < ours.score < 96 and ours.se is None  # raw pixels, by a prototype: 93.5


def test_shots_are_fixed_draws_with_their_standard_error(digits: tuple[Tensor, ...]) -> None:
    train, y, val, val_y = digits
    result = probe("ridge_5shot", train, y, val, val_y, draws=30)
    assert 78 < result.score < 85  # raw pixels
    assert result.se is not None and 0.2 < result.se < 1.0
    assert result == probe("ridge_5shot", train, y, val, val_y, draws=30)
    assert result != probe("ridge_5shot", train, y, val, val_y, draws=30, seed=1)

    draws = draw_shots(y.numpy(), 5, 30, 0)
    assert (
        draw_shots(y.numpy(), 5, 7, 0)[6].tolist() == draws[6].tolist()
    )  # more draws leave the first as they are
    assert all((np.bincount(y.numpy()[d]) == 5).all() for d in draws)
    known = torch.arange(10)
    singles = [float(ridge(train, y, val, known, val_y, [d])[0]) for d in draws]
    assert result.score == pytest.approx(
        np.mean(singles), abs=1e-9
    )  # a batch of draws is its draws one by one
    assert result.se == pytest.approx(np.std(singles, ddof=1) / 30**0.5, abs=1e-9)


def test_draws_in_chunks_are_the_draws(digits: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    train, y, val, val_y = digits
    whole = probe("ridge_2shot", train, y, val, val_y)
    monkeypatch.setattr(ridge_regression, "_ELEMENTS", 20 * 64 * 4)
    assert probe("ridge_2shot", train, y, val, val_y).score == pytest.approx(whole.score, abs=1e-9)


def test_knn_is_scikit_learns_weighted_vote(digits: tuple[Tensor, ...]) -> None:
    train, y, val, val_y = digits
    classifier = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07), algorithm="brute"
    ).fit(train.numpy(), y.numpy())
    assert probe("knn", train, y, val, val_y).score == pytest.approx(
        100 * classifier.score(val.numpy(), val_y.numpy()), abs=0.2
    )


def test_logistic_is_scikit_learns(digits: tuple[Tensor, ...]) -> None:
    train, y, val, val_y = digits
    a, b = (part.numpy() for part in standardise(train, val))
    expected = 100 * LogisticRegression(max_iter=1000).fit(a, y.numpy()).score(b, val_y.numpy())
    assert probe("logistic", train, y, val, val_y).score == pytest.approx(expected)


def test_rankme_counts_directions() -> None:
    basis = torch.linalg.qr(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)))[0]
    none = torch.zeros(0)
    assert probe("rankme", basis, none, none, none).score == pytest.approx(8, abs=1e-3)
    assert probe("rankme", basis.T, none, none, none).score == pytest.approx(8, abs=1e-3)  # wide
    assert probe("rankme", torch.ones(50, 4), none, none, none).score == pytest.approx(
        1, abs=1e-3
    )  # collapsed
    assert probe("rankme", torch.zeros(50, 4), none, none, none).score == 0
    weighted = basis * torch.tensor([4.0, 2, 1, 1, 0, 0, 0, 0])
    p = np.array([4, 2, 1, 1]) / 8
    assert probe("rankme", weighted, none, none, none).score == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-3
    )


@pytest.mark.parametrize("name", ["ridge", "ridge_3shot", "knn", "logistic"])
def test_collapsed_features_score_chance_and_scale_changes_nothing(name: str) -> None:
    x, y, v, vy = blobs(60, 10, 3)
    assert probe(name, torch.ones_like(x), y, torch.ones_like(v), vy).score == pytest.approx(100 / 3, abs=0.1)
    assert probe(name, x, y, v, vy).score == pytest.approx(
        probe(name, 1e4 * x, y, 1e4 * v, vy).score, abs=0.6
    )


@pytest.mark.parametrize("name", ["ridge", "ridge_3shot", "knn", "logistic"])
def test_a_class_missing_in_training_is_never_predicted(name: str) -> None:
    x, y, v, vy = blobs(120, 10, 4, noise=0.1)
    some = (y == 1) | (y == 3)
    assert probe(name, x[some], y[some], v, vy).score == pytest.approx(50, abs=2)  # 0 and 2 are always wrong


def test_a_scarce_class_gives_all_it_has_and_none_with_enough_is_an_error() -> None:
    x, y, v, vy = blobs(60, 10, 3, noise=0.1)
    keep = (y != 0) | (torch.arange(60) < 6)  # two of class 0
    assert probe("ridge_5shot", x[keep], y[keep], v, vy).score > 95
    with pytest.raises(UserError, match="no class has 21"):
        probe("ridge_21shot", x, y, v, vy)
    assert probe("knn", x[:5], y[:5], v, vy).score > 60  # fewer than k neighbours
    with pytest.raises(UserError, match="needs labelled images"):
        probe("ridge", x[:0], y[:0], v, vy)


def test_features_that_are_not_finite_fail_the_trial() -> None:
    x, y, v, vy = blobs(60, 10, 3)
    x[3, 4] = torch.nan
    with pytest.raises(TrialFailed, match="not finite"):
        probe("ridge", x, y, v, vy)


def facts(**fields: Any) -> Any:
    return SimpleNamespace(**{"train_images": 1500, "probe_images": 1000, "classes": 10, **fields})


@pytest.mark.parametrize(
    ("fields", "found", "message"),
    [
        ({"score": "rigde"}, facts(), "probe.score: no such probe .*'ridge'"),
        ({"record": ("ridge", "kmeans")}, facts(), "probe.record: no such probe"),
        ({"score": "ridge_Kshot"}, facts(), "K has to be a number"),
        ({"score": "ridge_0shot"}, facts(), "no such probe"),
        ({"score": "ridge_101shot"}, facts(), "more than there are images.*at most 100 a class"),
        ({"score": "ridge_20shot", "max_images": 100}, facts(), "at most 10 a class"),
        ({"score": "knn"}, facts(classes=0), "no labels.*rankme"),
        ({"score": "logistics"}, facts(), "no such probe.*'logistic'.*Known: .*knn, .*ridge, "),
    ],
)
def test_a_probe_that_cannot_work_is_refused(fields: dict[str, Any], found: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_probe(ProbeSpec(**fields), found)


def test_without_labels_only_what_needs_none_is_recorded() -> None:
    spec = ProbeSpec(score="rankme")
    check_probe(spec, facts(classes=0))
    assert probes.names(spec, 0) == ("rankme",)
    assert probes.names(spec, 10) == ("rankme", "ridge_1shot", "ridge", "knn")


def test_probes_say_what_their_numbers_may_be_used_for() -> None:
    kinds = probes.probes()
    assert all(kind.summary for kind in kinds.values())
    for name in ("knn", "logistic", "rankme", "ridge", "ridge_Kshot"):
        kind = kinds[name]
        assert kind.higher_is_better and kind.slow == (name == "logistic")
        for flag in (kind.needs_labels, kind.comparable, kind.counts_images):
            assert flag == (name != "rankme")
    assert [load_probe(name).shots for name in ("ridge", "ridge_1shot", "ridge_12shot")] == [None, 1, 12]
    assert [find_probe(name) for name in ("ridge_Kshot", "ridge_0shot", "rigde", None, ["ridge"])] == [
        None
    ] * 5


def test_a_probe_whose_lower_values_are_better_is_recorded_and_no_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Spread(Probe):
        label = "spread"
        higher_is_better = False
        needs_labels = False

        def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
            return ProbeResult(float(features.train.std()))

    known = {**probes.probes(), "spread": Spread}
    monkeypatch.setattr(probes, "probes", lambda: known)
    x, y, v, vy = blobs(60, 10, 3)
    assert probe("spread", x, y, v, vy).score == pytest.approx(float(x.std()))
    check_probe(ProbeSpec(record=("spread",)), facts())
    with pytest.raises(UserError, match=r"probe.score: .*lower values are better.*record: \[spread\]"):
        check_probe(ProbeSpec(score="spread"), facts())


def test_flags_are_read_without_torch() -> None:
    code = (
        "import sys; from trainables.evaluation.probes import find_probe, load_probe\n"
        "assert load_probe('ridge_5shot').needs_labels and not find_probe('rankme').comparable\n"
        "assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
