"""Files as the field's training scripts write them: their keys, containers and wrappers, in tiny widths.

Each writer makes the origin's own network, trains its statistics a little, saves it as the origin does, and
says what the origin's own forward pass, composed here by hand, gives for `IMAGES`.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from small_methods import SIDE, TEACHER
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.spec.trial import ModelSpec

IMAGES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
VIT = ModelSpec(arch="test_vit", options={"img_size": SIDE})
State = dict[str, Tensor]


class Original(NamedTuple):
    """What was written, and what it computes."""

    origin: str
    model: ModelSpec
    container: str | None
    roles: set[str]
    features: Tensor
    embedding: Tensor | None
    backbone_at: str  # how the file's keys of it begin
    head: str = ""  # its structure, for people
    head_at: str = "no head"


def network(spec: ModelSpec = TEACHER, seed: int = 1) -> Any:
    """A network of the origin's, without its classifier, its batch statistics not 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(spec.arch, num_classes=0, **spec.options).train()
        model(torch.randn(8, 3, SIDE, SIDE))
    return model.eval()


def trained(head: nn.Module, dim: int, seed: int = 2) -> nn.Module:
    """The head with batch statistics, scales and shifts that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    head.train()
    for _ in range(3):
        head(torch.randn(16, dim, generator=generator))
    return head.eval()


def prefixed(prefix: str, *modules: nn.Module | State) -> OrderedDict[str, Tensor]:
    state: OrderedDict[str, Tensor] = OrderedDict()
    for module in modules:
        for name, value in (module if isinstance(module, dict) else module.state_dict()).items():
            state[f"{prefix}{name}"] = value
    return state


def zeroed(state: State) -> State:
    """Weights that must not be mistaken for the ones that count."""
    return {name: torch.zeros_like(value) for name, value in state.items()}


def wrapped(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


def mlp(*sizes: int) -> nn.Sequential:
    first, hidden, out = sizes
    return nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, out))


def queue(dim: int = 12) -> State:
    return {"queue": torch.randn(dim, 32), "queue_ptr": torch.zeros(1, dtype=torch.long)}


@torch.no_grad()
def both(model: Any, head: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    features = model(IMAGES)
    return features, None if head is None else head(features)


# --- MoCo's descendants -------------------------------------------------------------------------------------


def moco_v2_without_prefix(path: Path) -> Original:
    model, head = network(), mlp(24, 24, 12)
    torch.save({"state_dict": {**prefixed("", model), **prefixed("fc.", head)}}, path)
    text = "Linear(24, 24)-ReLU-Linear(24, 12)"
    origin, roles = "moco_v2 without its prefix", {"backbone", "head"}
    return Original(origin, TEACHER, "state_dict", roles, *both(model, head), "", text, "fc.")


def disco(path: Path, at: str = "fc") -> Original:
    model, head, teacher = network(), mlp(24, 40, 12), network(seed=7)
    own = {**prefixed("encoder_q.", model), **prefixed(f"encoder_q.{at}.", head)}
    state = {
        **own,
        **{k.replace("encoder_q", "encoder_k"): v for k, v in zeroed(own).items()},
        **prefixed("teacher_encoder_q.", teacher),
        **prefixed("teacher_encoder_q.fc.", mlp(24, 24, 12)),
        **prefixed("teacher_encoder_k.", teacher),
        **queue(),
    }
    torch.save({"epoch": 200, "arch": "efficientnet_b0", "state_dict": wrapped(state), "optimizer": {}}, path)
    roles = {
        "backbone", "head", "teacher", "teacher's momentum encoder", "momentum encoder", "queue",
    }  # fmt: skip
    text = "Linear(24, 40)-ReLU-Linear(40, 12)"
    start = "module.encoder_q."
    return Original("disco", TEACHER, "state_dict", roles, *both(model, head), start, text, f"{start}{at}.")


def disco_classifier(path: Path) -> Original:
    return disco(path, "classifier")


def retro(path: Path) -> Original:
    """The published code hangs the adapter into the encoder, and the teacher's head where its own was."""
    model, teacher = network(), network(seed=7)
    shared = mlp(40, 40, 12)  # on the teacher's features, 40 wide
    adapter = nn.Sequential(nn.Conv2d(24, 20, 1, bias=False), nn.BatchNorm2d(20), nn.ReLU())
    own = {
        **prefixed("encoder_q.", model),
        **prefixed("encoder_q.classifier.", shared),
        **prefixed("encoder_q.transfer.", adapter),
    }
    state = {
        **own,
        **{k.replace("encoder_q", "encoder_k"): v for k, v in zeroed(own).items()},
        **prefixed("teacher_encoder_q.", teacher),
        **prefixed("teacher_encoder_q.fc.", shared),
        **queue(),
    }
    torch.save({"epoch": 200, "arch": "efficientnet_b0", "state_dict": wrapped(state), "optimizer": {}}, path)
    roles = {"backbone", "adapter", "teacher's head, reused", "teacher", "momentum encoder", "queue"}
    return Original("retro", TEACHER, "state_dict", roles, *both(model, None), "module.encoder_q.")


