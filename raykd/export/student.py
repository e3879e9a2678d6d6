"""Exporting the student of a trial: reading it, scoring it on the test split, writing it for its library.

Imported late, because it needs torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from raykd.export.formats import OPTION, TIMM
from raykd.storage.base import Storage, SweepFolder
from raykd.storage.commands import command
from trainables.core.checksums import UNREADABLE, read_with_checksum
from trainables.core.errors import UserError, first_line
from trainables.core.workers import device
from trainables.data.data_sets import open_data
from trainables.evaluation.evaluate import Examiner
from trainables.evaluation.probes import load_probe, probes
from trainables.networks import plugin_networks, torchvision_models
from trainables.networks.backbones import Backbone, build_backbone, noise
from trainables.networks.stems import STEM, stem_lines
from trainables.networks.zoo import RAYKD, TORCHVISION
from trainables.spec.trial import ModelSpec, TrialSpec
from trainables.teachers.teacher import load_teacher
from trainables.training.teacher_file import teacher_path
from trainables.views.augmented import evaluation_view

WEIGHTS = "model.safetensors"  # the file name that timm and the Hugging Face hub use
_SLOW_LIMIT = 10**9  # images x features x classes that a slow probe (logistic regression) fits in minutes


class Estimate(NamedTuple):
    """A score with its 95 % interval, all in percent."""

    score: float
    low: float
    high: float


class TestScores(NamedTuple):
    """Scores on the test split."""

    probes: dict[str, Estimate]
    fitted: int  # number of labelled images for fitting the probes: training and validation part
    tested: int  # test images


class Size(NamedTuple):
    """The size of a student."""

    parameters: int
    features: int  # per image


def open_student(trial: TrialSpec, path: Path, sweep: SweepFolder) -> tuple[Backbone, dict[str, str]]:
    """(student, metadata) from `path`, a trial's `best.safetensors` in `sweep`.

    The student is in eval mode, on the CPU. `UserError` if the file is damaged.
    """
    backbone = build_backbone(trial.student, 0)
    try:
        weights, facts = read_with_checksum(path)
        if facts["trial"] != trial.signature():
            raise ValueError(f"it is of trial {facts['trial']}")
        backbone.model.load_state_dict(weights)
    except (*UNREADABLE, KeyError, RuntimeError) as error:
        raise UserError(
            "trial",
            f"its student {path} is damaged: {first_line(error)}",
            value=trial.signature(),
            expected=f"`{command('resume', sweep, '--repair')}`, which trains it again",
        ) from None
    return backbone.eval(), facts


def score_on_test(trial: TrialSpec, student: Backbone, cache: Path) -> TestScores | None:
    """Scores on the test split of probes that are fitted on the training and validation part.

    None without a labelled test split. The features are the backbone's, in float32, as the exported student
    computes them.
    """
    data = open_data(trial.data, cache)
    tested = data.test_ids
    if data.test is None or not len(tested) or not data.classes or (data.test.labels[tested] < 0).any():
        return None
    fit_labels = data.train.labels[data.train.labels >= 0]
    most = int(np.bincount(fit_labels).max())
    wanted = [trial.probe.score, *trial.probe.record, "ridge"]
    if most >= 5:
        wanted.append("ridge_5shot")
    if min(len(fit_labels), trial.probe.max_images) * student.feature_dim * data.classes <= _SLOW_LIMIT:
        wanted += [kind.label for kind in probes().values() if kind.slow]
    names = [name for name in dict.fromkeys(wanted) if load_probe(name).counts_images]
    probe = trial.probe.model_copy(update={"score": names[0], "record": tuple(names[1:])})
    view = evaluation_view(trial.data, student.inputs)
    examiner = Examiner(probe, data, view, device(), final=True)
    student.to(device())
    found = examiner.evaluate(student)
    student.cpu()
    metrics = {name: (found[f"probe/{name}"], found.get(f"probe/{name}_se")) for name in names}
    estimates = {name: interval(*metrics[name], len(tested)) for name in names}
    return TestScores(estimates, len(examiner.fit_ids), len(tested))


def teacher_on_test(trial: TrialSpec, storage: Storage, cache: Path) -> TestScores | None:
    """`score_on_test` for the trial's teacher; None without one, or if its file is gone from the storage."""
    if trial.teacher is None:
        return None
    path = teacher_path(trial, storage.teachers())
    if path != trial.teacher.checkpoint:  # a file that raykd made
        storage.pull(path)
    try:
        spec = trial.teacher.model_copy(update={"batch_norm": "eval"})
        backbone = load_teacher(spec, path).backbone
    except UserError:
        return None
    return score_on_test(trial, backbone.eval(), cache)


