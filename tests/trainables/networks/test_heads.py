"""Projection heads of every kind: what they compute, and that a description brings them back."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.core.distributed import convert_sync_batch_norm
from trainables.core.errors import UserError
from trainables.networks.heads import Layer, batch_norm, build_head, describe_head, head_text, linear
from trainables.teachers.pretrained.heads import read_head
from trainables.teachers.pretrained.layouts import LAYOUTS
from trainables.teachers.pretrained.layouts.base import Layout

FREE = Layout(origin="theirs", signature=(), roles={})
DINO = next(layout for layout in LAYOUTS if layout.origin == "dino")


@st.composite
def heads(draw: st.DrawFn) -> list[Layer]:
    """A head of any layers, whose widths follow one another."""
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    layers: list[Layer] = []
    for first, out in itertools.pairwise(widths):
        layers.append(linear(first, out, draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(batch_norm(out, draw(st.booleans()), draw(st.sampled_from([1e-5, 1e-3]))))
        layers += [(kind, {}) for kind in draw(st.lists(st.sampled_from(["relu", "gelu", "l2_normalise"])))]
    return layers


@given(layers=heads())
def test_a_description_brings_back_the_same_head(layers: list[Layer]) -> None:
    head = build_head(layers)
    rows = torch.randn(6, layers[0][1]["in_features"])
    head(rows)  # moves batch statistics
    written = json.loads(json.dumps(describe_head(head)))
    again = build_head([(kind, arguments) for kind, arguments in written])
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.eval()(rows), head.eval()(rows))
    assert head_text(layers).count("-") == len(layers) - 1


def test_layers_compute_what_they_are_called() -> None:
    rows = torch.tensor([[3.0, 4.0], [-1.0, 0.0]])

    def run(*layers: Layer) -> Tensor:
        result: Tensor = build_head(layers).eval()(rows)
        return result.detach()

    torch.testing.assert_close(run(("l2_normalise", {})), torch.tensor([[0.6, 0.8], [-1.0, 0.0]]))
    torch.testing.assert_close(run(("relu", {})), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    # x * Phi(x): Phi(-1) = 0.158655, Phi(3) = 0.998650, Phi(4) = 0.999968
    torch.testing.assert_close(run(("gelu", {}))[:, 0], torch.tensor([2.99595, -0.158655]), rtol=0, atol=1e-5)
    head = build_head([batch_norm(2, affine=False, eps=1e-12)])
    # Means 1 and 2, deviations 2 and 2.
    torch.testing.assert_close(head(rows), torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    assert not list(head.parameters())


def test_norms_that_are_synchronised_over_workers_are_described_as_plain_ones() -> None:
    layers = [linear(3, 4, bias=False), batch_norm(4), ("relu", {}), linear(4, 2)]
    assert describe_head(convert_sync_batch_norm(build_head(layers))) == layers
    assert head_text(layers) == "Linear(3, 4)-BatchNorm-ReLU-Linear(4, 2)"


def test_what_no_description_brings_back_is_refused() -> None:
    for module in (nn.Conv2d(1, 1, 1), nn.LayerNorm(3), nn.Sequential(nn.Linear(2, 2), nn.Tanh())):
        with pytest.raises(TypeError, match="cannot be described"):
            describe_head(module)


# --- read from the weights alone ----------------------------------------------------------------------------


def test_a_weight_normed_layer_becomes_the_plain_one_that_computes_the_same() -> None:
    plain = {"mlp.weight": torch.eye(2), "mlp.bias": torch.zeros(2)}
    # Directions (3, 4) and (0, -2), of lengths 10 and 1: rows (6, 8) and (0, -1).
    directions, lengths = torch.tensor([[3.0, 4.0], [0.0, -2.0]]), torch.tensor([[10.0], [1.0]])
    for length, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        given = {**plain, f"last_layer.{length}": lengths, f"last_layer.{direction}": directions}
        layers, weights = read_head(DINO, given, "teacher.checkpoint")
        assert [kind for kind, _ in layers] == ["linear", "l2_normalise", "linear"]
        torch.testing.assert_close(weights["2.weight"], torch.tensor([[6.0, 8.0], [0.0, -1.0]]))
        head = build_head(layers)
        head.load_state_dict(weights)
        # (3, 4) -> (0.6, 0.8) -> (6*0.6 + 8*0.8, -0.8)
        torch.testing.assert_close(head(torch.tensor([[3.0, 4.0]])), torch.tensor([[10.0, -0.8]]))


def test_torchs_weight_norm_is_read_in_both_of_its_forms() -> None:
    rows = torch.randn(5, 3)
    for norm in (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm):
        last = norm(nn.Linear(4, 6, bias=False))
        first = nn.Linear(3, 4)
        state = {f"mlp.{name}": value for name, value in first.state_dict().items()}
        state |= {f"last_layer.{name}": value for name, value in last.state_dict().items()}
        layers, weights = read_head(DINO, state, "teacher.checkpoint")
        head = build_head(layers)
        head.load_state_dict(weights)
        torch.testing.assert_close(head(rows), last(F.normalize(first(rows), dim=-1)))


def test_positions_tell_where_the_activations_are() -> None:
    own = build_head([linear(3, 4), ("relu", {}), linear(4, 4), batch_norm(4), ("relu", {}), linear(4, 2)])
    layers, weights = read_head(FREE, own.state_dict(), "teacher.checkpoint")
    assert list(layers) == describe_head(own)
    head = build_head(layers)
    head.load_state_dict(weights)
    rows = torch.randn(3, 3)
    assert torch.equal(head.eval()(rows), own.eval()(rows))


def test_heads_that_cannot_be_whole_are_refused() -> None:
    whole = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict()
    for gone in ("0.weight", "0.bias", "2.bias", "2.weight"):
        given = {name: value for name, value in whole.items() if name != gone}
        with pytest.raises(UserError, match=r"teacher\.checkpoint: its head"):
            read_head(FREE, given, "teacher.checkpoint")
    with pytest.raises(UserError, match="its head"):  # its first layer is gone altogether
        read_head(FREE, {k: v for k, v in whole.items() if k[0] == "2"}, "teacher.checkpoint")
    with pytest.raises(UserError, match="positions 0, 2, 999999999"):
        read_head(FREE, {**whole, "999999999.weight": whole["2.weight"]}, "teacher.checkpoint")
    normed = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).state_dict()
    with pytest.raises(UserError, match="unknown kind at position 1, with bias, weight"):
        read_head(FREE, normed, "teacher.checkpoint")