def seed(path: Path) -> Original:
    model, head = network(), mlp(24, 24, 12)
    state = {
        **prefixed("student.", model),
        **prefixed("student.fc.", head),
        **prefixed("teacher.", zeroed(network(seed=7).state_dict())),
        **prefixed("teacher.fc.", mlp(24, 24, 12)),
        **queue(),
    }
    torch.save({"epoch": 200, "state_dict": wrapped(state), "optimizer": {}}, path)
    text = "Linear(24, 24)-ReLU-Linear(24, 12)"
    roles = {"backbone", "head", "teacher", "queue"}
    start = "module.student."
    return Original("seed", TEACHER, "state_dict", roles, *both(model, head), start, text, f"{start}fc.")


def compress(path: Path) -> Original:
    model = network()
    options = argparse.Namespace(student_arch="resnet18", data="/data", learning_rate=0.01)
    torch.save({"opt": options, "model": wrapped(prefixed("", model)), "optimizer": {}, "epoch": 130}, path)
    return Original("compress", TEACHER, "model", {"backbone"}, *both(model, None), "module.")


# --- MoCo v3, SwAV, DINO ------------------------------------------------------------------------------------


def moco_v3_mlp(layers: int, first: int, hidden: int, out: int) -> nn.Module:
    built: list[nn.Module] = []
    for number in range(layers):
        last = number == layers - 1
        width = out if last else hidden
        built.append(nn.Linear(first if number == 0 else hidden, width, bias=False))
        built.append(nn.BatchNorm1d(width, affine=not last))
        built += [] if last else [nn.ReLU(inplace=True)]
    return trained(nn.Sequential(*built), first)


def moco_v3(path: Path, spec: ModelSpec = TEACHER, at: str = "fc", layers: int = 2) -> Original:
    model = network(spec)
    head = moco_v3_mlp(layers, model.num_features, 40, 16)
    own = {**prefixed("base_encoder.", model), **prefixed(f"base_encoder.{at}.", head)}
    state = {
        **own,
        **{k.replace("base", "momentum"): v for k, v in zeroed(own).items()},
        **prefixed("predictor.", moco_v3_mlp(2, 16, 40, 16)),
    }
    content = {"epoch": 300, "arch": "resnet50", "state_dict": wrapped(state), "optimizer": {}, "scaler": {}}
    torch.save(content, path)
    text = {
        2: f"Linear({model.num_features}, 40)-BatchNorm-ReLU-Linear(40, 16)-BatchNorm(not affine)",
        3: f"Linear({model.num_features}, 40)-BatchNorm-ReLU-Linear(40, 40)-BatchNorm-ReLU-Linear(40, 16)"
        "-BatchNorm(not affine)",
    }[layers]
    roles = {"backbone", "head", "momentum encoder", "predictor"}
    start = "module.base_encoder."
    return Original("moco_v3", spec, "state_dict", roles, *both(model, head), start, text, f"{start}{at}.")


def moco_v3_vit(path: Path) -> Original:
    return moco_v3(path, VIT, "head", 3)


