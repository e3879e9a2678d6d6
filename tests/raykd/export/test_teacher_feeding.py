"""The engine on teachers with pixels of their own: what it says, what old sweeps keep, what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import yaml

from raykd.ablation.guard import check_study
from raykd.ablation.study import build_study
from raykd.cli import main
from raykd.export.model_card import _images
from raykd.export.student import write_student
from raykd.export.teacher import inspect
from raykd.export.trial import config_of
from raykd.runs.changed_spec import as_begun, refuse_changed_spec, unlike_today
from raykd.spec.search import SearchSpec, build_sweep, load_sweep
from raykd.spec.validate import validate
from trainables.core.errors import UserError
from trainables.networks.backbones import build_backbone
from trainables.spec.inputs import AS_STUDENT, Inputs
from trainables.spec.normalisation import IMAGENET, Normalisation
from trainables.teachers.feeding import feeding
from trainables.teachers.pretrained.read import read_checkpoint

torch.set_num_threads(1)

VIT, OPTIONS = "vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24}
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network twice: as timm's own, trained on .5 and .5, and as DINO's, trained on ImageNet's."""
    folder = tmp_path_factory.mktemp("teachers")
    model = timm.create_model(VIT, num_classes=0, **OPTIONS)
    paths = {"timm": folder / "teacher.pth", "dino": folder / "dino_vit.pth"}
    for path in paths.values():
        torch.save(model.state_dict(), path)
    return paths


def raw(checkpoint: Path, **teacher: Any) -> dict[str, Any]:
    return {
        "name": "pixels",
        "method": "compress",
        "preset": "digits",
        "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
        "teacher": {"arch": VIT, "options": OPTIONS, "checkpoint": str(checkpoint), **teacher},
        "data": {"image_size": 16},
        "epochs": 1,
        "samples": 1,
        "axes": {"lr": [0.001, 0.002]},
        "references": [],
    }


