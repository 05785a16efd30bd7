"""The state of a run: what each sample carries from one step to the next, the same for every engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.inputs import Samples
from spikeserve.models.errors import InvalidInput
from spikeserve.models.neurons import NeuronState, at_rest, program_of
from spikeserve.models.spec import Readout, Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Delay, Neuron, Spiking
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.models.spec.program import SPIKES
from spikeserve.models.spec.readouts import Reduction

READOUT = "readout"
SPIKE_COUNTS = "spike_counts"
READ = (READOUT, SPIKE_COUNTS)
NO_SPIKE = -1  # the step of a neuron's first spike, where there has been none
MOST_STEPS = 2**53  # up to here a float64, by which a mean divides, holds every number of steps


class AtRest(NamedTuple):
    """The type of what is reduced over time, and its value at rest, which changes no bit of what comes."""

    dtype: type[np.generic]
    value: float


REDUCED: Mapping[Reduction, AtRest] = {
    Reduction.SUM: AtRest(np.float64, -0.0),
    Reduction.MEAN: AtRest(np.float64, -0.0),
    Reduction.MAX: AtRest(np.float32, -np.inf),
    Reduction.LAST: AtRest(np.float32, 0.0),
}

Steps: TypeAlias = NDArray[np.int64]


class EngineArrays(Mapping[str, NDArray[Any]]):
    """The arrays of a state in the form of the engine that made them, which are converted when they are looked up."""

    @abstractmethod
    def take(self, samples: Samples) -> EngineArrays:
        """Return the arrays of some of the samples in the same form, not converted."""

    @abstractmethod
    def join(self, others: Sequence[Mapping[str, NDArray[Any]]]) -> EngineArrays | None:
        """Return these and those of other samples in the same form, not converted; None where some have another."""


@dataclass(frozen=True)
class State:
    """The state of a batch between two steps of a run; None stands for rest. Any engine can continue from it.

    `steps` (batch,) int64: the number of steps since rest of each sample, 0 for one at rest. Samples of any number of
    steps run in one batch, and each gets the bits that it would get alone. `arrays`, each with the batch axis first:

        <neuron>.<state>     (batch, *shape) float32   each state of the neuron's program: membrane, synapse, …
        <neuron>.spikes      (batch, *shape) float32   of the last step, where the neuron is recurrent
        <delay>.line         (batch, longest delay, *shape) float32   the last inputs of a Delay, the oldest first
        readout              (batch, classes)          what the answer is read from, over all steps so far: the output
                                                       spikes (int64); the step of each neuron's first (int64), from 0,
                                                       and -1 before it; the greatest or last value (float32), or the
                                                       sum of all (float64); at rest what `REDUCED` says
        spike_counts         (batch, classes) int64    the output spikes so far, where the last layer fires and the
                                                       answer is read from something else
    """

    steps: Steps
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def rest(cls, network: Network, batch: int) -> State:
        """Return the state of samples that have taken no step."""
        spec = network.spec
        arrays: dict[str, NDArray[Any]] = {}
        for node in spec.nodes:
            if isinstance(node, Neuron):
                zeros = np.zeros((batch, *spec.output_shapes[node.name]), np.float32)
                rest = at_rest(node, program_of(node), partial(network.parameter, node), zeros)
                arrays |= neuron_arrays(node, rest)
        reduced = NO_SPIKE if spec.readout is Readout.FIRST_SPIKE else 0.0
        if not spec.readout.of_spikes:
            reduced = REDUCED[spec.readout.reduction].value
        for name, (shape, dtype) in arrays_of(network).items():
            if name not in arrays:  # a delay line, what is read, or spikes so far
                arrays[name] = np.full((batch, *shape), reduced if name == READOUT else 0, dtype)
        return cls(np.zeros(batch, np.int64), arrays)

    def __getitem__(self, samples: Samples) -> State:
        """Return the state of some of the samples, which an array of their places may give in any order."""
        if isinstance(self.arrays, EngineArrays):
            return State(self.steps[samples], self.arrays.take(samples))
        return State(self.steps[samples], {name: array[samples] for name, array in self.arrays.items()})

    def copied(self, first: int, end: int) -> State:
        """Return the state of the samples from `first` up to `end`, in arrays of its own."""
        samples = slice(first, end)
        if isinstance(self.arrays, EngineArrays):
            return State(self.steps[samples].copy(), self.arrays.take(samples))
        return State(self.steps[samples].copy(), {name: array[samples].copy() for name, array in self.arrays.items()})

    @classmethod
    def joined(cls, states: Sequence[State]) -> State:
        """Concatenate states of one network, at least one and of any numbers of steps, along the samples."""
        first, *others = states
        if not others:
            return first
        steps = np.concatenate([each.steps for each in states])
        if isinstance(first.arrays, EngineArrays):
            together = first.arrays.join([each.arrays for each in others])
            if together is not None:
                return cls(steps, together)
        return cls(steps, {name: np.concatenate([each.arrays[name] for each in states]) for name in first.arrays})


class StateArray(NamedTuple):
    """The shape, for one sample, and the type of one array of a state."""

    shape: Shape
    dtype: type[np.generic]


def arrays_of(network: Network) -> dict[str, StateArray]:
    """Return the arrays of a state of `network`: name to shape and type."""
    spec = network.spec
    arrays: dict[str, StateArray] = {}
    for node in spec.nodes:
        shape = spec.input_shapes[node.name]
        if isinstance(node, Delay):
            arrays[f"{node.name}.line"] = StateArray((longest_delay(network, node), *shape), np.float32)
        elif isinstance(node, Neuron):
            arrays |= {f"{node.name}.{name}": StateArray(shape, np.float32) for name in state_names(node)}
    of_spikes = spec.readout.of_spikes
    arrays[READOUT] = StateArray((spec.classes,), np.int64 if of_spikes else REDUCED[spec.readout.reduction].dtype)
    if spec.readout is not Readout.SPIKE_COUNT and isinstance(spec.readout_node, Spiking):
        arrays[SPIKE_COUNTS] = StateArray((spec.classes,), np.int64)
    return arrays


def state_names(node: Neuron) -> tuple[str, ...]:
    """List the names of a layer's states: its program's, and a recurrent layer's last `spikes`."""
    return (*program_of(node).states, *(() if node.recurrent is None else (SPIKES,)))