def swav(path: Path, training: bool = False) -> Original:
    model = network()
    head = trained(
        nn.Sequential(nn.Linear(24, 40), nn.BatchNorm1d(40), nn.ReLU(inplace=True), nn.Linear(40, 12)), 24
    )
    state = wrapped(
        {
            **prefixed("", model),
            **prefixed("projection_head.", head),
            **prefixed("prototypes.", nn.Linear(12, 30, bias=False)),
        }
    )
    torch.save({"epoch": 9, "state_dict": state, "optimizer": {}} if training else state, path)
    text = "Linear(24, 40)-BatchNorm-ReLU-Linear(40, 12)"
    container = "state_dict" if training else None
    roles, at = {"backbone", "head", "prototypes"}, "module.projection_head."
    return Original("swav", TEACHER, container, roles, *both(model, head), "module.", text, at)


def swav_training(path: Path) -> Original:
    return swav(path, training=True)


class DinoHead(nn.Module):
    """As `DINOHead` computes it: a GELU stack, rows of length 1, a weight-normed layer."""

    def __init__(self, first: int, norm: bool = False, body: str = "mlp") -> None:
        super().__init__()
        middle = [nn.BatchNorm1d(40), nn.GELU()] if norm else [nn.GELU()]
        more = [nn.BatchNorm1d(40), nn.GELU()] if norm else [nn.GELU()]
        self.body = body
        self.add_module(
            body,
            nn.Sequential(nn.Linear(first, 40), *middle, nn.Linear(40, 40), *more, nn.Linear(40, 8)),
        )
        self.last_layer = nn.utils.weight_norm(nn.Linear(8, 30, bias=False))
        nn.init.uniform_(self.last_layer.weight_g, 0.5, 2)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.last_layer(F.normalize(self.get_submodule(self.body)(features), dim=-1))
        return out


_DINO_TEXT = "Linear({0}, 40)-GELU-Linear(40, 40)-GELU-Linear(40, 8)-L2-Linear(8, 30)"
_DINO_NORM = "Linear({0}, 40)-BatchNorm-GELU-Linear(40, 40)-BatchNorm-GELU-Linear(40, 8)-L2-Linear(8, 30)"


def dino(path: Path, spec: ModelSpec = VIT, norm: bool = False) -> Original:
    model = network(spec)
    head = trained(DinoHead(model.num_features, norm), model.num_features)
    teacher = {**prefixed("backbone.", model), **prefixed("head.", head)}
    content = {
        "student": wrapped(zeroed(teacher)),
        # It is wrapped only where it has batch normalisation to synchronise.
        "teacher": wrapped(teacher) if norm else teacher,
        "optimizer": {},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16, output_dir=Path("out")),
        "dino_loss": {"center": torch.zeros(1, 30)},
    }
    torch.save(content, path)
    text = (_DINO_NORM if norm else _DINO_TEXT).format(model.num_features)
    roles, start = {"backbone", "head", "student"}, "module." if norm else ""
    found = both(model, head)
    return Original("dino", spec, "teacher", roles, *found, f"{start}backbone.", text, f"{start}head.")


def dino_resnet(path: Path) -> Original:
    return dino(path, TEACHER, norm=True)


def dino_backbone(path: Path) -> Original:
    model = network(VIT)
    torch.save(model.state_dict(), path)
    return Original("dino or timm, a backbone alone", VIT, None, {"backbone"}, *both(model, None), "")


# --- Lightning's --------------------------------------------------------------------------------------------


def lightning(state: State, path: Path, **hyperparameters: Any) -> None:
    content = {
        "epoch": 9,
        "global_step": 1000,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None, "dirpath": "x"}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyperparameters,
    }
    torch.save(content, path)


def solo_learn(path: Path, backbone: str = "backbone") -> Original:
    """Barlow Twins: Linear, BN, ReLU twice, and Linear; with the online classifier beside it."""
    model = network()
    layers = [nn.Linear(24, 40), nn.BatchNorm1d(40), nn.ReLU()]
    more = [nn.Linear(40, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 12)]
    head = trained(nn.Sequential(*layers, *more), 24)
    state = {
        **prefixed(f"{backbone}.", model),
        **prefixed("projector.", head),
        **prefixed("classifier.", nn.Linear(24, 7)),
        **prefixed(f"momentum_{backbone}.", zeroed(model.state_dict())),
        **prefixed("momentum_projector.", zeroed(head.state_dict())),
    }
    lightning(state, path, method="barlow_twins", backbone={"name": "resnet18"}, lr=0.3)
    text = "Linear(24, 40)-BatchNorm-ReLU-Linear(40, 40)-BatchNorm-ReLU-Linear(40, 12)"
    roles = {"backbone", "head", "classifier", "momentum encoder", "momentum head"}
    found = both(model, head)
    return Original("solo-learn", TEACHER, "state_dict", roles, *found, f"{backbone}.", text, "projector.")


