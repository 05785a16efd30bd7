"""Neurons and delays as PyTorch modules, for networks and training loops of your own.

    network = nn.Sequential(nn.Linear(64, 128), LIF(128), nn.Linear(128, 10), LIF(10))
    spikes = network(steps)  # (time_steps, batch, 64) -> (time_steps, batch, 10)

A module runs all steps of a batch at once and starts from rest at each call: there is no state to reset. Time is the
first axis, or with `batch_first=True` the second. Modules compute what the spec's nodes of the same names do, with a
surrogate gradient, so that `training.library.publish` can write the network as a bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import ValidationError
from torch import Tensor, nn

from spikeserve.models.spec import describe_first_error
from spikeserve.models.spec import nodes as spec_nodes
from spikeserve.models.spec.parameters import PER_NEURON, Shape, show
from spikeserve.training.config import Surrogate
from spikeserve.training.errors import InvalidConfig, InvalidData
from spikeserve.training.fit.architecture import NodeTraining
from spikeserve.training.fit.layers import Delays, Neurons
from spikeserve.training.fit.operators import connect, dense
from spikeserve.training.fit.surrogate import SurrogateThreshold


class OverTime(nn.Module):
    """The base of the modules that see all steps: which axis is time, and the shape of what arrives."""

    def __init__(self, *, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first

    def time_first(self, values: Tensor) -> Tensor:
        """Return values with time as the first axis and the batch as the second, or the reverse."""
        return values.transpose(0, 1) if self.batch_first else values

    def require_shape(self, values: Tensor, shape: Shape) -> None:
        """Raise InvalidData unless values are (time_steps, batch, *shape), or batch first."""
        if tuple(values.shape[2:]) == shape and values.ndim == 2 + len(shape):
            return
        axes = "batch, time_steps" if self.batch_first else "time_steps, batch"
        raise InvalidData(
            f"{type(self).__name__}: its input has shape {show(tuple(values.shape))}, "
            f"expected ({axes}, {', '.join(map(str, shape))})"
        )


class NeuronModule(OverTime):
    """A layer of neurons: takes currents and returns spikes, or the membranes of a neuron that never fires.

    `shape`: the layer's size, or channels, height and width. `learn`: the parameters that are trained, for each neuron
    its own; `decay` as given is where they start. `recurrent=True` connects each neuron to all of the layer, one step
    later. `fields` are those of the spec's node: decay, threshold, fire, reset, syn_decay and so on.

    Raises InvalidConfig for a field that the node does not have or a value out of range.
    """

    node: ClassVar[Any]

    def __init__(
        self,
        *shape: int,
        batch_first: bool = False,
        learn: Sequence[str] = (),
        surrogate: Surrogate | str = Surrogate.SUPERSPIKE,
        slope: float = 10.0,
        detach_reset: bool = False,
        **fields: Any,
    ) -> None:
        super().__init__(batch_first=batch_first)
        if not shape or min(shape) < 1:
            raise InvalidConfig(
                f"{type(self).__name__}: its shape is {shape}, expected one or more sizes, each above 0"
            )
        self.shape: Shape = tuple(shape)
        self.threshold = SurrogateThreshold(Surrogate(surrogate), slope, detach_reset=detach_reset)
        self.neurons = self._neurons(fields, learn)

    def forward(self, current: Tensor) -> Tensor:
        """Return spikes or membranes of the shape of `current`: (time_steps, batch, *shape), or batch first."""
        self.require_shape(current, self.shape)
        current = self.time_first(current)
        leaving, _ = self.neurons(current, len(current), self.threshold)
        return self.time_first(dense(leaving))

    def extra_repr(self) -> str:
        """Show the shape and the fields that differ from the node's defaults."""
        fields = self.neurons.node.model_dump(exclude_defaults=True, exclude={"name", "type"}, mode="json")
        return ", ".join([*map(str, self.shape), *(f"{name}={value}" for name, value in fields.items())])

    def _neurons(self, fields: dict[str, Any], learn: Sequence[str]) -> Neurons:
        name = type(self).__name__
        if fields.get("recurrent") is True:
            fields = {**fields, "recurrent": spec_nodes.Recurrent()}
        elif fields.get("recurrent") is False:
            fields = {key: value for key, value in fields.items() if key != "recurrent"}
        try:
            node = self.node(name="neuron", **fields)
            for parameter in learn:
                if not isinstance(getattr(node, parameter, None), float):
                    raise InvalidConfig(f"{name}: learn holds '{parameter}', which is no number among its parameters")
            starts = {parameter: float(getattr(node, parameter)) for parameter in learn}
            learning = node.model_copy(update=dict.fromkeys(learn, PER_NEURON))
        except ValidationError as error:
            raise InvalidConfig(f"{name}: {describe_first_error(error)}") from error
        return Neurons(learning, self.shape, NodeTraining(learned=starts))


class IF(NeuronModule):
    """Integrate-and-fire neurons."""

    node = spec_nodes.IF


class LIF(NeuronModule):
    """Leaky integrate-and-fire neurons; `decay` is what the membrane keeps per step."""

    node = spec_nodes.LIF


class CubaLIF(NeuronModule):
    """Leaky integrate-and-fire neurons with a synaptic current, which keeps `syn_decay` per step."""

    node = spec_nodes.CubaLIF


class ALIF(NeuronModule):
    """Adaptive LIF neurons: a spike raises the threshold by `adapt_gain`, of which a step keeps `adapt_decay`."""

    node = spec_nodes.ALIF


class CubaALIF(NeuronModule):
    """Adaptive LIF neurons with a synaptic current."""

    node = spec_nodes.CubaALIF


class AdLIF(NeuronModule):
    """Adaptive LIF neurons (SE-adLIF): a current that follows membrane and spikes opposes what charges the membrane."""

    node = spec_nodes.AdLIF


class LI(NeuronModule):
    """Leaky integrators that never fire, as the readout: returns their membranes."""

    node = spec_nodes.LI


class CubaLI(NeuronModule):
    """Leaky integrators with a synaptic current, as the readout."""

    node = spec_nodes.CubaLI


class Delay(OverTime):
    """Delays each element by a learned number of steps, from 0 to `longest`."""

    def __init__(self, *shape: int, longest: int, batch_first: bool = False) -> None:
        super().__init__(batch_first=batch_first)
        if not shape or min(shape) < 1 or longest < 1:
            raise InvalidConfig(f"Delay: shape is {shape} and longest {longest}, expected sizes and steps above 0")
        self.shape: Shape = tuple(shape)
        node = spec_nodes.Delay(name="delay", delay=PER_NEURON)
        self.delays = Delays(node, self.shape, NodeTraining(longest_delay=longest))

    def forward(self, signal: Tensor) -> Tensor:
        """Return the delayed signal, of the shape of `signal`."""
        self.require_shape(signal, self.shape)
        signal = self.time_first(signal)
        return self.time_first(self.delays(signal, len(signal)))


class PerStep(nn.Module):
    """Applies a module without time, such as a convolution or a pool, to every step: `PerStep(nn.Conv2d(1, 8, 3))`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: Tensor) -> Tensor:
        """Return the module's outputs with the two leading axes, time and batch in any order, of `values`."""
        if isinstance(self.module, nn.Linear | nn.Conv1d | nn.Conv2d):
            return dense(connect(self.module, values))
        flat: Tensor = self.module(values.flatten(0, 1))
        return flat.view(*values.shape[:2], *flat.shape[1:])
