"""Teachers by name: from the caches of the hub and of torch, without a network."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from trainables.core.errors import UserError
from trainables.networks.backbones import noise
from trainables.spec.trial import TrialSpec
from trainables.teachers import named_weights as module
from trainables.teachers.named_weights import named_weights
from trainables.teachers.teacher import load_teacher
from trainables.training.resolve import resolve

COMMIT, LATER = "a" * 40, "b" * 40
Put = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of the test's own, and no host that can be found."""

    def unknown(*given: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    module._found.cache_clear()


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Put a timm network into the hub's cache as the hub's client does it. Returns its file."""

    def write(repository: str, arch: str, seed: int = 0, commit: str = COMMIT, **config: Any) -> Path:
        torch.manual_seed(seed)
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot, blobs = folder / "snapshots" / commit, folder / "blobs"
        for made in (snapshot, blobs, folder / "refs"):
            made.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        model = timm.create_model(arch, **config.get("model_args", {}))
        save_file(model.state_dict(), blobs / f"weights-{commit}")
        (snapshot / "model.safetensors").symlink_to(blobs / f"weights-{commit}")
        (snapshot / "config.json").write_text(json.dumps({"architecture": arch, **config}))
        return snapshot / "model.safetensors"

    return write


def trial(**teacher: Any) -> TrialSpec:
    return resolve(
        {
            "method": "projector",
            "student": {"arch": "test_efficientnet"},
            "teacher": teacher,
            "data": "digits",
            "epochs": 1,
        }
    )


def test_timm_s_name_takes_the_file_in_the_cache_and_the_tag_of_its_weights(put: Put) -> None:
    file = put("timm/test_vit.r160_in1k", "test_vit")
    taught = trial(arch="test_vit", pretrained=True).teacher
    assert taught is not None
    assert (taught.arch, taught.checkpoint, taught.pretrained) == ("test_vit.r160_in1k", file, False)
    config = timm.get_pretrained_cfg("test_vit.r160_in1k")
    assert (taught.mean, taught.std) == (config.mean, config.std), "its pixels are those of these weights"
    want = timm.create_model("test_vit", num_classes=0)
    want.load_state_dict({k: v for k, v in _weights(file).items() if not k.startswith("head.")})
    teacher = load_teacher(taught, file)
    pixels = noise(160)
    assert torch.allclose(teacher.features(pixels), want.eval()(teacher.backbone.fed(pixels)), atol=1e-5)


def test_a_trial_is_that_of_the_same_file_as_a_checkpoint(put: Put) -> None:
    file = put("timm/test_vit.r160_in1k", "test_vit")
    named = trial(arch="test_vit.r160_in1k", pretrained=True)
    assert named.signature() == trial(arch="test_vit.r160_in1k", checkpoint=str(file)).signature()


def test_weights_that_change_under_a_name_make_another_trial(put: Put) -> None:
    put("timm/test_vit.r160_in1k", "test_vit")
    before = trial(arch="test_vit", pretrained=True).signature()
    put("timm/test_vit.r160_in1k", "test_vit", seed=1, commit=LATER)
    module._found.cache_clear()  # another process
    assert trial(arch="test_vit", pretrained=True).signature() != before


def test_a_repository_of_the_hub_says_its_architecture_and_options(put: Put) -> None:
    options = {"img_size": 32, "patch_size": 8}
    pixels = {"pretrained_cfg": {"tag": "mine", "mean": [0.5] * 3, "std": [0.25] * 3}}
    file = put("me/net", "test_vit", model_args=options, **pixels)
    put("me/net", "test_vit", 1, LATER, model_args=options, **pixels)
    (file.parents[2] / "refs" / "v1").write_text(COMMIT)
    for name, commit in (("me/net", LATER), ("me/net@v1", COMMIT), (f"me/net@{COMMIT}", COMMIT)):
        taught = trial(arch=f"hf-hub:{name}", pretrained=True).teacher
        assert taught is not None and taught.checkpoint is not None
        assert taught.checkpoint.parent.name == commit
        assert (taught.arch, taught.options) == ("test_vit", options), "no tag that timm does not know"
        assert (taught.mean, taught.std) == ((0.5,) * 3, (0.25,) * 3)
    own = named_weights("hf-hub:me/net", {"img_size": 64}, "teacher")
    assert own.options == {"img_size": 64, "patch_size": 8}, "the user's options win"


def test_torchvision_s_name(tmp_path: Path) -> None:
    from torchvision.models import get_model_weights

    name = Path(get_model_weights("squeezenet1_1").DEFAULT.url).name
    file = tmp_path / "torch" / "hub" / "checkpoints" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    found = named_weights("torchvision/squeezenet1_1", {}, "teacher")
    assert found == ("torchvision/squeezenet1_1", {}, file)


@pytest.mark.parametrize(
    ("arch", "field", "words"),
    [
        ("resnet18.a9", "arch", ["no weights of this name", "'resnet18.a9'", "resnet18.a1_in1k"]),
        ("resnet19", "arch", ["no such architecture", "resnet18"]),
        ("raykd/mlp", "pretrained", ["nobody publishes", "`train`"]),
        ("hf-hub:net", "arch", ["no repository", "hf-hub:OWNER/REPOSITORY"]),
        ("hf-hub:me/odd", "arch", ["config.json", "names no architecture"]),
        ("hf-hub:me/other", "arch", ["no such architecture", "'another_net'"]),
        ("hf-hub:me/gone", "pretrained", ["hf download me/gone config.json model.safetensors`", "HF_HOME"]),
        ("hf-hub:me/gone@v2", "pretrained", ["model.safetensors --revision v2`"]),
        ("resnet18", "pretrained", ["hf download timm/resnet18.a1_in1k model.safetensors`", "hub, and"]),
        ("torchvision/resnet18", "pretrained", ["https://download.pytorch.org/", "TORCH_HOME"]),
    ],
)
def test_a_name_without_weights(arch: str, field: str, words: list[str], put: Put) -> None:
    for name, architecture in (("odd", None), ("other", "another_net")):
        path = put(f"me/{name}", "test_vit").with_name("config.json")
        path.write_text(json.dumps({"architecture": architecture}))
    with pytest.raises(UserError) as told:
        trial(arch=arch, pretrained=True)
    assert told.value.field == f"teacher.{field}"
    assert all(word in str(told.value) for word in words), str(told.value)


def test_half_a_file_in_the_cache(put: Put) -> None:
    file = put("timm/test_vit.r160_in1k", "test_vit")
    blob = file.resolve()
    blob.write_bytes(blob.read_bytes()[:-1000])
    taught = trial(arch="test_vit", pretrained=True).teacher
    assert taught is not None
    with pytest.raises(UserError, match=r"damaged or no safetensors file.*model\.safetensors"):
        load_teacher(taught, file)
    blob.unlink()  # the link alone, as an interrupted copy leaves it
    module._found.cache_clear()
    with pytest.raises(UserError, match="hf download timm/test_vit"):
        trial(arch="test_vit", pretrained=True)


def test_one_source_alone(put: Put) -> None:
    for other in ({"checkpoint": "a.pth"}, {"train": {"method": "moco", "epochs": 1}}):
        with pytest.raises(UserError, match=f"has both `{next(iter(other))}` and `pretrained`"):
            trial(arch="test_vit", pretrained=True, **other)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)
