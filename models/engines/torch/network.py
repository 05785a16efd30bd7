"""The spec as PyTorch modules, which training fits and the `torch` engine runs.

Time is the first axis, and a layer computes all its steps at once: each connection is one matrix product over time ×
batch, or over the batch only if its input is the same at every step. Only a neuron layer loops over time. State is
passed in and returned; no module keeps any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import singledispatch
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from spikeserve.models.engines.torch.connections import (
    AlongLength,
    AvgPool,
    ConvTransposed,
    PermutedAxes,
    ScaleLayer,
    SumPool,
    join,
)
from spikeserve.models.engines.torch.operations import Threshold, scan
from spikeserve.models.neurons import NeuronState
from spikeserve.models.spec import Spec, nodes
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import PER_NEURON, Shape
from spikeserve.models.spec.sums import Summation, sums_of


def buffer_name(node: nodes.Neuron, parameter: str) -> str:
    """Name the buffer of a parameter; an author's may have the name of any attribute of a module."""
    return f"own_{parameter}" if isinstance(node, nodes.ProgramBase) else parameter


class ParameterisedLayer(nn.Module):
    """A layer whose node's parameters are buffers; per-neuron arrays are part of the state_dict."""

    def __init__(self, values: Mapping[str, float | str], shape: Shape) -> None:
        super().__init__()
        for name, value in values.items():
            initial = torch.zeros(shape) if value == PER_NEURON else torch.tensor(np.float32(value))
            self.register_buffer(name, initial, persistent=value == PER_NEURON)


