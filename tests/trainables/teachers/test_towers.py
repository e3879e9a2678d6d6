"""Towers of CLIP and SigLIP, DINOv2 and DINOv3 by files of their origins' code; shards and half precision.

`tests/fixtures/layouts/write.py` wrote the files, and what the origins' code gives for its images.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from origin_files import IMAGES as OTHER_IMAGES
from origin_files import mlp, network, prefixed, trained, wrapped, zeroed
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raykd.console.answers import teacher as show
from raykd.console.screen import Screen
from raykd.export.teacher import inspect
from trainables.core.errors import UserError
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import TeacherSpec, TrialSpec, file_digest
from trainables.teachers.architecture import guess
from trainables.teachers.feeding import feeding
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.resolve import resolve

torch.set_num_threads(1)
FILES = Path(__file__).resolve().parents[2] / "fixtures" / "layouts"
WANT = load_file(FILES / "want.safetensors")
with safe_open(FILES / "want.safetensors", "pt") as _file:
    # Sorted: safetensors reads them in any order, and all processes of a test run must collect one.
    _facts = sorted(_file.metadata().items())
    FACTS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in _facts}
ORIGINS = {
    "open_clip": "open_clip or clip",
    "open_clip_quickgelu": "open_clip or clip",
    "open_clip_siglip": "open_clip or clip",
    "open_clip_trunk": "open_clip or clip",
    "transformers_clip": "transformers clip",
    "transformers_siglip": "transformers siglip",
    "transformers_dinov2": "transformers dinov2",
    "transformers_dinov2_reg4": "transformers dinov2",
    "transformers_dinov3": "transformers dinov3",
    "dinov3": "dinov3, a backbone alone",
}


def spec(name: str, path: Path | None = None, **changed: Any) -> TeacherSpec:
    fields = {**FACTS[name], "checkpoint": path or FILES / f"{name}.safetensors", **IMAGENET._asdict()}
    return TeacherSpec(**{**fields, **changed})


def load(teacher: TeacherSpec) -> Teacher:
    assert teacher.checkpoint is not None
    return load_teacher(teacher, teacher.checkpoint)


def features(teacher: TeacherSpec) -> Tensor:
    return load(teacher).features(WANT["images"])


@pytest.mark.parametrize("name", FACTS)
def test_a_file_of_the_origin_gives_what_the_origins_code_gives(name: str) -> None:
    facts = read_checkpoint(FILES / f"{name}.safetensors", "teacher").facts
    assert facts.origin == ORIGINS[name] and facts.precision == "float32" and not facts.head
    assert not [role for role in facts.roles if role.startswith("other")]
    torch.testing.assert_close(features(spec(name)), WANT[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FACTS if not name.startswith("transformers")])
def test_timms_own_function_agrees(name: str) -> None:
    model = timm.create_model(FACTS[name]["arch"], num_classes=0, **FACTS[name]["options"]).eval()
    convert = sys.modules[type(model).__module__].checkpoint_filter_fn  # type: ignore[attr-defined]
    named = convert(load_file(FILES / f"{name}.safetensors"), model)
    model.load_state_dict({k: v for k, v in named.items() if not k.startswith("head.")})
    with torch.no_grad():
        assert torch.equal(features(spec(name)), model(WANT["images"]))


@pytest.mark.parametrize("name", FACTS)
def test_a_file_that_lacks_a_weight_or_has_one_more_is_refused(name: str, tmp_path: Path) -> None:
    state, path = load_file(FILES / f"{name}.safetensors"), tmp_path / "model.safetensors"
    mlps = [
        key for key in state if re.search(r"(layers?|blocks)\.1\.mlp\.\w+\.weight|resblocks\.1\.mlp", key)
    ]
    save_file({key: value for key, value in state.items() if key != mlps[0]}, path)
    with pytest.raises(UserError, match=r"teacher\.arch"):
        load(spec(name, path))
    save_file({**state, mlps[0].replace(".1.", ".2."): state[mlps[0]].clone()}, path)
    with pytest.raises(UserError, match=r"teacher\.arch"):
        load(spec(name, path))


def test_biases_of_dinov3_are_not_left_out_in_silence(tmp_path: Path) -> None:
    plain = "vit_small_patch16_dinov3"  # timm's network without biases of queries and values
    for name in ("dinov3", "transformers_dinov3"):
        with pytest.raises(UserError, match=r"teacher\.arch"):
            load(spec(name, arch=plain))
    state, path = load_file(FILES / "dinov3.safetensors"), tmp_path / "zero.safetensors"
    for key in [key for key in state if key.endswith("qkv.bias")]:
        state[key][:16] = 0
        state[key][32:] = 0
    save_file(state, path)
    torch.testing.assert_close(
        features(spec("dinov3", path, arch=plain)), features(spec("dinov3", path)), rtol=1e-5, atol=1e-5
    )


def test_dinov3_is_guessed_with_its_biases_or_without(tmp_path: Path) -> None:
    state = {}
    with torch.device("meta"):
        shapes = timm.create_model("vit_small_patch16_dinov3_qkvb", num_classes=0).state_dict()
    for name, value in {key: torch.zeros(one.shape) for key, one in shapes.items()}.items():
        name = (
            name.replace("reg_token", "storage_tokens").replace("gamma_", "ls").replace("attn.q_bias", "q!")
        )
        if name.endswith(("ls1", "ls2")):
            state[f"{name}.gamma"] = value
        elif name.endswith("q!"):
            state[name.replace("q!", "attn.qkv.bias")] = torch.ones(3 * len(value))
        elif not name.endswith(("v_bias", "k_bias")):
            state[name] = value
    torch.save(state, tmp_path / "d.pth")
    found = guess(read_checkpoint(tmp_path / "d.pth", "t"))
    assert found is not None and found.model.arch == "vit_small_patch16_dinov3_qkvb"
    assert inspect(tmp_path / "d.pth")["architecture"]["verified"]
    without = {name: value for name, value in state.items() if not name.endswith("qkv.bias")}
    torch.save(without, tmp_path / "d.pth")
    found = guess(read_checkpoint(tmp_path / "d.pth", "t"))
    assert found is not None and found.model.arch == "vit_small_patch16_dinov3"


def test_pixels_of_towers_are_those_of_timms_networks_or_the_configuration_beside(tmp_path: Path) -> None:
    path = FILES / "transformers_siglip.safetensors"
    found = feeding("vit_base_patch16_siglip_224", read_checkpoint(path, "t"))
    assert found.normalisation.mean == (0.5, 0.5, 0.5)
    beside = tmp_path / "model.safetensors"
    beside.write_bytes(path.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.3] * 3, "image_std": [0.2] * 3})
    )
    assert feeding("vit_base_patch16_siglip_224", read_checkpoint(beside, "t")).normalisation.mean[0] == 0.3


# --- several files ------------------------------------------------------------------------------------------


def sharded(folder: Path, kind: str = "safetensors", stem: str = "model") -> list[Path]:
    """DINOv2's file in three parts, and their index."""
    folder.mkdir(exist_ok=True)
    state = load_file(FILES / "transformers_dinov2.safetensors")
    places: dict[str, str] = {}
    for at in range(3):
        name = f"{stem}-0000{at + 1}-of-00003.{kind}"
        part = {key: value for n, (key, value) in enumerate(sorted(state.items())) if n % 3 == at}
        save_file(part, folder / name) if kind == "safetensors" else torch.save(part, folder / name)
        places |= dict.fromkeys(part, name)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sorted(folder.iterdir())


