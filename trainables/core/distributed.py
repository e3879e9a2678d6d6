"""Several workers that compute what one would: gathering, synchronised and shuffled batch normalisation.

All of it works on gloo and the CPU as on NCCL and GPUs, and is the plain operation where there is one worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.core.errors import UserError
from trainables.core.numerics import at_least_float32
from trainables.core.workers import rank, sent, world_size


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """All workers' `x` in the order of their numbers: (B, ...) -> (workers * B, ...). Without gradient."""
    if world_size() == 1:
        return x
    x = x.contiguous()
    gathered = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(gathered, x)
    return torch.cat(gathered)


def gather_with_gradient(x: Tensor) -> Tensor:
    """As `gather`, differentiable: for losses over the relations within the global batch.

    Every worker computes the same loss of all samples; what reaches its own `x` is the sum of all workers'
    gradients, so that the average which DDP takes over parameters is the gradient of that one loss. At least
    float32, because sums over workers lose what half precision has left.
    """
    x = at_least_float32(x)
    return x if world_size() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.share = len(x)
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        return grad[rank() * ctx.share :][: ctx.share]


@torch.no_grad()
def shuffled(encoder: Callable[[Tensor], Tensor], images: Tensor, seed: int) -> Tensor:
    """`encoder(images)` with the images dealt anew to the workers, so that no statistics give them away.

    MoCo's shuffle-BN: where each worker normalises by its own statistics, a query and its key would share
    them, and the network could tell positives by that. `seed` must be the same on every worker; the order of
    the result is that of `images`. Without gradient. `images` (B, ...), the same B on every worker.
    """
    if world_size() == 1:
        return encoder(images)
    everyone = gather(images)
    drawn = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))
    order = sent(drawn, images.device)
    mine = order.view(world_size(), -1)[rank()]
    keys = gather(encoder(everyone[mine]))
    share = len(images)
    return keys[order.argsort()[rank() * share : (rank() + 1) * share]]


def has_local_batch_norm(module: nn.Module) -> bool:
    """Does any batch normalisation in `module` use one worker's statistics only?"""
    return any(isinstance(m, _BatchNorm) and not isinstance(m, SyncBatchNorm) for m in module.modules())