def neuron_state(arrays: Mapping[str, Any], node: Neuron) -> NeuronState:
    """Take a neuron layer's part of a state; the arrays may be NumPy's or PyTorch's."""
    return {name: arrays[f"{node.name}.{name}"] for name in state_names(node)}


def neuron_arrays(node: Neuron, state: NeuronState) -> dict[str, Any]:
    """Give a neuron layer's part of a state the names of its arrays."""
    return {f"{node.name}.{name}": array for name, array in state.items()}


def longest_delay(network: Network, node: Delay) -> int:
    """Return the longest delay, in steps, of any element of the node's input."""
    return max(node.shared) if node.shared else int(network.parameter(node, "delay").max())


def output_spikes(state: State | None, spec: Spec) -> NDArray[np.int64] | int:
    """Return the output spikes since rest, (batch, classes), or 0 where there are none."""
    name = READOUT if spec.readout is Readout.SPIKE_COUNT else SPIKE_COUNTS
    return 0 if state is None else state.arrays.get(name, 0)


def steps_since_rest(state: State | None, batch: int, more: int = 0) -> Steps:
    """Return how many steps each sample has taken after so many more, (batch,)."""
    if state is not None:
        return state.steps + more
    steps = np.empty(batch, np.int64)
    steps.fill(more)  # NumPy's `full` takes ten times as long, which a small request would notice
    return steps


def check_state(state: State | None, network: Network, batch: int, time_steps: int) -> None:
    """Raise InvalidInput if `state` does not fit `network` and `batch` samples; None, which is rest, always fits.

    Also where the network has parameters for fewer steps than a sample ends this run with.
    """
    if state is not None:
        check_ages(state, batch)
        check_arrays(state, network, batch)
    check_steps(state, network, time_steps)


def check_steps(state: State | None, network: Network, time_steps: int) -> None:
    """Raise InvalidInput where the network has parameters for fewer steps than a sample ends this run with."""
    network.spec.check_steps(time_steps + (0 if state is None else max(state.steps.tolist(), default=0)))


def check_ages(state: State, batch: int) -> None:
    """Raise InvalidInput if the steps of a state are not those of so many samples; its arrays are not looked at."""
    if state.steps.dtype != np.int64:
        raise InvalidInput(f"state: the type of its steps is {state.steps.dtype}, expected int64")
    if state.steps.shape != (batch,):
        raise InvalidInput(
            f"state: the shape of its steps is {show(state.steps.shape)}, expected {batch} for {batch} samples"
        )
    for steps in (min(listed := state.steps.tolist(), default=0), max(listed, default=0)):
        if not 0 <= steps <= MOST_STEPS:
            raise InvalidInput(f"state: a sample's steps are {steps}, expected 0 to {MOST_STEPS}")


def check_arrays(state: State, network: Network, batch: int) -> None:
    """Raise InvalidInput if the arrays of `state` are not those of `network` for `batch` samples."""
    needed, arrays = arrays_of(network), state.arrays
    for name in sorted(needed.keys() - arrays.keys()):
        raise InvalidInput(f"state: lacks '{name}', which the network needs with shape {show(needed[name].shape)}")
    for name in sorted(arrays.keys() - needed.keys()):
        raise InvalidInput(f"state: holds '{name}', which the network does not have")
    for name, (shape, dtype) in needed.items():
        array = arrays[name]
        if array.dtype != dtype:
            raise InvalidInput(f"state: the type of '{name}' is {array.dtype}, expected {np.dtype(dtype)}")
        if array.shape != (batch, *shape):
            raise InvalidInput(
                f"state: the shape of '{name}' is {show(array.shape)}, expected {show((batch, *shape))} "
                f"for {batch} samples"
            )