@pytest.mark.parametrize(("kind", "stem"), [("safetensors", "model"), ("bin", "pytorch_model")])
def test_the_index_and_any_part_are_the_whole(kind: str, stem: str, tmp_path: Path) -> None:
    files = sharded(tmp_path, kind, stem)
    assert len(files) == 4
    digests = set()
    for path in files:
        teacher = spec("transformers_dinov2", path)
        torch.testing.assert_close(features(teacher), WANT["transformers_dinov2"], rtol=1e-5, atol=1e-5)
        digests |= {read_checkpoint(path, "t").facts.sha256, file_digest(path)}
    assert len(digests) == 1


def test_all_parts_are_in_a_trials_name(tmp_path: Path) -> None:
    files = sharded(tmp_path)

    def trial(path: Path) -> TrialSpec:
        teacher = spec("transformers_dinov2", path).model_dump(mode="json")
        student = {"arch": "test_efficientnet"}
        return resolve(
            {"method": "rkd", "preset": "digits", "student": student, "teacher": teacher, "epochs": 1}
        )

    before = {trial(path).signature() for path in files}
    assert len(before) == 1
    state = load_file(files[2])
    save_file({name: value + 1 for name, value in state.items()}, files[2])
    after = {trial(path).signature() for path in files}
    assert len(after) == 1 and after != before


def test_what_is_wrong_with_parts_is_said(tmp_path: Path) -> None:
    files = sharded(tmp_path)
    files[1].unlink()
    for path in (files[0], files[-1]):
        with pytest.raises(
            UserError, match=r"of the 3 files .* 1 are not in the folder, the first model-00002"
        ):
            load(spec("transformers_dinov2", path))
    with pytest.raises(UserError, match="no such file"):
        load(spec("transformers_dinov2", files[1]))
    damaged = sharded(tmp_path / "damaged")
    damaged[2].write_bytes(damaged[2].read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        load(spec("transformers_dinov2", damaged[0]))
    index = damaged[-1]
    for content in ("{", "{}", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../b.safetensors"}}'):
        index.write_text(content)
        with pytest.raises(UserError, match="index"):
            load(spec("transformers_dinov2", index))


def test_a_configuration_beside_parts_is_that_of_the_whole(tmp_path: Path) -> None:
    files = sharded(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "vit_small_patch14_dinov2",
                "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3},
            }
        )
    )
    for path in files[:2]:
        facts = read_checkpoint(path, "t").facts
        assert facts.arch == "vit_small_patch14_dinov2" and facts.configured
        assert facts.pixels is not None and facts.pixels.normalisation.mean[0] == 0.1