def solo_learn_old(path: Path) -> Original:
    return solo_learn(path, "encoder")


def solo_learn_dino(path: Path) -> Original:
    model = network(VIT)
    head = trained(DinoHead(model.num_features), model.num_features)
    state = {
        **prefixed("backbone.", model),
        **prefixed("head.", head),
        **prefixed("classifier.", nn.Linear(model.num_features, 7)),
        **prefixed("momentum_backbone.", zeroed(model.state_dict())),
        **prefixed("momentum_head.", zeroed(head.state_dict())),
    }
    lightning(state, path)
    roles = {"backbone", "head", "classifier", "momentum encoder", "momentum head"}
    text = _DINO_TEXT.format(model.num_features)
    found = both(model, head)
    return Original("solo-learn dino", VIT, "state_dict", roles, *found, "backbone.", text, "head.")


def in_a_row(model: Any) -> nn.Sequential:
    """`nn.Sequential(*list(resnet.children())[:-1])`, as lightly's examples cut a ResNet."""
    return nn.Sequential(*list(model.children())[:-1])


def lightly(path: Path, row: bool = True) -> Original:
    """SimCLR: Linear without bias, BN, ReLU, Linear without bias, BN."""
    model = network()
    first, last = nn.Linear(24, 40, bias=False), nn.Linear(40, 12, bias=False)
    layers = nn.Sequential(first, nn.BatchNorm1d(40), nn.ReLU(), last, nn.BatchNorm1d(12))
    head = trained(layers, 24)
    state = {
        **prefixed("backbone.", in_a_row(model) if row else model),
        **prefixed("projection_head.layers.", head),
    }
    lightning(state, path)
    text = "Linear(24, 40)-BatchNorm-ReLU-Linear(40, 12)-BatchNorm"
    roles, found = {"backbone", "head"}, both(model, head)
    return Original("lightly", TEACHER, "state_dict", roles, *found, "backbone.", text, "projection_head.")


def lightly_named(path: Path) -> Original:
    return lightly(path, row=False)


def lightly_moco(path: Path) -> Original:
    model, head = network(), mlp(24, 40, 12)
    state = {
        **prefixed("backbone.", in_a_row(model)),
        **prefixed("projection_head.layers.", head),
        **prefixed("backbone_momentum.", in_a_row(network(seed=7))),
        **prefixed("projection_head_momentum.layers.", mlp(24, 40, 12)),
    }
    lightning(state, path)
    roles = {"backbone", "head", "momentum encoder", "momentum head"}
    text = "Linear(24, 40)-ReLU-Linear(40, 12)"
    found = both(model, head)
    return Original("lightly", TEACHER, "state_dict", roles, *found, "backbone.", text, "projection_head.")


def lightly_dino(path: Path) -> Original:
    model = network()
    head = trained(DinoHead(24, body="layers"), 24)
    state = {
        **prefixed("student_backbone.", in_a_row(network(seed=7))),
        **prefixed("student_head.", zeroed(head.state_dict())),
        **prefixed("teacher_backbone.", in_a_row(model)),
        **prefixed("teacher_head.", head),
    }
    lightning(state, path)
    text = _DINO_TEXT.format(24)
    roles = {"backbone", "head", "student"}
    found, start = both(model, head), "teacher_backbone."
    return Original("lightly dino", TEACHER, "state_dict", roles, *found, start, text, "teacher_head.")


Writer = Callable[[Path], Original]
HEADED: tuple[Writer, ...] = (
    moco_v2_without_prefix,
    disco,
    disco_classifier,
    seed,
    moco_v3,
    moco_v3_vit,
    swav,
    swav_training,
    dino,
    dino_resnet,
    solo_learn,
    solo_learn_old,
    solo_learn_dino,
    lightly,
    lightly_named,
    lightly_moco,
    lightly_dino,
)
HEADLESS: tuple[Writer, ...] = (retro, compress, dino_backbone)
