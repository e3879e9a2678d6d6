"""Export, on a sweep whose trials were really trained (without Ray) and written down as a driver does."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from trained_sweep import run, trained_sweep

from raykd.export.student import interval, open_student, write_student
from raykd.export.trial import _command, config_of, export
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.spec.search import SearchSpec, build_sweep, load_sweep
from raykd.storage.local import LocalStorage
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.data.data_sets import open_data
from trainables.evaluation.evaluate import Examiner
from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec, TeacherSpec
from trainables.teachers.teacher import load_teacher
from trainables.training.teacher_file import teacher_path
from trainables.training.workspace import EpochReport
from trainables.views.augmented import plain

RAW = {
    "name": "tiny",
    "method": "retro",
    "preset": "digits",
    "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}},
    "data": {"name": "digits", "image_size": 16},
    "probe": {"score": "ridge_5shot", "record": ["ridge"]},
    "epochs": 2,
    "samples": 2,
    "fixed": {"queue_size": 256, "clip_grad": None},
    "axes": {
        "lr": {"log": [1e-3, 1e-2]},
        "adapter": ["linear", "mlp"],
        "views.strength": {"uniform": [0.25, 1]},
    },
    "references": ["untrained"],
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Two trials of one sweep, the second stopped after an epoch; a third was suggested and never started."""
    torch.set_num_threads(1)
    trials = [
        ({"lr": lr, "adapter": "linear", "views.strength": 0.1 + 0.2}, epochs)
        for lr, epochs in ((0.0012345678901234567, 2), (0.01, 1), (0.005, 0))
    ]
    return trained_sweep(tmp_path_factory.mktemp("storage") / "tiny", build_sweep(RAW), trials)


@pytest.fixture(scope="module")
def exported(sweep, tmp_path_factory) -> Path:
    first = next(iter(History.of(Ledger.read(sweep)).trials))
    return export(sweep, first[:5], tmp_path_factory.mktemp("out") / "student one")


def record_of(sweep: Path, number: int):
    return list(History.of(Ledger.read(sweep)).trials.values())[number]


def test_the_folder(exported):
    files = sorted(str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file())
    assert files == [
        "README.md",
        "command.txt",
        "config.yaml",
        "student/config.json",
        "student/model.safetensors",
    ]
    assert not [p for p in exported.parent.iterdir() if p != exported]


def test_the_config_is_exactly_this_trial_and_repeats_its_score_to_the_last_bit(sweep, exported, tmp_path):
    record = record_of(sweep, 0)
    spec = load_sweep(exported / "config.yaml")
    trial = spec.trial({}, spec.seeds[0])
    assert trial.signature() == record.trial
    assert (spec.trials, dict(spec.axes), spec.scheduler.name, spec.references) == (1, {}, "none", ())
    raw = yaml.safe_load((exported / "config.yaml").read_text())
    assert "preset" not in raw and raw["fixed"].keys() == trial.config.keys()
    curve = {}

    def report(said: EpochReport) -> bool:
        curve[said.epoch] = said.metrics
        return True

    run(trial, tmp_path / "again", report, tmp_path / "teachers")  # its teacher is trained anew as well
    for epoch, metrics in record.reports.items():
        for name in ("score", "probe/ridge", "loss/total", "lr"):
            assert curve[epoch][name] == metrics[name], (epoch, name)
    again = load_file(tmp_path / "again" / "best.safetensors")
    student = load_file(exported / "student" / "model.safetensors")
    assert again.keys() == student.keys() and all(torch.equal(again[k], student[k]) for k in again)


def test_the_command_is_one_that_a_shell_understands_from_any_folder(sweep, exported):
    words = shlex.split((exported / "command.txt").read_text())
    assert words == ["raykd", "run", str(exported / "config.yaml"), "--storage", str(sweep.parent)]


def test_a_teacher_named_from_here_is_found_from_there(exported, sweep):
    trial = build_sweep(RAW).trial({}, 0)
    teacher = TeacherSpec(arch="resnet50", checkpoint=Path("moco v2.pth"))
    command = _command(trial.model_copy(update={"teacher": teacher}), exported, LocalStorage(sweep.parent))
    assert shlex.split(command)[:4] == ["cd", str(Path.cwd()), "&&", "raykd"]