class DelayLayer(ParameterisedLayer):
    """Each element delayed by a number of steps, or by several."""

    def __init__(self, node: nodes.Delay, shape: Shape) -> None:
        super().__init__({} if node.shared else {"delay": PER_NEURON}, shape)
        self.shared = node.shared

    def forward(self, x: Tensor, time_steps: int, line: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the output, (time_steps, batch, *output shape), and the delay line: the last inputs, oldest first.

        `x` is (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same; a delay line is (longest
        delay, batch, *shape), and None is rest.
        """
        x = x.expand(time_steps, *x.shape[1:])
        delays = None if self.shared else self.get_buffer("delay").to(torch.int64)
        longest = max(self.shared) if delays is None else int(delays.max())
        if line is None:
            line = x.new_zeros(longest, *x.shape[1:])
        x = torch.cat([line, x])
        if delays is None:
            return torch.cat([x[longest - tap :][:time_steps] for tap in self.shared], dim=2), x[time_steps:]
        steps = torch.arange(longest, longest + time_steps, device=x.device).view(-1, *(1 for _ in x.shape[1:]))
        return x.gather(0, (steps - delays).expand(time_steps, *x.shape[1:])), x[time_steps:]


class NeuronModule(ParameterisedLayer):
    """One neuron layer run through time; the equations are `models.neurons`'."""

    def __init__(self, node: nodes.Neuron, shape: Shape) -> None:
        super().__init__({buffer_name(node, name): value for name, value in node.values().items()}, shape)
        self.node = node
        recurrent = node.recurrent
        size = int(np.prod(shape))
        self.recurrent = nn.Linear(size, size, bias=recurrent.bias) if recurrent else None

    def forward(
        self,
        current: Tensor,
        time_steps: int,
        threshold: Threshold,
        state: NeuronState | None,
        begun: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], NeuronState]:
        """Step through time, as `operations.scan`; `begun` (batch,) is how many steps a `state` has taken, or None."""
        started = False if begun is None else begun.unsqueeze(1) > 0
        return scan(self.node, self.parameter, current, time_steps, threshold, self.recurrent, state, started)

    def parameter(self, name: str) -> Tensor:
        """Look a parameter up, a scalar or of the layer's shape."""
        return self.get_buffer(buffer_name(self.node, name))


@singledispatch
def build(node: nodes.Node, _: Shape) -> nn.Module:
    """Return the module of `node`, with fresh weights, for an input of this shape (one step of one sample)."""
    raise TypeError(f"no module for a {type(node).__name__}")


@build.register
def _(node: nodes.Linear, _: Shape) -> nn.Module:
    return nn.Linear(node.in_features, node.out_features, bias=node.bias)


class _PaddedConv(nn.Module):
    """A convolution that pads its input explicitly, since "same" padding may need one zero more on one side."""

    margins: list[int]

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the padded input."""
        padded: Tensor = super().forward(F.pad(x, self.margins))
        return padded


class PaddedConv1d(_PaddedConv, nn.Conv1d):
    """A 1-D convolution with explicit padding."""


class PaddedConv2d(_PaddedConv, nn.Conv2d):
    """A 2-D convolution with explicit padding."""


@build.register
def _(node: nodes.Conv1d | nodes.Conv2d, _: Shape) -> nn.Module:
    windows = node.windows
    even: Callable[..., nn.Module] = nn.Conv1d if len(windows) == 1 else nn.Conv2d
    uneven: Callable[..., _PaddedConv] = PaddedConv1d if len(windows) == 1 else PaddedConv2d
    arguments: dict[str, Any] = {
        "kernel_size": tuple(window.extent for window in windows),
        "stride": tuple(window.stride for window in windows),
        "dilation": tuple(window.dilation for window in windows),
        "groups": node.groups,
        "bias": node.bias,
    }
    if all(window.before == window.after for window in windows):
        padding = tuple(window.before for window in windows)
        return even(node.in_channels, node.out_channels, padding=padding, **arguments)
    conv = uneven(node.in_channels, node.out_channels, **arguments)
    # PyTorch expects the padding of the last axis first.
    conv.margins = [margin for window in reversed(windows) for margin in (window.before, window.after)]
    return conv


@build.register
def _(node: nodes.ConvTranspose, _: Shape) -> nn.Module:
    return ConvTransposed(node)


@build.register
def _(node: nodes.Pool, shape: Shape) -> nn.Module:
    if isinstance(node, nodes.MaxPool):
        pool: nn.Module = nn.MaxPool2d(*node.in_plane, ceil_mode=node.overhang)
    else:
        pool = SumPool(node) if isinstance(node, nodes.SumPool) else AvgPool(node, shape)
    return AlongLength(pool) if len(node.windows) == 1 else pool


@build.register
def _(node: nodes.Reshape, _: Shape) -> nn.Module:
    return nn.Sequential(nn.Flatten(start_dim=1), nn.Unflatten(1, node.shape))


@build.register
def _(node: nodes.Permute, _: Shape) -> nn.Module:
    return PermutedAxes(node)


@build.register
def _(_: nodes.Multiply | nodes.Concatenate | nodes.MatMul, __: Shape) -> nn.Module:
    return nn.Identity()  # `join` has done it


@build.register
def _(_: nodes.Flatten, __: Shape) -> nn.Module:
    return nn.Flatten(start_dim=1)


build.register(nodes.Scale, ScaleLayer)
build.register(nodes.Delay, DelayLayer)
build.register(nodes.Neuron, NeuronModule)


Carried: TypeAlias = NeuronState | Tensor  # a node's state: a neuron layer's, or the delay line of a Delay


class NodeActivity(NamedTuple):
    """A node's input and output in a run.

    `arriving` and `leaving` are (1 or time_steps, batch, *shape); also the node's state after the last step, and for a
    neuron layer the membrane after each step.
    """

    node: nodes.Node
    arriving: Tensor
    leaving: Tensor
    membranes: list[Tensor]
    carried: Carried | None


class SpikingNetwork(nn.Module):
    """A spec's nodes as modules, in order."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(build(node, spec.input_shapes[node.name]) for node in spec.nodes)

    @classmethod
    def of(cls, network: Network) -> SpikingNetwork:
        """Return modules that compute what `network` does.

        They hold its tensors, with the weights that count; see `models.spec.sums`. A connection whose sums float32
        cannot hold is float64.
        """
        module, sums = cls(network.spec), sums_of(network)
        for node, layer in zip(network.spec.nodes, module.layers, strict=True):
            if sums[node.name].by is not Summation.FLOAT32:
                pool = layer.pool if isinstance(layer, AlongLength) else layer
                if isinstance(pool, SumPool):
                    pool.wide = True
                else:
                    layer.double()
            if sums[f"{node.name}.recurrent"].by is not Summation.FLOAT32:
                layer.get_submodule("recurrent").double()
        tensors = {**network.tensors, **sums.weights}
        module.load_state_dict({module._key(name): torch.from_numpy(array.copy()) for name, array in tensors.items()})
        return module

    def network(self) -> Network:
        """Return the spec with a copy of the tensors as they are now, float32 on the CPU."""
        state = self.state_dict()
        return Network(
            self.spec, {name: state[self._key(name)].detach().float().cpu().numpy() for name in self.spec.tensor_shapes}
        )

    def _key(self, name: str) -> str:
        name, _, parameter = name.partition(".")
        position = self._positions[name]
        node = self.spec.nodes[position]
        if isinstance(node, nodes.Neuron) and parameter in node.values():
            parameter = buffer_name(node, parameter)
        return f"layers.{position}.{parameter}"

    @property
    def _positions(self) -> dict[str, int]:
        return {node.name: position for position, node in enumerate(self.spec.nodes)}

    def connect(self, node: nodes.Node, arriving: Tensor) -> Tensor:
        """Return the output of a node without a state, of inputs (time_steps, batch, *shape)."""
        layer, flat_input = self.layers[self._positions[node.name]], arriving.flatten(0, 1)
        weight = getattr(layer, "weight", flat_input)
        flat: Tensor = layer(flat_input.to(weight.dtype)).to(flat_input.dtype)
        return flat.view(*arriving.shape[:2], *flat.shape[1:])

    def forward(
        self,
        steps: Tensor,
        time_steps: int,
        threshold: Threshold,
        before: Mapping[str, Carried] | None = None,
        begun: Tensor | None = None,
    ) -> Iterator[NodeActivity]:
        """Run every sample, layer by layer, continuing from each node's state in `before`, by name, or from rest.

        `begun` (batch,) is the number of steps since rest before these; None means 0.

        `steps` is (time_steps, batch, *input shape), or (1, batch, *input shape) where every step is the same. Yields
        each node's input and output; a yielded value is freed as soon as the caller drops it.
        """
        positions = self._positions
        membranes: list[Tensor] = []
        after: Carried | None = None

        def apply(node: nodes.Node, arriving: Tensor) -> Tensor:
            nonlocal membranes, after
            layer = self.layers[positions[node.name]]
            membranes, after = [], None
            carried = None if before is None else before.get(node.name)
            leaving: Tensor
            if isinstance(layer, NeuronModule):
                leaving, membranes, after = layer(arriving, time_steps, threshold, carried, begun)
            elif isinstance(layer, DelayLayer):
                leaving, after = layer(arriving, time_steps, carried)
            elif isinstance(layer, ScaleLayer) and node.by_step:
                taken = arriving.new_zeros(1, dtype=torch.int64) if begun is None else begun
                leaving = layer(arriving, taken + torch.arange(time_steps, device=arriving.device).unsqueeze(1))
            else:
                leaving = self.connect(node, arriving)
            return leaving

        for node, arriving, leaving in self.spec.propagate(steps, apply, join):
            yield NodeActivity(node, arriving, leaving, membranes, after)