def as_of_old(spec: SearchSpec) -> SearchSpec:
    """The spec as a ledger gives it back that was written before teachers had pixels of their own."""
    dump = spec.model_dump(mode="json")
    del dump["teacher_pixels"]
    return SearchSpec.model_validate(dump)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_dry_run_says_what_is_not_usual(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "pixels.yaml"
    for name, told in (("timm", True), ("dino", False)):
        path.write_text(yaml.safe_dump(raw(files[name])))
        text = said(capsys, "run", path, "--dry-run", "--storage", tmp_path)
        assert ("pixels have mean 0.5, 0.5, 0.5 and deviation 0.5, 0.5, 0.5" in text) == told
    assert not validate(build_sweep(raw(files["dino"])))
    (by_field,) = validate(build_sweep(raw(files["dino"], mean=0.1307, std=0.3081)))
    assert "0.1307" in by_field and "as the sweep says; by its origin, dino" in by_field
    with pytest.raises(UserError, match=r"teacher\.std: cannot be the deviation"):
        validate(load_sweep(path, ["teacher.mean=[.5,.5,.5]", "teacher.std=[127.5,127.5,127.5]"]))


def test_inspect_says_the_values_and_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    for name, mean, by in (
        (
            "teacher.pth",
            "mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, 0.5",
            "by timm's pretrained_cfg of test_vit",
        ),
        ("dino_vit.pth", "mean 0.485, 0.456, 0.406", "by its origin, dino by the file's name"),
    ):
        torch.save(state, tmp_path / name)
        text = said(capsys, "teacher", "inspect", tmp_path / name, "--arch", "test_vit")
        assert mean in text and by in text
        found = json.loads(
            said(capsys, "teacher", "inspect", tmp_path / name, "--arch", "test_vit", "--json")
        )
        told = ", ".join(map(str, found["normalisation"]["mean"]))
        assert f"mean {told}" in text and f"by {found['normalisation']['by']}" in text
        said_of_images = ", ".join(
            [
                "RGB",
                "values -1 to 1" if name == "teacher.pth" else "values -2.118 to 2.64",
                "bicubic resizing",
            ]
        )
        assert (
            f"{said_of_images}, crop share {found['preprocessing']['crop_share']}, trained on 160 px" in text
        )
    untold = inspect(tmp_path / "teacher.pth")["normalisation"]
    assert untold["mean"] is None and "--arch" in untold["by"]


def test_an_old_sweep_goes_on_as_it_began(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "pixels.yaml"
    path.write_text(yaml.safe_dump(raw(files["timm"])))
    new = load_sweep(path)
    old = as_of_old(new)
    then, now = (spec.trial({"lr": 0.001}, 0) for spec in (old, new))
    assert then.teacher is not None and then.teacher.normalisation == IMAGENET
    assert now.teacher is not None and now.teacher.mean == HALF
    assert then.signature() != now.signature()
    explicit = build_sweep(raw(files["timm"], mean=IMAGENET.mean, std=IMAGENET.std, **AS_STUDENT))
    assert explicit.trial({"lr": 0.001}, 0).signature() == then.signature()
    # Its file is the one that it was started with, and a word is said.
    history: Any = SimpleNamespace(
        sweep={"source": {"path": str(path), "overrides": []}},
        trials={"a": SimpleNamespace(params={"lr": 0.001}, replicate=0)},
    )
    refuse_changed_spec(old, history, tmp_path)
    assert "as the sweep says" in unlike_today(old, history) and not unlike_today(new, history)
    path.write_text(yaml.safe_dump(raw(files["timm"], mean=0.4, std=0.4)))
    with pytest.raises(UserError, match=r"teacher\.mean: nothing -> 0\.4"):
        refuse_changed_spec(old, history, tmp_path)


def test_an_old_sweep_that_trains_its_teacher_goes_on(files: dict[str, Path]) -> None:
    trained = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}
    new = build_sweep({**raw(files["dino"]), "teacher": trained})
    for teacher in (trained, {**trained, "checkpoint": None}):  # as exports wrote it
        old = as_of_old(new.model_copy(update={"teacher": teacher}))
        assert old.trial({}, 0).signature() == new.trial({}, 0).signature()


def test_where_nothing_differs_old_and_new_are_one(files: dict[str, Path]) -> None:
    new = build_sweep(raw(files["dino"], **AS_STUDENT))
    assert new.trial({}, 0).signature() == as_of_old(new).trial({}, 0).signature()


def test_a_sweep_from_when_mean_and_deviation_alone_were_its_own_goes_on(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """Its teacher's evaluation views are the student's; a new sweep has those of the weights' origin."""
    path = tmp_path / "pixels.yaml"
    path.write_text(yaml.safe_dump(raw(files["timm"])))
    new = load_sweep(path)
    own = SearchSpec.model_validate({**new.model_dump(mode="json"), "teacher_pixels": "own"})
    then, now = (spec.trial({"lr": 0.001}, 0).teacher for spec in (own, new))
    assert then is not None and now is not None and then.mean == now.mean == HALF
    assert (then.interpolation, then.inputs.crop_share) == ("bilinear", None)
    assert (now.interpolation, now.inputs.crop_share) == ("bicubic", 0.9), "timm's, of its own ViT"
    assert own.trial({}, 0).signature() != new.trial({}, 0).signature()
    history: Any = SimpleNamespace(sweep={"source": {"path": str(path), "overrides": []}}, trials={})
    refuse_changed_spec(own, history, tmp_path)
    # What an earlier raykd wrote of such a trial, without these fields, is what is written today.
    config = config_of(own, own.trial({"lr": 0.001}, 0))
    earlier = {n: v for n, v in config["teacher"].items() if n not in AS_STUDENT}
    before = SearchSpec.model_validate(
        {**build_sweep({**config, "teacher": earlier}).model_dump(mode="json"), "teacher_pixels": "own"}
    )
    assert as_begun(build_sweep(config), before).hash() == before.hash()
    assert before.trial({}, 0).signature() == own.trial({"lr": 0.001}, 0).signature()


@pytest.mark.parametrize("name, fields", [("timm", {}), ("dino", {}), ("timm", {"mean": 0.1, "std": 0.2}),
                                          ("timm", IMAGENET._asdict())])  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_an_exported_config_is_the_same_trial(
    files: dict[str, Path], name: str, fields: dict[str, Any], old: bool
) -> None:
    spec = build_sweep(raw(files[name], **fields))
    spec = as_of_old(spec) if old else spec
    trial = spec.trial({"lr": 0.002}, 0)
    again = build_sweep(json.loads(json.dumps(config_of(spec, trial)))).trial({}, 0)
    assert again.signature() == trial.signature() and again.teacher == trial.teacher


def test_an_old_search_of_a_study_is_known_again(files: dict[str, Path]) -> None:
    """What a retuned study writes today of a teacher on ImageNet's values is what it wrote then."""
    spec = build_sweep(raw(files["dino"]))
    now = build_sweep(config_of(spec, spec.trial({"lr": 0.001}, 0)))
    written = {name: value for name, value in now.teacher.items() if name not in ("mean", "std")}  # type: ignore[union-attr]
    then = as_of_old(now.model_copy(update={"teacher": written}))
    assert as_begun(now, then).hash() == then.hash() != now.hash()


def test_a_study_on_a_sweep_s_best_trial_finds_each_arm_s_pixels(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = build_sweep(raw(files["dino"]))
    trial = spec.trial({"lr": 0.001}, 0)
    history = SimpleNamespace(spec=spec.model_dump(mode="json"), study=False, sweep=None, trials={})
    monkeypatch.setattr("raykd.ablation.study.find", lambda *_: Path("sweep"))
    monkeypatch.setattr("raykd.ablation.study.read", lambda _: history)
    monkeypatch.setattr("raykd.ablation.study.chosen", lambda *_: (None, trial))
    study = build_study(
        {
            "name": "teachers",
            "base": {"sweep": "pixels"},
            "design": "one_at_a_time",
            "factors": {"teacher.checkpoint": [str(files["timm"])]},
            "replicates": 2,
        },
        Path("nowhere"),
    )
    base, other = (study.arm_trial(label).teacher for label in study.arms)
    assert base is not None and other is not None
    assert base.normalisation == IMAGENET and other.mean == HALF


def test_axes_and_arms_may_change_the_teacher(files: dict[str, Path]) -> None:
    """Each trial's teacher has its own pixels, and a study does not call that undeclared."""
    both = raw(files["timm"])
    both["axes"] = {"teacher.checkpoint": [str(path) for path in files.values()]}
    spec = build_sweep(both)
    means = [spec.trial({"teacher.checkpoint": str(path)}, 0).teacher.mean for path in files.values()]  # type: ignore[union-attr]
    assert means == [HALF, IMAGENET.mean] and len(validate(spec)) == 1
    base = {
        key: value
        for key, value in raw(files["timm"]).items()
        if key not in ("axes", "samples", "name", "references")
    }
    study: dict[str, Any] = {
        "name": "teachers",
        "base": base,
        "design": "one_at_a_time",
        "factors": {"teacher.checkpoint": [str(files["dino"])]},
        "replicates": 2,
    }
    checked, remarks = check_study(build_study(study, Path("nowhere")))
    assert len(checked.arms) == 2 and sum("its pixels" in remark for remark in remarks) == 1
    old = build_study({**study, "base": {**base, "teacher_pixels": "imagenet"}}, Path("nowhere"))
    taught = [old.arm_trial(label).teacher for label in old.arms]
    assert all(teacher is not None and teacher.normalisation == IMAGENET for teacher in taught)


@pytest.mark.parametrize("arch", [VIT, "torchvision/resnet18", "raykd/resnet9", "test_resnet"])
def test_an_exported_student_says_what_it_was_trained_on(arch: str, tmp_path: Path) -> None:
    """In timm's words, and in its file for whoever takes that alone; timm's own ViT has others."""
    options = OPTIONS if arch == VIT else {"stem": "small"} if arch == "test_resnet" else {}
    student = {"arch": arch, "options": options}
    trial = build_sweep(
        {**raw(tmp_path / "none.pth"), "method": "moco", "preset": None, "student": student, "teacher": None,
         "data": {"image_size": 16, "margin": 2}}
    ).trial({}, 0)  # fmt: skip
    write_student(trial, build_backbone(trial.student, 0), tmp_path / "student")
    file = tmp_path / "student" / "model.safetensors"
    if arch == VIT:
        model = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True)
        config = timm.data.resolve_data_config(model=model)
        assert (tuple(config["mean"]), tuple(config["std"])) == IMAGENET and config[
            "interpolation"
        ] == "bilinear"
        assert config["input_size"] == (3, 16, 16) and config["crop_pct"] == pytest.approx(16 / 18)
        said_by_timm = timm.data.create_transform(**config)
        assert "Resize(size=18" in str(said_by_timm) and "CenterCrop(size=(16, 16))" in str(said_by_timm)
    found = inspect(tmp_path / "student")
    assert tuple(found["normalisation"]["mean"]) == IMAGENET.mean
    assert found["architecture"]["guess"]["arch"] == arch
    alone = file.rename(tmp_path / "mine.safetensors")
    taken = feeding(arch, read_checkpoint(alone, "FILE"))
    assert taken.normalisation == IMAGENET and taken.preprocessing == ("bilinear", 16 / 18, "rgb", 16)


def test_a_student_s_files_and_card_say_which_share_its_probes_saw(tmp_path: Path) -> None:
    wide = {"image_size": 16, "margin": 16, "crop_share": 0.8}
    trial = build_sweep(
        {**raw(tmp_path / "none.pth"), "method": "moco", "preset": None, "teacher": None, "data": wide}
    ).trial({}, 0)
    student = build_backbone(trial.student, 0)
    write_student(trial, student, tmp_path / "student")
    model = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True)
    config = timm.data.resolve_data_config(model=model)
    assert config["crop_pct"] == 26 / 32 and "Resize(size=19" in str(timm.data.create_transform(**config))
    assert _images(trial, student) == (
        "RGB images of 16 px: the middle of pictures whose shorter side was resized to 20 px (bilinear, crop "
        "share 0.8125), normalised by ImageNet's mean and deviation"
    )
    assert (
        config_of(build_sweep({**raw(tmp_path / "n.pth"), "data": wide}), trial)["data"]["crop_share"] == 0.8
    )


def test_a_student_with_weights_of_its_own_is_exported_as_it_takes_images(tmp_path: Path) -> None:
    """What `Backbone.feed` was told is in its files; its model is saved without the conversion."""
    sweep = {**raw(tmp_path / "none.pth"), "method": "moco", "preset": None, "teacher": None}
    trial = build_sweep(sweep).trial({}, 0)
    student = build_backbone(trial.student, 0)
    student.feed(Inputs(Normalisation(HALF, HALF), "bgr", "bicubic", 0.5))
    write_student(trial, student, tmp_path / "student")
    found = inspect(tmp_path / "student")
    assert found["normalisation"]["mean"] == HALF and found["preprocessing"] == {
        "interpolation": "bicubic", "crop_share": 0.5, "channels": "bgr", "image_size": 16
    }  # fmt: skip


def test_the_dry_run_says_which_pixels_a_larger_teacher_lacks(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    path = tmp_path / "pixels.yaml"
    larger = {name: value for name, value in OPTIONS.items() if name != "img_size"}
    path.write_text(yaml.safe_dump(raw(files["timm"], image_size=32, options=larger)))
    text = said(capsys, "run", path, "--dry-run", "--storage", tmp_path)
    assert "teacher.image_size: it sees 32 px, and images are prepared with 16" in text
    with pytest.raises(UserError, match=r"teacher\.image_size: .* patches of 8 pixels.*Expected 24 or 32"):
        validate(load_sweep(path, ["teacher.image_size=31"]))
