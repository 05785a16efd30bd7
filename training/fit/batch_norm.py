"""Batch norm whose statistics are those of the whole batch, also where each process runs only some of its rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)


class WholeBatch(NamedTuple):
    """What a layer has to know of the batch of which it runs some rows, for a result that is that of the whole.

    `seed` is what dropout draws from, `size` is the number of rows, and `rows` are those that are run here. `copies` is
    how many processes run each row: 1, or all of them for a batch with fewer rows than they are.
    """

    seed: int
    size: int
    rows: slice
    copies: int = 1


class BatchNorm(nn.BatchNorm1d):
    """PyTorch's BatchNorm1d, over a batch that may be divided among processes."""

    running_mean: Tensor  # which it has, unless it is asked to track nothing
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, values: Tensor, whole: WholeBatch | None = None) -> Tensor:
        """Normalise values (rows, channels) or (rows, channels, places).

        A single step of a single sample has no deviation: it is normalised as in serving.
        """
        if values.numel() == values.shape[1] and (whole is None or whole.size == 1):
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if not self.training or whole is None or not distributed.is_initialized():
            return super().forward(values)
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1, 1][: values.ndim]
        count = _sum(values.new_tensor(values.numel() / values.shape[1]))
        mean = _sum(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach(), float(count) / whole.copies)
        return centred * ((variance + self.eps).rsqrt() * self.weight).view(shape) + self.bias.view(shape)

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.momentum is not None  # noqa: S101  (only while it is renormalised)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def _sum(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes, each of whose losses depends on all of its terms."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004
        total = own.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])
