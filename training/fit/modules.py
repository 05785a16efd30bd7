"""Neurons and delays as PyTorch modules, for networks and training loops of your own.

    network = nn.Sequential(nn.Linear(64, 128), LIF(128), nn.Linear(128, 10), LIF(10))
    spikes = network(steps)  # (time_steps, batch, 64) -> (time_steps, batch, 10)

A module runs all steps of a batch at once and starts from rest at each call: there is no state to reset. Time is the
first axis, or with `batch_first=True` the second. Modules compute what the spec's nodes of the same names do, with a
surrogate gradient, so that `training.library.publish` can write the network as a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import ValidationError
from torch import Tensor, nn

from spikeserve.models.spec import describe_first_error, validated
from spikeserve.models.spec import nodes as spec_nodes
from spikeserve.models.spec.parameters import PER_NEURON, Shape, show
from spikeserve.training.config import AUTHORS, Surrogate
from spikeserve.training.errors import InvalidConfig, InvalidData, one_of
from spikeserve.training.fit.architecture import NodeTraining
from spikeserve.training.fit.author import Author, Function
from spikeserve.training.fit.layers import Delays, Neurons
from spikeserve.training.fit.operators import connect, dense
from spikeserve.training.fit.operators.plain import each_step
from spikeserve.training.fit.surrogate import SurrogateThreshold

Value: TypeAlias = float | ArrayLike | Tensor  # of a parameter: one number, or one for each neuron

DEFAULTS: Mapping[str, float] = {"decay": 0.9, "syn_decay": 0.5, "adapt_decay": 0.97, "adapt_gain": 0.1}
OTHER_RULES = {"charge", "rate", "tau", "synapse", "syn_rate", "adapt", "adapt_rate"}  # which need other parameters


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
    later. `fields` are those of the spec's node: decay, threshold, fire, reset, syn_decay and so on. Where none of them
    chooses another rule, `decay` is 0.9 by default, as in snnTorch's tutorials; `syn_decay` is 0.5, `adapt_decay` 0.97
    and `adapt_gain` 0.1, as `fit` has them.

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
        surrogate = one_of(Surrogate, f"{type(self).__name__}: surrogate", surrogate)
        self.threshold = SurrogateThreshold(surrogate, slope, detach_reset=detach_reset)
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
        if (recurrent := fields.pop("recurrent", False)) is not False:
            fields["recurrent"] = spec_nodes.Recurrent() if recurrent is True else recurrent
        if not fields.keys() & OTHER_RULES:
            fields = {field: DEFAULTS[field] for field in DEFAULTS.keys() & self.node.model_fields.keys()} | fields
        node = validated(InvalidConfig, name, self.node, name="neuron", **fields)
        for parameter in learn:
            if not isinstance(getattr(node, parameter, None), float):
                raise InvalidConfig(f"{name}: learn holds '{parameter}', which is no number among its parameters")
        starts = {parameter: float(getattr(node, parameter)) for parameter in learn}
        learning = node.model_copy(update=dict.fromkeys(learn, PER_NEURON))
        return Neurons(learning, self.shape, NodeTraining(learned=starts))


class IF(NeuronModule):
    """Integrate-and-fire neurons."""

    node = spec_nodes.IF


class LIF(NeuronModule):
    """Leaky integrate-and-fire neurons; `decay` is what the membrane keeps per step, by default 0.9."""

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


class OwnNeuron(NeuronModule):
    """The base of the layers whose step is their author's; `leaving` is what a list of lines names what leaves by."""

    node: ClassVar[type[spec_nodes.ProgramNeuron | spec_nodes.ProgramIntegrator]]
    leaving: ClassVar[str]

    def __init__(
        self,
        *shape: int,
        step: Function | Sequence[str],
        states: Mapping[str, float | str] | None = None,
        recurrent: bool | spec_nodes.Recurrent = False,
        batch_first: bool = False,
        learn: Sequence[str] = (),
        surrogate: Surrogate | str = Surrogate.SUPERSPIKE,
        slope: float = 10.0,
        **parameters: Any,
    ) -> None:
        leaving = parameters.pop(self.leaving, None)
        super().__init__(
            *shape, batch_first=batch_first, learn=learn, surrogate=surrogate, slope=slope,
            step=step, states=states, leaving=leaving, recurrent=recurrent, parameters=parameters,
        )  # fmt: skip

    def _neurons(self, fields: dict[str, Any], learn: Sequence[str]) -> Neurons:
        kind, step, recurrent = type(self).__name__, fields["step"], fields["recurrent"]
        parameters, states, leaving = dict(fields["parameters"]), fields["states"] or {}, fields["leaving"]
        if step in tuple(AUTHORS) and self.node is spec_nodes.ProgramNeuron:
            plugin = AUTHORS[step].load()
            step, states, learn = plugin.step, {**plugin.states, **states}, learn or plugin.learn
        if callable(step):
            if leaving is not None:
                raise InvalidConfig(
                    f"{kind}: {self.leaving} is {leaving!r}, but the first value that a function returns is what leaves"
                )
            author = Author(kind, step)
            parameters = author.parameters(parameters)
            text = author.written(states, parameters, self.leaving)
        elif isinstance(step, str) or not isinstance(step, Sequence):
            raise InvalidConfig(f"{kind}: step is {str(step)[:80]!r}, expected a function, or a list of lines")
        else:
            text = {"states": states, "step": [*step], self.leaving: leaving}
        values = {name: self._value(name, value) for name, value in parameters.items()}
        numbers = {name: float(value) if value.ndim == 0 else PER_NEURON for name, value in values.items()}
        back = {"recurrent": spec_nodes.Recurrent() if recurrent is True else recurrent} if recurrent else {}
        try:
            node = self.node(name="neuron", program=text, parameters=numbers, **back)
        except ValidationError as error:
            sentence = describe_first_error(error).removeprefix("node 'neuron': ")
            raise InvalidConfig(f"{kind}: {sentence}") from error
        for name in learn:
            if name not in values:
                raise InvalidConfig(f"{kind}: learn holds '{name}', which is none of its parameters")
        node = node.with_values(dict.fromkeys(learn, PER_NEURON))
        neurons = Neurons(node, self.shape, NodeTraining(learned=dict.fromkeys(learn, 0.0)))
        for name, value in values.items():
            neurons.set_parameter(name, value)
        return neurons

    def _value(self, name: str, value: Value) -> Tensor:
        try:
            with np.errstate(over="ignore"):  # infinite then, and refused
                array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, np.float32)
        except (TypeError, ValueError):
            array = np.full((), np.nan, np.float32)
        shape = show(self.shape)
        if array.shape not in ((), self.shape):
            what = f"of shape {show(array.shape)}"
        elif not np.isfinite(array).all() or isinstance(value, bool | str):
            what = repr(value)[:80]
        else:
            return torch.from_numpy(array.copy())
        raise InvalidConfig(f"{type(self).__name__}: {name} is {what}, expected a number, or an array of shape {shape}")


class Neuron(OwnNeuron):
    """Neurons whose step is your own; they return spikes.

    `step`: a function of `current`, `feedback` (if `recurrent`) and the states, and of keyword-only parameters, which
    returns the spikes and then the states after the step. Or the word of a plugin's neuron. Or a list of lines, as in a
    bundle (docs/spec.md), with the name of what leaves as `spikes`. The first state is the membrane. `states`: where
    each state starts, a number or a parameter's name; a function's start at 0 unless they are named. `parameters`: each
    a number, or an array of the layer's shape. `learn`: those that are trained, for each neuron its own, unbounded:
    bound them in the step by `minimum` and `maximum`.

    Raises InvalidConfig for a step that is none, and for a parameter too few or too many.
    """

    node = spec_nodes.ProgramNeuron
    leaving = "spikes"


class Integrator(OwnNeuron):
    """Neurons whose step is your own and that never fire, as the readout; see `Neuron`.

    The function returns what leaves, any number, and then the states; of a list of lines that is named `output`.
    """

    node = spec_nodes.ProgramIntegrator
    leaving = "output"


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
        return each_step(self.module, values)