def interval(score: float, se: float | None, tested: int) -> Estimate:
    """The 95 % interval of an accuracy in percent over `tested` images.

    Without `se` it is Wilson's interval, which covers only the limited number of test images. With `se`, the
    standard error of a k-shot probe over its draws in percent, the variance is se² + p(1-p)/n; p(1-p)/n is an
    upper bound for the test images' part.
    """
    z, p = 1.96, score / 100
    if se is None:
        centre = (p + z * z / (2 * tested)) / (1 + z * z / tested)
        half = z / (1 + z * z / tested) * math.sqrt(p * (1 - p) / tested + z * z / (4 * tested * tested))
    else:
        centre, half = p, z * math.sqrt((se / 100) ** 2 + p * (1 - p) / tested)
    return Estimate(score, 100 * max(0.0, centre - half), 100 * min(1.0, centre + half))


def write_student(trial: TrialSpec, student: Backbone, folder: Path, licence: str | None = None) -> str:
    """Write the student into the new `folder`; returns Python code that opens it.

    `UserError` if the student computes other features after opening; they must be equal to the last bit.
    """
    folder.mkdir(parents=True)
    does = preprocessing(trial, student)
    about = {"format": "pt", "raykd": "student", **student.written}
    about |= {name: json.dumps(value) for name, value in does.items()}
    if timm_opens(trial.student):
        _describe(student.model, does, licence)
        save_for_hf(student.model, str(folder), model_args=student.options, safe_serialization=True)
        # The metadata identify the student if its file is moved out of the folder.
        save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, about)
        lines = 'import timm\n\nmodel = timm.create_model("local-dir:student", pretrained=True).eval()'
    else:
        tensors = {name: tensor.contiguous() for name, tensor in student.model.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, about)
        lines = _lines(trial.student, student.model)
    (folder / WEIGHTS).chmod(folder.stat().st_mode & 0o666)  # safetensors writes mode 0600
    _check_same(trial, student, folder)
    return lines


def open_exported(trial: TrialSpec, folder: Path) -> torch.nn.Module:
    """Open an exported student as a user does; in eval mode, on the CPU."""
    if timm_opens(trial.student):
        model: torch.nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return model.eval()
    backbone = build_backbone(trial.student, 0)
    backbone.model.load_state_dict(load_file(folder / WEIGHTS))
    return backbone.model.eval()


def preprocessing(trial: TrialSpec, student: Backbone) -> dict[str, Any]:
    """How a picture becomes the student's input as its probes saw it, in timm's fields.

    `timm.data.create_transform` takes them. Pixels are in 0..1, less `mean`, divided by `std`.
    """
    view, stored = evaluation_view(trial.data, student.inputs), trial.data.stored
    mean, std = student.pixels
    share = view.kept / stored
    # timm resizes to the whole pixels of this quotient: rounded, it may be a pixel less.
    if math.floor(view.size / share) < view.size * stored // view.kept:
        share = math.nextafter(share, 0)
    return {
        "input_size": (student.in_chans, view.size, view.size),
        "crop_pct": share,
        "crop_mode": "center",
        "interpolation": view.interpolation,
        "mean": mean,
        "std": std,
    }


def graph_metadata(trial: TrialSpec, student: Backbone, licence: str | None) -> dict[str, Any]:
    """What a graph of the student says about itself; `channels` is the order in which it takes them."""
    said = {"arch": trial.student.arch, "options": trial.student.options, "trial": trial.signature()}
    chosen = {} if licence is None else {"licence": licence}
    does = {**preprocessing(trial, student), "channels": student.inputs.channels}
    return {**said, **chosen, "preprocessing": does}


