"""The connections of the spec that PyTorch has no module for, and how a node's inputs are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from spikeserve.models.spec import nodes
from spikeserve.models.spec.parameters import PER_CHANNEL, Shape


def join(node: nodes.Node, inputs: Sequence[Tensor]) -> Tensor:
    """Join the inputs of a node, each (time_steps, batch, *shape), or with 1 where every step is the same."""
    if isinstance(node, nodes.Multiply):
        return reduce(torch.mul, inputs)
    if isinstance(node, nodes.Concatenate):
        steps = max(len(x) for x in inputs)
        return torch.cat([x.expand(steps, *x.shape[1:]) for x in inputs], dim=2 + node.axis)
    if isinstance(node, nodes.MatMul):
        left, right = inputs
        return torch.matmul(left.double(), right.double()).to(left.dtype)  # exact, see `models.spec.sums`
    return reduce(torch.add, inputs)


class ConvTransposed(nn.Module):
    """A transposed convolution of (samples, channels, *axes), with the weight as the spec has it."""

    def __init__(self, node: nodes.ConvTranspose) -> None:
        super().__init__()
        self.node = node
        # Fresh weights are drawn as PyTorch draws them for a convolution: by the number of a kernel's values.
        usual = nn.Linear(math.prod(node.tensor_shapes(())["weight"][1:]), node.out_channels, bias=node.bias)
        self.weight = nn.Parameter(usual.weight.detach().view(node.tensor_shapes(())["weight"]))
        self.bias = None if usual.bias is None else nn.Parameter(usual.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, channels, *axes)."""
        node, windows = self.node, self.node.windows
        grouped = self.weight.view(node.groups, -1, *self.weight.shape[1:]).transpose(1, 2)
        run = F.conv_transpose1d if len(windows) == 1 else F.conv_transpose2d
        spread: Tensor = run(
            x,
            grouped.reshape(node.in_channels, -1, *self.weight.shape[2:]),
            self.bias,
            stride=[window.stride for window in windows],
            padding=[window.padding for window in windows],
            output_padding=[window.output_padding for window in windows],
            groups=node.groups,
            dilation=[window.dilation for window in windows],
        )
        return spread


class SumPool(nn.Module):
    """The sum over each window of (samples, channels, height, width), computed in float64 if `wide`."""

    def __init__(self, pool: nodes.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.wide = False

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, channels, rows, columns)."""
        summands = x.double() if self.wide else x
        spread = F.avg_pool2d(summands, *self.pool.in_plane, ceil_mode=self.pool.overhang, divisor_override=1)
        return spread.to(x.dtype)


class AvgPool(SumPool):
    """The sum over each window divided by how many values it covers: a true division, rounded once."""

    window: Tensor

    def __init__(self, pool: nodes.AvgPool, shape: Shape | None = None) -> None:
        """Average over the windows of a pool; `shape` is its input's, which windows that overhang depend on."""
        super().__init__(pool)
        # A tensor, since a division by a Python number may be computed as a product with its rounded reciprocal.
        window = torch.tensor(float(pool.area))
        if pool.uneven and shape is not None:
            divisors = torch.from_numpy(pool.divisors(shape))
            window = divisors if divisors.ndim > 1 else divisors.unsqueeze(0)
        self.register_buffer("window", window, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, channels, rows, columns)."""
        return super().forward(x) / self.window


class AlongLength(nn.Module):
    """A pool over (samples, channels, height, width), run over (samples, channels, length) as over one row."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, channels, places)."""
        pooled: Tensor = self.pool(x.unsqueeze(2))
        return pooled.squeeze(2)


class PermutedAxes(nn.Module):
    """The axes of each sample in another order."""

    def __init__(self, node: nodes.Permute) -> None:
        super().__init__()
        self.order = (0, *(1 + axis for axis in node.order))

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, *axes in their order)."""
        return x.permute(self.order)


class ScaleLayer(nn.Module):
    """Each element times its factor, plus its offset; arrays are the tensors of the node, as buffers."""

    def __init__(self, node: nodes.Scale, shape: Shape) -> None:
        super().__init__()
        self.node = node
        self.axes = len(shape)
        arrays = node.tensor_shapes(shape)
        for name in ("scale", "offset"):
            value = torch.zeros(arrays[name]) if name in arrays else torch.tensor(getattr(node, name))
            self.register_buffer(name, value, persistent=name in arrays)

    def forward(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Compute the output for `x`: (samples, *shape), or with steps of its own (time_steps or 1, batch, *shape).

        `steps`, (time_steps, batch) or (time_steps, 1) where all samples are of one age, says which step since rest
        each is.
        """
        scaled = self.spread("scale", steps) * x
        return scaled if self.node.offset == 0 else scaled + self.spread("offset", steps)

    def spread(self, name: str, steps: Tensor | None) -> Tensor:
        """Return a parameter such that it spreads over what arrives."""
        values: Tensor = getattr(self, name)
        if not values.ndim:
            return values
        if getattr(self.node, name) == PER_CHANNEL:
            values = values.view(*values.shape, *(1 for _ in range(self.axes - 1)))
        return values if steps is None else values[steps]