def convert_sync_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch normalisation in `module`, in place, by one over all workers; returns the result.

    Parameters and buffers stay the same objects under the same names, so a `state_dict` fits both ways.
    `UserError` for a kind of batch normalisation that is not known here.
    """
    done: dict[int, SyncBatchNorm] = {}  # a module that is used twice stays one module

    def converted(child: nn.Module) -> nn.Module:
        if isinstance(child, SyncBatchNorm) or not isinstance(child, _BatchNorm):
            return child
        return done.setdefault(id(child), SyncBatchNorm(child))

    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = converted(child)
    return converted(module)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all workers' samples, exactly as one worker with all of them.

    Takes over `plain`'s parameters and buffers, and the dropout and activation that timm fuses into its own
    kind. Input (B, C, ...). torch's own class refuses tensors on the CPU, and on a GPU it makes the host wait
    once a layer; there its kernels are used without that.
    """

    def __init__(self, plain: _BatchNorm) -> None:
        if type(plain) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d):
            raise UserError(
                "optim.batch_norm",
                f"a {type(plain).__name__} cannot be synchronised over workers",
                value="sync",
                expected="'local', or another architecture",
            )
        super().__init__(
            plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.drop: nn.Module = plain.drop if isinstance(plain, BatchNormAct2d) else nn.Identity()
        self.act: nn.Module = plain.act if isinstance(plain, BatchNormAct2d) else nn.Identity()
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        by_batch = self.training or self.running_mean is None
        normalised = self._synchronised(input) if by_batch and world_size() > 1 else super().forward(input)
        activated: Tensor = self.act(self.drop(normalised))
        return activated

    @staticmethod
    def on_gpu(x: Tensor) -> bool:
        """Whether `x` is where torch has kernels for this."""
        return x.is_cuda

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {tuple(input.shape)}")

    def _synchronised(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        share = self._next_share() if self.training else 0.0
        running = (self.running_mean, self.running_var) if self.training else (None, None)
        normalised: Tensor
        if self.on_gpu(x):
            normalised = _FusedNormalise.apply(x, self.weight, self.bias, *running, share, self.eps)
            return normalised
        dims = [d for d in range(x.dim()) if d != 1]
        count, mean, square = _global_statistics(at_least_float32(x.detach()), dims)
        for own, batch in zip(running, (mean, square / (count - 1)), strict=True):
            if own is not None:
                own.lerp_(batch.to(own.dtype), share)
        normalised = _Normalise.apply(x, self.weight, self.bias, mean, square / count, count, self.eps)
        return normalised

    @torch.no_grad()
    def _next_share(self) -> float:
        """The share of this batch in the running statistics."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the plain average over all batches
                return 1.0 / float(self.num_batches_tracked)
        return 0.0 if self.momentum is None else self.momentum


def _global_statistics(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Over all workers: the number of values a channel (scalar), their mean (C) and centred square sum (C).

    Each worker's centred sums are combined (Chan et al. 1979): the mean of squares minus the squared mean
    would lose the digits that make the result equal to one worker's.
    """
    mean = x.mean(dims)
    square = (x - _along(mean, x)).square().sum(dims)
    own = torch.cat([mean, square, mean.new_full((1,), x.numel() / x.shape[1])])
    everyone = gather(own[None])  # (workers, 2 C + 1)
    means, squares, counts = everyone[:, : len(mean)], everyone[:, len(mean) : -1], everyone[:, -1:]
    count = counts.sum()
    total_mean = (counts * means).sum(0) / count
    total_square = squares.sum(0) + (counts * (means - total_mean).square()).sum(0)
    return count, total_mean, total_square


class _Normalise(torch.autograd.Function):
    """`(x - mean) / sqrt(variance + eps) * weight + bias`, differentiated through the global statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        out = (at_least_float32(x) - _along(mean, x)) * _along(scale, x)
        if weight is not None and bias is not None:
            out = out * _along(weight, x) + _along(bias, x)
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        grad = at_least_float32(grads[0])
        dims = [d for d in range(x.dim()) if d != 1]
        hat = (at_least_float32(x) - _along(mean, x)) * _along(scale, x)
        grad_bias, grad_weight = grad.sum(dims), (grad * hat).sum(dims)  # this worker's share
        sums = torch.stack([grad_bias, grad_weight])
        dist.all_reduce(sums)
        mean_grad, mean_hat = sums / count
        slope = scale if weight is None else scale * weight
        grad_x = (grad - _along(mean_grad, x) - hat * _along(mean_hat, x)) * _along(slope, x)
        if weight is None:
            return grad_x.to(x.dtype), None, None, None, None, None, None
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None, None


class _FusedNormalise(torch.autograd.Function):
    """The same by torch's CUDA kernels, which read and write `x` as often as a plain batch normalisation.

    As `torch.nn.SyncBatchNorm`, without its check for workers that have no samples: the check reads from the
    device, and here every worker has as many.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        share: float,
        eps: float,
    ) -> Tensor:
        x = _dense(x)
        mean, scale = torch.batch_norm_stats(x, eps)
        own = torch.cat([mean, scale, mean.new_full((1,), x.numel() // x.shape[1])])
        everyone = gather(own[None])  # (workers, 2 C + 1)
        means, scales, counts = (part.contiguous() for part in everyone.split([len(mean), len(mean), 1], 1))
        counts = counts.view(-1)
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means, scales, running_mean, running_var, share, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        normalised: Tensor = torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)
        return normalised

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, counts = ctx.saved_tensors
        grad = _dense(grads[0])
        affine = weight is not None
        sum_grad, sum_hat, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
            grad, x, mean, scale, weight, True, affine, affine
        )
        sums = torch.cat([sum_grad, sum_hat])
        dist.all_reduce(sums)
        sum_grad, sum_hat = sums.split(len(sum_grad))
        grad_x = torch.batch_norm_backward_elemt(grad, x, mean, scale, weight, sum_grad, sum_hat, counts)
        own = (grad_weight, grad_bias) if affine else (None, None)
        return grad_x, *own, None, None, None, None


def _dense(x: Tensor) -> Tensor:
    """`x`, contiguous in its own order of dimensions."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return x if last is not None and x.is_contiguous(memory_format=last) else x.contiguous()


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """(C) as something that broadcasts against (B, C, ...)."""
    return channels.view(1, -1, *[1] * (x.dim() - 2))