def _describe(model: torch.nn.Module, does: dict[str, Any], licence: str | None) -> None:
    """Set `pretrained_cfg` to the student's image preprocessing `does`, in timm's fields.

    Fields that describe timm's own weights (address, paper, licence) are removed.
    """
    given: Any = model.pretrained_cfg
    kept = {key: given[key] for key in ("architecture", "first_conv", "classifier") if key in given}
    model.pretrained_cfg = {  # type: ignore[assignment]
        **kept,
        "fixed_input_size": given.get("fixed_input_size", False),
        "num_classes": 0,
        **does,
        "tag": None,
        "license": licence,
    }


def timm_opens(spec: ModelSpec) -> bool:
    """Whether timm can create the student from a folder."""
    return why_not_timm(spec) is None


def why_not_timm(spec: ModelSpec) -> str | None:
    """Why timm cannot create the student from a folder; None if it can."""
    if plugin_networks.place_of(spec.arch) is not None:
        return "it is a network of your own code"
    for prefix, whose in ((TORCHVISION, "torchvision"), (RAYKD, "raykd")):
        if spec.arch.startswith(prefix):
            return f"it is a network of {whose}"
    return "timm has no option for another stem" if STEM in spec.options else None


def check_timm(spec: ModelSpec) -> None:
    """Raise `UserError` where the format `timm` is asked for a student that timm cannot open."""
    why = why_not_timm(spec)
    if why is not None:
        hint = "student/ holds its weights without that, and the card the lines that open them."
        raise UserError(
            OPTION, f"timm cannot open {spec.arch}: {why}", value=TIMM, expected="other formats", hints=[hint]
        )


def _lines(spec: ModelSpec, model: torch.nn.Module) -> str:
    """Python code that creates the architecture with its library and loads the weights."""
    own = {name: value for name, value in spec.options.items() if name != STEM}
    name = spec.arch.removeprefix(TORCHVISION)
    accepted = torchvision_models.arguments(name, own) if spec.arch != name else own
    arguments = "".join(f", {option}={value!r}" for option, value in accepted.items())
    place = plugin_networks.place_of(spec.arch)
    if place is not None:
        imports = f"from safetensors.torch import load_file\n\nfrom {place[0]} import {place[1]}"
        made = [f"model = {place[1]}({arguments.removeprefix(', ')})"]
    elif spec.arch.startswith(RAYKD):
        imports = (
            "from safetensors.torch import load_file\n\n"
            "from trainables.networks.zoo import create  # raykd's package: this is a network of its own"
        )
        made = [f'model = create("{spec.arch}", {own!r}, "student")']
    elif spec.arch.startswith(TORCHVISION):
        imports = "import torch, torchvision\nfrom safetensors.torch import load_file"
        layout = torchvision_models.layout(model)
        assert layout is not None, "a torchvision model that was made here"
        nothing = model.get_submodule(layout.classifier)
        made = [
            f'model = torchvision.models.get_model("{name}", weights=None{arguments})',
            f"model.{layout.classifier} = torch.nn.{nothing}  # features instead of classes",
        ]
    else:
        imports = "import timm, torch\nfrom safetensors.torch import load_file"
        made = [f'model = timm.create_model("{spec.arch}", num_classes=0{arguments})']
    if STEM in spec.options:
        made += stem_lines(model)
    load = f'model.load_state_dict(load_file("student/{WEIGHTS}"))\nmodel.eval()'
    return imports + "\n\n" + "\n".join(made) + "\n" + load


def _check_same(trial: TrialSpec, student: Backbone, folder: Path) -> None:
    images = noise(trial.data.image_size, student.in_chans)
    with torch.no_grad():
        same = torch.equal(student.cpu().eval().model(images), open_exported(trial, folder)(images))
    if not same:
        problem, arch = "opened again it computes other features", trial.student.arch
        expected = "an architecture whose options can be written down"
        raise UserError("student", problem, value=arch, expected=expected)
