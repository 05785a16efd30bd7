"""The spec as PyTorch modules: what training fits and the `torch` engine serves.

Time comes first, and a layer takes all its steps at once: each connection is one matrix product over time × batch, and
one over the batch alone while its input is the same at every step. Only a neuron loops over time. State goes in and
comes out; nothing is kept on a module, so every call starts from rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from models.network import Network
from models.neurons import Arithmetic, Integrator, SpikingNeuron, integrator, spiking_neuron
from models.nodes import (
    IF,
    LI,
    LIF,
    AvgPool2d,
    Conv2d,
    Fire,
    Flatten,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Pool2d,
    SpikingBase,
    SumPool2d,
)
from models.parameters import PER_NEURON, Shape
from models.spec import Spec


class HardThreshold:
    """Firing as it is served: a plain comparison, through which no gradient passes."""

    def fire(self, charged: Tensor, threshold: Tensor, rule: Fire) -> Tensor:
        """Return 1 where `charged` reaches `threshold` (or passes it), else 0, in the type of `charged`."""
        fired = charged >= threshold if rule is Fire.AT_THRESHOLD else charged > threshold
        return fired.to(charged.dtype)

    def select(self, spikes: Tensor, fired: Tensor, silent: Tensor) -> Tensor:
        """Return `fired` where there is a spike, else `silent`."""
        return torch.where(spikes > 0, fired, silent)

    def held(self, spikes: Tensor) -> Tensor:
        """Return the spikes without their gradient: the reset is not a way for it."""
        return spikes.detach()


class SumPool(nn.Module):
    """The sum over each window of (samples, channels, height, width)."""

    def __init__(self, pool: Pool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, channels, rows, columns)."""
        return F.avg_pool2d(x, self.pool.kernel_size, self.pool.hop, self.pool.padding, divisor_override=1)


class AvgPool(SumPool):
    """The sum over each window divided by the window's size: a true division, rounded once, as the spec defines it."""

    window: Tensor

    def __init__(self, pool: Pool2d) -> None:
        super().__init__(pool)
        # A tensor, since dividing by a Python number may become a product with its rounded reciprocal.
        self.register_buffer("window", torch.tensor(float(np.prod(pool.kernel_size))), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, channels, rows, columns)."""
        return super().forward(x) / self.window


class NeuronLayer(nn.Module):
    """One neuron layer run through time; the equations are `models.neurons`'."""

    def __init__(self, node: Neuron, shape: Shape) -> None:
        super().__init__()
        self.node = node
        for name in ("decay", "gain", "drive", "threshold", "reset_value"):
            value = getattr(node, name, None)
            if value is not None:
                initial = torch.zeros(shape) if value == PER_NEURON else torch.tensor(np.float32(value))
                self.register_buffer(name, initial, persistent=value == PER_NEURON)
        recurrent = node.recurrent if isinstance(node, SpikingBase) else None
        size = int(np.prod(shape))
        self.recurrent = nn.Linear(size, size, bias=recurrent.bias) if recurrent else None

    def forward(self, current: Tensor, time_steps: int, arithmetic: Arithmetic[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Step from rest through time.

        `current` is (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same. Returns the output
        (time_steps, batch, *shape), spikes or a readout's membrane, and the membrane after each step (batch, *shape).
        """
        membrane = torch.zeros_like(current[0])
        steps = current.unbind(0) * (time_steps if len(current) == 1 else 1)
        membranes: list[Tensor] = []
        if isinstance(self.node, LI):
            readout: Integrator[Tensor] = integrator(self.node, self.get_buffer)
            for step in steps:
                membrane = readout.charge(membrane, step)
                membranes.append(membrane)
            return torch.stack(membranes), membranes
        neuron: SpikingNeuron[Tensor] = spiking_neuron(self.node, self.get_buffer)
        spikes = torch.zeros_like(membrane)
        raster: list[Tensor] = []
        for step in steps:
            arriving = step if self.recurrent is None else step + self.recurrent(spikes.flatten(1)).view_as(spikes)
            spikes, membrane = neuron.step(membrane, arriving, arithmetic)
            raster.append(spikes)
            membranes.append(membrane)
        return torch.stack(raster), membranes


@singledispatch
def build(node: Node, _: Shape) -> nn.Module:
    """Return the module of `node` for an input of a shape (one step of one sample), with fresh weights."""
    raise TypeError(f"no module for a {type(node).__name__}")


@build.register
def _(node: Linear, _: Shape) -> nn.Module:
    return nn.Linear(node.in_features, node.out_features, bias=node.bias)


@build.register
def _(node: Conv2d, _: Shape) -> nn.Module:
    return nn.Conv2d(
        node.in_channels,
        node.out_channels,
        node.kernel_size,
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        bias=node.bias,
    )


@build.register
def _(node: SumPool2d, _: Shape) -> nn.Module:
    return SumPool(node)


@build.register
def _(node: AvgPool2d, _: Shape) -> nn.Module:
    return AvgPool(node)


@build.register
def _(node: MaxPool2d, _: Shape) -> nn.Module:
    return nn.MaxPool2d(node.kernel_size, node.hop, node.padding)


@build.register
def _(_: Flatten, __: Shape) -> nn.Module:
    return nn.Flatten(start_dim=1)


@build.register(IF)
@build.register(LIF)
@build.register(LI)
def _(node: Neuron, shape: Shape) -> nn.Module:
    return NeuronLayer(node, shape)


class SpikingNetwork(nn.Module):
    """A spec's nodes as modules, in order."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(build(node, spec.input_shapes[node.name]) for node in spec.nodes)

    @classmethod
    def of(cls, network: Network) -> SpikingNetwork:
        """Return modules that hold the tensors of `network`."""
        module = cls(network.spec)
        module.load_state_dict(
            {module._key(name): torch.from_numpy(array.copy()) for name, array in network.tensors.items()}
        )
        return module

    def network(self) -> Network:
        """Return the spec with a copy of the tensors as they are now, float32 on the CPU."""
        state = self.state_dict()
        return Network(
            self.spec,
            {name: state[self._key(name)].detach().float().cpu().numpy() for name in self.spec.tensor_shapes},
        )

    def _key(self, name: str) -> str:
        node, _, parameter = name.partition(".")
        return f"layers.{self._positions[node]}.{parameter}"

    @property
    def _positions(self) -> dict[str, int]:
        return {node.name: position for position, node in enumerate(self.spec.nodes)}

    def forward(
        self, steps: Tensor, time_steps: int, arithmetic: Arithmetic[Tensor]
    ) -> Iterator[tuple[Node, Tensor, Tensor, list[Tensor]]]:
        """Run every sample from rest, a layer at a time.

        `steps` is (time_steps, batch, *input shape), or (1, batch, *input shape) where every step is the same. Yields
        each node with what arrives at it, what leaves it, both (1 or time_steps, batch, *shape), and, of a neuron, the
        membrane after each step. Nothing is held for a caller that does not hold it.
        """
        positions = self._positions
        membranes: list[Tensor] = []

        def apply(node: Node, arriving: Tensor) -> Tensor:
            nonlocal membranes
            layer = self.layers[positions[node.name]]
            membranes = []
            if isinstance(layer, NeuronLayer):
                leaving: Tensor
                leaving, membranes = layer(arriving, time_steps, arithmetic)
                return leaving
            flat: Tensor = layer(arriving.flatten(0, 1))
            return flat.view(*arriving.shape[:2], *flat.shape[1:])

        for node, arriving, leaving in self.spec.propagate(steps, apply, torch.add):
            yield node, arriving, leaving, membranes