# --- half precision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_to_float32_and_said(kind: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = load_file(FILES / "transformers_dinov2_reg4.safetensors")
    save_file({name: value.to(kind) for name, value in state.items()}, path)
    teacher = load(spec("transformers_dinov2_reg4", path))
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    named = dict(teacher.backbone.model.named_parameters())
    assert torch.equal(named["norm.weight"], state["layernorm.weight"].to(kind).float())
    want = WANT["transformers_dinov2_reg4"]
    torch.testing.assert_close(teacher.features(WANT["images"]), want, rtol=0.05, atol=0.05)
    found = inspect(path)
    assert found["precision"] == str(kind).removeprefix("torch.")
    screen = Screen()
    with screen.out.capture() as said:
        show(screen, found)
    assert f"{found['precision']}, read to float32" in said.get()


def test_a_half_precision_file_with_a_head(tmp_path: Path) -> None:
    model, head = network(), mlp(24, 24, 12)
    state = {**prefixed("module.encoder_q.", model), **prefixed("module.encoder_q.fc.", head)}
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    torch.save({"state_dict": half}, tmp_path / "moco.pth")
    options = {"arch": "test_resnet", "checkpoint": tmp_path / "moco.pth", **IMAGENET._asdict()}
    teacher = load(TeacherSpec(**options, options={"channels": [8, 12, 16, 24]}))
    assert teacher.head is not None and {p.dtype for p in teacher.parameters()} == {torch.float32}
    torch.testing.assert_close(
        teacher.embed(OTHER_IMAGES), head(model(OTHER_IMAGES)).detach(), rtol=0.02, atol=0.02
    )


# --- by hand ------------------------------------------------------------------------------------------------


def test_simsiam(tmp_path: Path) -> None:
    """`facebookresearch/simsiam`, `simsiam/builder.py`: a projector with a last norm that is not affine."""
    model, width = network(), 24
    head = trained(
        nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, 32), nn.BatchNorm1d(32, affine=False),
        ),
        width,
    )  # fmt: skip
    predictor = nn.Sequential(nn.Linear(32, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 32))
    state = {
        **prefixed("encoder.", model),
        **prefixed("encoder.fc.", head),
        **prefixed("predictor.", predictor),
    }
    torch.save(
        {"epoch": 100, "arch": "resnet50", "state_dict": wrapped(state), "optimizer": {}}, tmp_path / "s.pth"
    )
    facts = read_checkpoint(tmp_path / "s.pth", "t").facts
    assert facts.origin == "simsiam" and set(facts.roles) == {"backbone", "head", "predictor"}
    given = {"arch": "test_resnet", "checkpoint": tmp_path / "s.pth", **IMAGENET._asdict()}
    teacher = load(TeacherSpec(**given, options={"channels": [8, 12, 16, 24]}))
    want = model(OTHER_IMAGES).detach()
    assert torch.equal(teacher.features(OTHER_IMAGES), want)
    torch.testing.assert_close(teacher.embed(OTHER_IMAGES), head(want).detach(), rtol=1e-5, atol=1e-6)


def test_esvits_swin(tmp_path: Path) -> None:
    """`microsoft/esvit`: Swin under its authors' names, a head for images and one for regions."""
    options = {"embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "img_size": 32}
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **options).eval()
    state = {  # timm has moved the downsampling to the stage behind it
        re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): value
        for name, value in model.state_dict().items()
    }
    heads = {
        **prefixed(
            "head.mlp.",
            nn.Sequential(nn.Linear(32, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 12)),
        ),
        "head.last_layer.weight_g": torch.ones(20, 1),
        "head.last_layer.weight_v": torch.randn(20, 12),
        "head_dense.last_layer.weight_g": torch.ones(20, 1),
    }
    teacher = {**state, **heads, "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16)}
    torch.save({"teacher": wrapped(teacher), "student": wrapped(zeroed(teacher))}, tmp_path / "e.pth")
    facts = read_checkpoint(tmp_path / "e.pth", "t").facts
    assert facts.origin == "esvit" and facts.head and {"regions' head", "student"} <= set(facts.roles)
    given = {"arch": "swin_tiny_patch4_window7_224", "checkpoint": tmp_path / "e.pth", **IMAGENET._asdict()}
    found = load(TeacherSpec(**given, options=options))
    images = OTHER_IMAGES[:, :, :32, :32]
    assert torch.equal(found.features(images), model(images).detach())
    assert found.head_dim == 20


def test_dinov3s_convnext(tmp_path: Path) -> None:
    """`facebookresearch/dinov3`: ConvNeXt under its authors' names."""
    options = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    torch.manual_seed(0)
    model = timm.create_model("convnext_tiny", num_classes=0, **options).eval()
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace(".downsample.", "!")
        name = re.sub(r"stages\.(\d)!", r"downsample_layers.\1.", name).replace(".blocks.", ".")
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.norm", "norm")
        state[name] = value
    torch.save(state, tmp_path / "c.pth")
    given = {"arch": "convnext_tiny", "checkpoint": tmp_path / "c.pth", **IMAGENET._asdict()}
    found = load(TeacherSpec(**given, options=options))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found.features(images), model(images).detach(), rtol=0, atol=0)
