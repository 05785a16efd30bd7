"""The network that is trained: the spec's nodes as layers, run from raw or encoded samples to the readout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeserve.models.coding import encode
from spikeserve.models.engines.torch.network import build
from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Delay, Neuron, Node, Spiking, Weighted
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.fit.architecture import PLAIN, Architecture, NodeTraining
from spikeserve.training.fit.batch_norm import WholeBatch
from spikeserve.training.fit.layers import Connection, Delays, Neurons
from spikeserve.training.fit.operators import Signal, Spikes, dense, firing_rate, listed, own_steps, transform
from spikeserve.training.fit.operators.memory import reserve_memory

Stored = Connection | Neurons | Delays  # the layers that have parameters or weights


@dataclass(frozen=True)
class Activity:
    """The result of a forward pass.

    `output` (time_steps, batch, classes): what is read, the last layer's spikes, membranes or currents. `rasters`: each
    spiking layer's signal by name. `lengths` (batch,): each sample's own steps, where they differ.
    """

    output: Tensor
    rasters: dict[str, Signal]
    lengths: Tensor | None = None

    @property
    def rates(self) -> dict[str, Tensor]:
        """Spikes per neuron and step of each layer, over the batch, as scalars with a gradient."""
        return {name: firing_rate(raster, self.lengths) for name, raster in self.rasters.items()}

    @property
    def firing_rates(self) -> dict[str, float]:
        """The same as numbers."""
        return {name: float(rate.detach()) for name, rate in self.rates.items()}


class TrainingNetwork(nn.Module):
    """The nodes of an architecture, each of which takes the one before, as layers with fresh weights.

    No layer keeps any state between calls.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        reserve_memory()  # before there are weights
        self.spec: Spec = architecture.spec
        self.layers = nn.ModuleList(
            _layer(node, self.spec.input_shapes[node.name], architecture.training.get(node.name, PLAIN))
            for node in self.spec.nodes
        )

    def network(self) -> Network:
        """Return the network as it would be served now: its spec and its tensors, float32 on the CPU."""
        nodes: list[Node] = []
        tensors: dict[str, FloatArray] = {}
        for node, layer in zip(self.spec.nodes, self.layers, strict=True):
            served, arrays = layer.written() if isinstance(layer, Stored) else (node, {})
            nodes.append(served)
            tensors |= {f"{node.name}.{name}": values for name, values in arrays.items()}
        return Network(self.spec.with_nodes(nodes), tensors)

    def forward(
        self,
        steps: Tensor | Spikes,
        time_steps: int,
        threshold: Threshold,
        whole: WholeBatch | None = None,
        lengths: NDArray[np.int64] | None = None,
    ) -> Activity:
        """Run every sample from rest, layer by layer.

        `steps` is (time_steps, batch, *input shape), or (1, batch, *input shape) where every step is the same. Of each
        sample the first `lengths` (batch,) count, if given. No layer looks ahead, so the others only have to be left
        out of what is summed up over time or over the batch.
        """
        ends = None if lengths is None else torch.from_numpy(lengths).to(steps.device)
        own = None if ends is None else own_steps(ends, time_steps)
        rasters: dict[str, Signal] = {}
        signal: Signal = steps
        for node, layer in zip(self.spec.nodes, self.layers, strict=True):
            if isinstance(layer, Neurons):
                leaving, signal = layer(signal, time_steps, threshold, whole)
                if isinstance(node, Spiking):
                    rasters[node.name] = leaving
            elif isinstance(layer, Delays):
                signal = layer(signal, time_steps, own)
            elif isinstance(layer, Connection):
                signal = layer(signal, whole, own)
            else:
                signal = transform(layer, signal)
        read = dense(signal)
        return Activity(read.expand(time_steps, *read.shape[1:]).flatten(2), rasters, ends)


def _layer(node: Node, shape: Shape, training: NodeTraining) -> nn.Module:
    if isinstance(node, Weighted):
        return Connection(node, shape, training)
    if isinstance(node, Neuron):
        return Neurons(node, shape, training)
    return Delays(node, shape, training) if isinstance(node, Delay) else build(node, shape)


def encoded(
    module: TrainingNetwork, samples: FloatArray, seed: int | Sequence[int] = 0
) -> tuple[Tensor | Spikes, int]:  # fmt: skip
    """Return a network's inputs on its device, (time_steps or 1, batch, *shape), and the number of steps.

    `seed` is of rate coding, one for each sample or for all.
    """
    inputs = encode(samples, module.spec, seed=seed)
    return listed(torch.from_numpy(inputs.steps).to(next(module.parameters()).device)), inputs.time_steps


def forward(
    module: TrainingNetwork, samples: FloatArray, threshold: Threshold, lengths: NDArray[np.int64] | None = None
) -> Activity:
    """Encode raw samples (batch, *shape), or (batch, time_steps, *shape) of a sequence, and run them from rest.

    `lengths` (batch,) are the steps of each that count.
    """
    activity: Activity = module(*encoded(module, samples), threshold, lengths=lengths)
    return activity
