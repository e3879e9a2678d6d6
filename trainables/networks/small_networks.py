"""raykd's own networks, named `raykd/NAME`: those of RRKD's experiments, and MLPs of any size.

    create("mlp_32", {"side": 28}, "student")      # an encoder without classifier or decoder

In RRKD (*Knowledge distillation with relative representations*; code: `Ramos-Ramos/rrkd`, `rrkd.ipynb`) an
image's embedding is the output of the second linear layer, before dropout and ReLU. So it is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.spec.parse import build
from trainables.spec.trial import Spec

Width = Annotated[int, Field(ge=1, le=65536)]


class VectorOptions(Spec):
    """Options of every network that takes an image as a vector."""

    side: Annotated[int, Field(ge=1, le=1024)] = Field(28, description="side of the images, data.image_size")
    colour: bool = Field(False, description="take all three channels; else their mean")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="before each hidden ReLU")


class MlpOptions(VectorOptions):
    """Options of `raykd/mlp`."""

    hidden: Annotated[tuple[Width, ...], Field(min_length=1)] = Field(
        (1200, 1200), description="widths of the hidden layers; the last one's activations are the features"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="before each hidden ReLU")


class ResnetOptions(Spec):
    """Options of `raykd/resnet9`."""

    width: Annotated[float, Field(ge=0.02, le=16)] = Field(0.5, description="multiplies the 64 channels")
    stem_relu: bool = Field(
        True, description="false: no ReLU behind the first convolution, as RRKD's notebook loses it"
    )


class Mlp(nn.Module):
    """(B, 3, side, side) -> (B, widths[-1]): linear layers with dropout and ReLU between them.

    With `rectified`, the last layer has its dropout and ReLU too. An image is the mean of its channels, or,
    with `colour`, all of them: `side * side` or `3 * side * side` inputs.
    """

    def __init__(
        self, widths: Sequence[int], side: int, colour: bool, dropout: float, rectified: bool
    ) -> None:
        super().__init__()
        self.side, self.colour = side, colour
        self.num_features = widths[-1]
        self.pretrained_cfg = {"input_size": (3, side, side)}
        inputs = [side * side * (3 if colour else 1), *widths[:-1]]
        layers: list[nn.Module] = []
        for into, out in zip(inputs, widths, strict=True):
            layers += [nn.Linear(into, out), nn.Dropout(dropout), nn.ReLU()]
        self.layers = nn.Sequential(*(layers if rectified else layers[:-2]))

    def forward_features(self, images: Tensor) -> Tensor:
        """Features; there is no map before them."""
        if images.shape[1:] != (3, self.side, self.side):
            raise ValueError(f"takes images of 3 x {self.side} x {self.side}, not {tuple(images.shape[1:])}")
        if not self.colour:
            images = images.mean(1)
        features: Tensor = self.layers(images.flatten(1))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, widths[-1])."""
        return self.forward_features(images)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or into != out:
            self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, into, H, W) -> (B, out, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(inner + self.shortcut(maps))


class Resnet9(nn.Module):
    """(B, 3, H, W) -> (B, 8·base), base = int(64·width): the ResNet-9 of lightly's `ResNetGenerator`.

    A 3x3 stem with stride 1 and no pooling; one basic block in each of four stages with base, 2, 4 and 8 base
    channels and strides 1, 2, 2, 2; the mean over positions. torch's default initialisation, lightly's names
    of weights. RRKD's student has width 0.5: 256 features, 1,226,400 parameters. RRKD's notebook removes the
    classifier in a way that loses the stem's ReLU: `stem_relu=False`.
    """

    def __init__(self, width: float = 0.5, stem_relu: bool = True) -> None:
        super().__init__()
        base = int(64 * width)
        self.num_features = 8 * base
        self.stem_relu = stem_relu
        self.pretrained_cfg = {"input_size": (3, 32, 32), "classifier": "linear"}
        self.conv1 = nn.Conv2d(3, base, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.layer1 = nn.Sequential(BasicBlock(base, base, 1))
        self.layer2 = nn.Sequential(BasicBlock(base, 2 * base, 2))
        self.layer3 = nn.Sequential(BasicBlock(2 * base, 4 * base, 2))
        self.layer4 = nn.Sequential(BasicBlock(4 * base, 8 * base, 2))
        self.feature_info = [
            {"module": f"layer{stage + 1}", "num_chs": base * 2**stage, "reduction": 2**stage}
            for stage in range(4)
        ]

    def forward_features(self, images: Tensor) -> Tensor:
        """The map before pooling, (B, 8·base, H / 8, W / 8) rounded up."""
        maps: Tensor = self.bn1(self.conv1(images))
        if self.stem_relu:
            maps = F.relu(maps)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 8·base)."""
        return self.forward_features(images).mean((2, 3))


class Network(NamedTuple):
    """A name under `raykd/`."""

    options: type[Spec]
    widths: tuple[int, ...]  # of RRKD's MLPs; none where the options say


NETWORKS = {
    "mlp": Network(MlpOptions, ()),
    "mlp_1200": Network(VectorOptions, (1200, 1200)),  # RRKD's supervised teacher on MNIST
    "mlp_32": Network(VectorOptions, (32, 32)),  # and its student
    "ae_64": Network(VectorOptions, (128, 64)),  # the encoder of RRKD's autoencoder teacher on MNIST
    "ae_32": Network(VectorOptions, (64, 32)),  # and of its student
    "resnet9": Network(ResnetOptions, ()),
}


def create(name: str, options: Mapping[str, Any], field: str) -> nn.Module:
    """The network `raykd/NAME`. Raises `UserError` at `field`.options for unknown options."""
    network = NETWORKS[name]
    said = build(network.options, options, f"{field}.options")
    if isinstance(said, ResnetOptions):
        return Resnet9(said.width, said.stem_relu)
    assert isinstance(said, VectorOptions)
    widths = said.hidden if isinstance(said, MlpOptions) else network.widths
    return Mlp(widths, said.side, said.colour, said.dropout, rectified=isinstance(said, MlpOptions))
