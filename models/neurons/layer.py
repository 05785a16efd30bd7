"""A layer of neurons through time, once for every engine: where it starts, what it hears of itself, and each step.

At each step a recurrent layer first hears its own spikes of the step before, which at the first step since rest are
none. What it hears joins the current that arrives, or is the last summand of what that current charges
(`recurrent.joins`). A recurrent bias counts from the first step on, or from the second (`recurrent.bias_at_start`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from spikeserve.models.neurons.equations import (
    AlphaNeuron,
    Arithmetic,
    Integrator,
    NeuronState,
    Parameters,
    SpikingNeuron,
    adapts,
    feedback_joins_charge,
    has_inhibition,
    has_synapse,
    integrator,
    is_recurrent,
    refracts,
    spiking_neuron,
    starting,
)
from spikeserve.models.spec.nodes import Adapt, Integrating, Neuron, Spiking

Array = TypeVar("Array", bound=Any)

# (spikes of the step before, whether the bias counts) -> the current that they send back, of the same shape. Whether
# the bias counts is true or false for all samples or for each (batch, 1), and 1 or 0 in a value where a step becomes a
# graph.
Recurrence: TypeAlias = Callable[[Array, Any], Array]


def at_rest(node: Neuron, parameters: Parameters[Array], zeros: Array) -> NeuronState:
    """Return a layer's state before the first step; `zeros` has the state's shape (batch, *shape)."""
    adaptation = None
    if adapts(node):
        adaptation = zeros + parameters("threshold") if node.adapt is Adapt.RELAX else zeros
    return NeuronState(
        zeros + parameters("start") if starting(node) else zeros,
        zeros if has_synapse(node) or has_inhibition(node) else None,
        zeros if is_recurrent(node) else None,
        adaptation,
        zeros if refracts(node) else None,
        zeros if has_inhibition(node) else None,
    )


@dataclass(frozen=True)
class NeuronLayer(Generic[Array]):
    """A neuron node in one kind of array; `recur` is its recurrent connection, where it has one.

    `joins_charge` and `counts_steps` say of that what the functions of those names say of the node: a step has no time
    to ask.
    """

    neuron: Integrator[Array] | SpikingNeuron[Array] | AlphaNeuron[Array]
    arithmetic: Arithmetic[Array]
    recur: Recurrence[Array] | None
    joins_charge: bool
    counts_steps: bool

    @classmethod
    def of(
        cls,
        node: Neuron,
        parameters: Parameters[Array],
        arithmetic: Arithmetic[Array],
        recur: Recurrence[Array] | None = None,
    ) -> NeuronLayer[Array]:
        """Return the layer of `node`, whose parameters are looked up by name."""
        make: Any = integrator if isinstance(node, Integrating) else spiking_neuron
        neuron, recur = make(node, parameters), recur if is_recurrent(node) else None
        joins_charge = isinstance(node, Spiking) and feedback_joins_charge(node)
        return cls(neuron, arithmetic, recur, joins_charge, counts_steps(node))

    def step(self, state: NeuronState, current: Array, begun: Any) -> tuple[Array, NeuronState]:
        """Take one step and return what leaves the layer, spikes or a readout's membrane, and the state after it.

        `begun`: whether there was a step since rest, true or false for all samples or for each (batch, 1), or 1 or 0
        in a graph's value.
        """
        if isinstance(self.neuron, SpikingNeuron | AlphaNeuron):
            feedback = None
            if self.recur is not None:
                feedback = self.recur(state.spikes, begun if self.counts_steps else True)
                if not self.joins_charge:
                    current, feedback = current + feedback, None
            spikes, after = self.neuron.step(state, current, feedback, self.arithmetic)
            if self.recur is not None:
                after = after._replace(spikes=spikes)
            return spikes, after
        after = self.neuron.charge(state, current, self.arithmetic)
        return after.membrane, after

    def scan(self, state: NeuronState, currents: Iterable[Array], begun: Any) -> Iterator[tuple[Array, NeuronState]]:
        """Take a step for each of `currents`, on from `state`, and yield what `step` returns."""
        for current in currents:
            leaving, state = self.step(state, current, begun)
            yield leaving, state
            begun = True


def counts_steps(node: Neuron) -> bool:
    """Return whether a layer's first step since rest differs from the others by more than its state."""
    return isinstance(node, Spiking) and node.recurrent is not None and not node.recurrent.bias_at_start