def test_timm_opens_the_student_with_the_same_features(sweep, exported):
    model = timm.create_model(f"local-dir:{exported / 'student'}", pretrained=True).eval()
    record = record_of(sweep, 0)
    trial = build_sweep(RAW).trial(record.params, 0)
    student = build_backbone(trial.student)
    student.model.load_state_dict(load_file(sweep / "trials" / record.trial / "best.safetensors"))
    images = plain(open_data(trial.data, cache_folder()).train.take(torch.arange(64)), 16)
    with torch.no_grad():
        assert torch.equal(model(images), student.eval()(images))


def test_what_timm_is_told_about_images_and_licence(exported):
    config = json.loads((exported / "student" / "config.json").read_text())
    told = config["pretrained_cfg"]
    assert config["model_args"]["channel_multiplier"] == 0.5 and config["num_classes"] == 0
    assert told["mean"] == [0.485, 0.456, 0.406] and told["std"] == [0.229, 0.224, 0.225]
    assert (
        told["input_size"] == [3, 16, 16] and told["crop_pct"] == 1.0 and told["interpolation"] == "bilinear"
    )
    assert "apache" not in json.dumps(config) and "hf_hub_id" not in told and "license" not in told
    model = timm.create_model(f"local-dir:{exported / 'student'}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    assert "CenterCrop(size=(16, 16))" in str(transform)


def test_the_card_says_what_a_user_needs(sweep, exported):
    card = (exported / "README.md").read_text()
    record = record_of(sweep, 0)
    front = yaml.safe_load(card.split("---")[1])
    assert "license" not in front and front["library_name"] == "timm"
    for said in (record.trial, "retro", "digits", "test_resnet", "moco, epochs: 1", "raykd run config.yaml",
                 "untrained | 74.50", "`adapter` | `\"linear\"`", "Licence", "raykd 0.1.0"):  # fmt: skip
        assert said in card, said
    # The score on the test split is the examiner's, with an interval around it.
    trial = build_sweep(RAW).trial(record.params, 0)
    student, facts = open_student(
        trial, sweep / "trials" / record.trial / "best.safetensors", open_sweep(sweep)
    )
    data = open_data(trial.data, cache_folder())
    found = Examiner(trial.probe, data, 16, torch.device("cpu"), final=True).evaluate(student)
    row = next(line for line in card.splitlines() if line.startswith("| ridge_5shot |"))
    score, low, high, its, least, most = (float(x) for x in row.replace("to", "|").split("|")[2:8])
    assert score == round(found["score"], 2) and low < score < high
    # And so is its teacher's, by the same probe on the same images.
    teacher = load_teacher(trial.teacher, teacher_path(trial, sweep.parent / ".teachers")).backbone.eval()
    found = Examiner(trial.probe, data, 16, torch.device("cpu"), final=True).evaluate(teacher)
    assert its == round(found["score"], 2) != score and least < its < most
    assert float(facts["score"]) == record.best[0] and f"after epoch {record.best[1]} of 2" in card
    assert f"read on {len(data.test):,} test images" in card
    labelled = int((data.train.labels >= 0).sum())
    assert f"fitted on {labelled:,} labelled" in card
    for probe in ("ridge", "logistic"):
        assert f"| {probe} |" in card


def test_the_lines_on_the_card_run_where_the_card_is(exported):
    card = (exported / "README.md").read_text()
    lines = card.split("```python\n")[1].split("```")[0] + "\nprint(model.num_features)"
    out = subprocess.run([sys.executable, "-c", lines], cwd=exported, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert f"gives {out.stdout.strip()} features" in card


def test_without_a_name_it_is_the_best_and_a_stopped_one_says_so(sweep, tmp_path):
    history = History.of(Ledger.read(sweep))
    best = history.best()
    out = export(sweep, None, tmp_path / "new" / "out")
    assert load_sweep(out / "config.yaml").name == f"tiny-{best.trial}"
    other = export(sweep, record_of(sweep, 1).trial, tmp_path / "stopped")
    assert "is `stopped` at epoch 1; the repetition goes on to epoch 2" in (other / "README.md").read_text()


def test_what_cannot_be_exported_is_said(sweep, tmp_path):
    with pytest.raises(UserError, match="no such trial"):
        export(sweep, "ffffffff", tmp_path / "a")
    with pytest.raises(UserError, match="none of its epochs was scored"):
        export(sweep, record_of(sweep, 2).trial, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is in use"):
        export(sweep, None, tmp_path / "b")
    assert [p.name for p in tmp_path.rglob("*")] == ["b", "mine.txt"]


def test_a_ledger_of_another_version_is_noticed(sweep, tmp_path):
    other = tmp_path / "tiny"
    with Ledger.create(other) as ledger:
        for record in Ledger.read(sweep):
            fields = {k: v for k, v in record.items() if k not in ("kind", "time")}
            if fields.get("trial"):
                fields["trial"] = "0" * 8
            ledger.append(record["kind"], **fields)
    with pytest.raises(UserError, match="another version of raykd"):
        export(other, None, tmp_path / "out")


@pytest.mark.parametrize(
    "arch, options",
    [
        ("torchvision/resnet18", {}),
        ("torchvision/mobilenet_v3_small", {}),
        ("torchvision/mobilenet_v2", {"width_mult": 0.5, "stem": "small"}),
        ("torchvision/resnet18", {"stem": "small_padding2"}),
        ("torchvision/squeezenet1_1", {}),
        ("torchvision/googlenet", {}),
        ("torchvision/swin_t", {"dropout": 0.1}),
        ("test_resnet", {"stem": "small"}),
        ("tf_mobilenetv3_small_minimal_100", {"stem": "small", "drop_rate": 0.1}),
        ("raykd/mlp", {"side": 32, "hidden": [16, 8]}),
        ("raykd/ae_32", {"side": 32}),
        ("raykd/resnet9", {}),
    ],
)
def test_students_that_timm_cannot_open_alone_open_by_the_lines_given(arch, options, tmp_path):
    spec = {"arch": arch, "options": options}
    raw = {"method": "moco", "student": spec, "teacher": None, "axes": {}, "data": {"image_size": 32}}
    trial = build_sweep({**RAW, **raw}).trial({}, 0)
    student = build_backbone(ModelSpec(**spec), 3).eval()
    lines = write_student(trial, student, tmp_path / "student")
    scope: dict = {}
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(lines, scope)
    finally:
        os.chdir(here)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(scope["model"](images), student(images))
    assert [p.name for p in (tmp_path / "student").iterdir()] == ["model.safetensors"]
    (tmp_path / "beside").touch()
    modes = {p.stat().st_mode for p in (tmp_path / "student" / "model.safetensors", tmp_path / "beside")}
    assert len(modes) == 1, "whoever may read the folder may read the student"


def test_data_without_a_path_stays_so_and_a_path_becomes_absolute():
    spec = build_sweep(RAW)
    trial = spec.trial({}, 0)
    assert config_of(spec, trial)["data"]["path"] is None
    moved = trial.model_copy(update={"data": trial.data.model_copy(update={"path": Path("here")})})
    config = config_of(spec, moved)
    assert config["data"]["path"] == str(Path.cwd() / "here")
    assert SearchSpec.model_validate(config).trial({}, 0).signature() == trial.signature()


def test_intervals():
    # Wilson's for 90 of 100, by his formula; and it does not collapse where nothing is wrong.
    assert interval(90.0, None, 100) == pytest.approx((90.0, 82.56, 94.48), abs=0.01)
    assert interval(100.0, None, 100) == pytest.approx((100.0, 96.30, 100.0), abs=0.01)
    # k-shot: draws and test images join in quadrature.
    half = 1.96 * math.sqrt(1.0**2 + 100 * 0.9 * 0.1)
    assert interval(90.0, 1.0, 100) == pytest.approx((90.0, 90 - half, 90 + half))
    assert interval(99.9, 5.0, 100).high == 100.0


def test_importing_export_needs_no_torch():
    modules = "raykd.export.trial, raykd.export.model_card"
    code = f"import sys, {modules}; print({{'torch', 'ray', 'timm'}} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
