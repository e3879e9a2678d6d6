"""Parts of methods: queue, momentum encoder, adapters, heads, numerics, several workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_methods import SIDE, STUDENT, context
from torch import Tensor, nn
from torch.nn import functional as F
from two_workers import CASES, alone, together

from trainables.core.distributed import SyncBatchNorm, convert_sync_batch_norm, gather
from trainables.core.errors import UserError
from trainables.core.numerics import in_float32, unit
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.parts.queue import Queue, check_queue
from trainables.networks.adapters import FLAT, NEIGHBOURHOOD, SPATIAL, build_adapter, published_activation
from trainables.networks.backbones import build_backbone
from trainables.networks.heads import build_head, describe_head, head_text, projection_head
from trainables.planning.conformance.workers import TOLERANCES

# --- queue --------------------------------------------------------------------------------------------------


def test_queue_starts_with_unit_directions() -> None:
    torch.testing.assert_close(Queue(10, 4).rows.norm(dim=1), torch.ones(10))


def test_queue_replaces_the_oldest_after_the_step_only() -> None:
    queue = Queue(4, 1)
    start = queue.rows.clone()
    queue.hold(torch.tensor([[1.0], [2.0]]))
    assert torch.equal(queue.rows, start)
    queue.advance()
    assert torch.equal(queue.rows[:2].flatten(), torch.tensor([1.0, 2.0]))
    assert torch.equal(queue.rows[2:], start[2:])
    for key in (3.0, 4.0, 5.0):
        queue.hold(torch.tensor([[key]]))
        queue.advance()
    assert queue.rows.flatten().tolist() == [5.0, 2.0, 3.0, 4.0]
    assert queue.seen.item() == 5


@given(size=st.integers(1, 9), steps=st.lists(st.integers(1, 12), max_size=6))
def test_queue_holds_the_last_keys(size: int, steps: list[int]) -> None:
    queue = Queue(size, 1)
    rows = queue.rows.flatten().tolist()
    count = 0
    for joined in steps:
        keys = torch.arange(count, count + joined, dtype=torch.float32)
        queue.hold(keys[:, None])
        queue.advance()
        for key in keys.tolist():
            rows[count % size] = key
            count += 1
    assert queue.rows.flatten().tolist() == rows


def test_queue_holds_nothing_in_eval_mode_and_nothing_with_gradient() -> None:
    queue = Queue(4, 2).eval()
    start = queue.rows.clone()
    queue.hold(torch.ones(2, 2))
    queue.advance()
    assert torch.equal(queue.rows, start)
    queue.train().hold(torch.ones(2, 2, requires_grad=True, dtype=torch.bfloat16))
    queue.advance()
    assert not queue.rows.requires_grad and queue.rows.dtype == torch.float32


def test_queue_that_cannot_work_is_refused_with_sizes_that_can() -> None:
    around = context(train_size=1000, batch_size=128)
    for fine in (128, 512, 896):
        check_queue(fine, around)
    with pytest.raises(UserError, match=r"smaller than the 1000 training images.*got 65536.*: 896"):
        check_queue(65536, around)
    with pytest.raises(UserError, match=r"divisible by the global batch of 128.*384 or 512"):
        check_queue(500, around)
    with pytest.raises(UserError, match=r": 128\."):
        check_queue(100, around)
    with pytest.raises(UserError, match=r"optim.batch_size.*at most 99"):
        check_queue(128, context(train_size=100, batch_size=100))


@given(st.integers(2, 400), st.integers(2, 100), st.integers(2, 500))
def test_what_check_queue_lets_pass_can_be_filled(images: int, batch: int, size: int) -> None:
    fits = size < images and size % batch == 0
    try:
        check_queue(size, context(train_size=images, batch_size=batch))
        assert fits
    except UserError:
        assert not fits


# --- momentum encoder ---------------------------------------------------------------------------------------


def test_momentum_encoder_follows_parameters_and_leaves_buffers() -> None:
    layer = nn.BatchNorm1d(2)
    mean = MomentumEncoder(layer=layer)
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.running_mean.fill_(9.0)  # type: ignore[union-attr]
    mean.follow(0.75, layer=layer)
    copy = mean.parts["layer"]
    torch.testing.assert_close(copy.weight, torch.full((2,), 0.75 * 1 + 0.25 * 3))
    assert copy.running_mean.tolist() == [0.0, 0.0]  # type: ignore[union-attr,operator]
    assert not any(p.requires_grad for p in mean.parameters())
    with pytest.raises(ValueError, match="cannot follow"):
        mean.follow(0.5, other=layer)


# --- adapters and heads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FLAT, *SPATIAL])
def test_adapter_gives_teacher_features_and_trains_every_weight(kind: str) -> None:
    student = build_backbone(STUDENT, 0)
    adapter = build_adapter(kind, student, 24)
    out = adapter(student, torch.randn(4, 3, SIDE, SIDE))
    assert out.shape == (4, 24)
    out.square().sum().backward()
    assert all(p.grad is not None for p in [*adapter.parameters(), *student.parameters()])


def test_adapter_shapes_are_those_of_the_method() -> None:
    student = build_backbone(STUDENT, 0)
    s, t = student.map_channels, 24

    def convolutions(kind: str) -> list[tuple[int, int, int, int]]:
        return [
            (m.in_channels, m.out_channels, m.kernel_size[0], m.groups)
            for m in build_adapter(kind, student, t).modules()
            if isinstance(m, nn.Conv2d)
        ]

    assert convolutions("bottleneck") == [(s, t // 2, 1, 1), (t // 2, t // 2, 3, 1), (t // 2, t, 1, 1)]
    assert convolutions("mbconv") == [(s, 2 * s, 1, 1), (2 * s, 2 * s, 3, 2 * s), (2 * s, t, 1, 1)]
    assert convolutions("conv1x1") == convolutions("conv1x1_bn_act") == [(s, t, 1, 1)]
    three = {kind for kind in SPATIAL if any(kernel == 3 for _, _, kernel, _ in convolutions(kind))}
    assert three == set(NEIGHBOURHOOD)


@pytest.mark.parametrize(
    ("arch", "activation"),
    [
        ("efficientnet_b0", "silu"),
        ("test_efficientnet", "silu"),
        ("resnet18", "silu"),
        ("mobilenetv3_large_100", "hard_mish"),
        ("tf_mobilenetv3_small_075", "hard_mish"),
        ("torchvision/mobilenet_v3_large", "hard_mish"),
        ("mobilenetv2_100", "silu"),
    ],
)
def test_mbconv_is_activated_as_published_for_the_student(arch: str, activation: str) -> None:
    assert published_activation(arch) == activation


@pytest.mark.parametrize("t", [24, 0])  # 0: as wide as the student's map
@pytest.mark.parametrize(
    ("asked", "function"),
    [
        ("published", F.silu),  # of an EfficientNet
        ("silu", F.silu),
        ("hard_swish", F.hardswish),
        ("hard_mish", lambda x: x / 2 * (x + 2).clamp(0, 2)),
    ],
)
def test_mbconv_is_an_inverted_residual(asked: Any, function: Callable[[Tensor], Tensor], t: int) -> None:
    """Expand, filter by depth, project; what came in is added where the widths are equal."""
    student = build_backbone(STUDENT, 0).eval()
    t = t or student.map_channels
    adapter = build_adapter("mbconv", student, t, asked).eval()
    x = student.map(torch.randn(3, 3, SIDE, SIDE))
    convolutions = [m for m in adapter.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in adapter.modules() if isinstance(m, nn.BatchNorm2d)]
    inner = x
    for step, (convolve, norm) in enumerate(zip(convolutions, norms, strict=True)):
        inner = norm(convolve(inner))
        inner = function(inner) if step < 2 else inner
    want = inner + x if t == student.map_channels else inner
    torch.testing.assert_close(adapter.layers(x), want, rtol=1e-5, atol=1e-6)


def test_conv1x1_is_linear_before_an_average() -> None:
    student = build_backbone(STUDENT, 0).eval()
    linear, conv = build_adapter("linear", student, 5), build_adapter("conv1x1", student, 5)
    conv.layers.load_state_dict(
        {
            "weight": linear.layers.weight[:, :, None, None],  # type: ignore[index]
            "bias": linear.layers.bias,
        }
    )
    images = torch.randn(3, 3, SIDE, SIDE)
    torch.testing.assert_close(conv(student, images), linear(student, images), rtol=1e-4, atol=1e-5)


def test_head_is_built_again_from_its_description() -> None:
    head = projection_head(6, 5, 4)
    layers = describe_head(head)
    assert head_text(layers) == "Linear(6, 5)-ReLU-Linear(5, 4)"
    again = build_head(layers)
    again.load_state_dict(head.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(again(x), head(x))
    with pytest.raises(TypeError, match="Conv2d"):
        describe_head(nn.Sequential(nn.Conv2d(1, 1, 1)))


# --- numerics -----------------------------------------------------------------------------------------------


def test_similarities_stay_in_float32_under_autocast() -> None:
    seen = []

    @in_float32
    def similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((a.dtype, torch.is_autocast_enabled("cpu")))
        return a @ b.T

    a, b = torch.randn(3, 4), torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        assert torch.equal(similarity(a, b=b), similarity(a, b))
        out = similarity(a.bfloat16(), b.bfloat16())
    assert out.dtype == torch.float32
    assert set(seen) == {(torch.float32, False)}
    torch.testing.assert_close(similarity(a, b), a @ b.T, rtol=0, atol=0)
    assert unit(a.bfloat16()).dtype == torch.float32


# --- several workers ----------------------------------------------------------------------------------------


def test_one_worker_is_the_plain_operation() -> None:
    x = torch.randn(4, 3, 2, 2)
    assert gather(x) is x
    plain = nn.BatchNorm2d(3)
    synced = convert_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
    assert isinstance(synced[0], SyncBatchNorm)  # type: ignore[index]
    assert torch.equal(synced(x), plain(x))
    assert torch.equal(synced.eval()(x), plain.eval()(x))


def test_conversion_keeps_names_objects_and_shared_modules() -> None:
    shared = nn.BatchNorm2d(3)
    net = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU()), "b": shared})
    names, weight = list(net.state_dict()), shared.weight
    convert_sync_batch_norm(net)
    assert list(net.state_dict()) == names
    assert net["a"][0] is net["b"] and net["b"].weight is weight  # type: ignore[index]
    assert convert_sync_batch_norm(net)["b"] is net["b"]  # type: ignore[index]

    class Strange(nn.BatchNorm2d):
        pass

    with pytest.raises(UserError, match=r"optim.batch_norm.*Strange.*'local'"):
        convert_sync_batch_norm(nn.Sequential(Strange(2)))


@pytest.mark.parametrize("kind", ["1d", "2d", "plain", "act", "untracked"])
def test_synchronised_batch_norm_is_that_of_one_worker(kind: str) -> None:
    one = alone()["normalise"][kind]
    for two in together():
        torch.testing.assert_close(two["normalise"][kind], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["1d", "2d", "plain", "act", "untracked"])
def test_batch_norm_by_the_kernels_of_a_gpu_is_the_same(kind: str) -> None:
    """The kernels are computed by their definitions here; what is passed to them is what a GPU gets."""
    one = alone()["normalise"][kind]
    for two in together():
        torch.testing.assert_close(two["by kernels"][kind], one, rtol=1e-9, atol=1e-9)


def test_features_are_encoded_by_all_workers_to_the_bits_of_one() -> None:
    one, (first, second) = alone()["features"], [two["features"] for two in together()]
    assert one["sizes"] == [256, 256, 188, 3]
    assert first["sizes"] == [256, 256, 3] and second["sizes"] == [188]
    for name in ("all", "few", "none"):
        assert torch.equal(first[name], one[name]) and second[name].shape == (0, 0)
    assert first["error"] == second["error"] == "no such image"


def test_gather_keeps_the_order_of_the_workers() -> None:
    assert [two["gather"].flatten().tolist() for two in together()] == [[0, 0, 1, 1]] * 2


def test_shuffle_deals_anew_and_gives_back_in_order() -> None:
    for two in (result["shuffle"] for result in together()):
        keys, company = two["keys"], two["company"]
        assert keys[:, 0].tolist() == list(range(8))  # back in their order
        groups = [set(row.tolist()) for row in company]
        assert groups[0] | groups[1] == set(range(8)) and groups[0] not in ({0, 1, 2, 3}, {4, 5, 6, 7})
        for number, offset in keys.tolist():  # normalised by the company they had
            group = next(g for g in groups if number in g)
            assert offset == pytest.approx(number - sum(group) / 4)
        assert two["same step"]
        first, again, later = two["orders"]
        assert torch.equal(first, again) and not torch.equal(first, later)
        assert torch.equal(*two["not dealt"])  # without local statistics there is nothing to hide


def test_losses_over_relations_and_labels_do_not_hang_on_the_workers() -> None:
    expected = alone()["relate"]
    # Logits (2, 4) of class 0, (0.5, 3) and (3, 2) of class 1; the second sample has no label.
    by_hand = (
        math.log(1 + math.exp(4 - 2)) + math.log(1 + math.exp(0.5 - 3)) + math.log(1 + math.exp(3 - 2))
    ) / 3
    assert expected["cross-entropy"].item() == pytest.approx(by_hand, rel=1e-6)
    for two in together():
        for name, value in expected.items():
            torch.testing.assert_close(two["relate"][name], value)


@pytest.mark.parametrize("case", CASES)
def test_two_workers_compute_what_one_does(case: str) -> None:
    one = alone()["train"][case]
    for two in (result["train"][case] for result in together()):
        for part, (relative, absolute) in TOLERANCES.items():
            torch.testing.assert_close(two[part], one[part], rtol=relative, atol=absolute)
