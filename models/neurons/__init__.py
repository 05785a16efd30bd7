"""The neuron's equations, once: the rules, one step, and a layer through time."""

from models.neurons.equations import (
    CHARGES,
    RESETS,
    SYNAPSES,
    Arithmetic,
    Integrator,
    Needed,
    NeuronState,
    ResetRule,
    SpikingNeuron,
    feedback_joins_charge,
    has_synapse,
    integrator,
    is_recurrent,
    spiking_neuron,
    starting,
)
from models.neurons.layer import NeuronLayer, at_rest, counts_steps

__all__ = [
    "CHARGES",
    "RESETS",
    "SYNAPSES",
    "Arithmetic",
    "Integrator",
    "Needed",
    "NeuronLayer",
    "NeuronState",
    "ResetRule",
    "SpikingNeuron",
    "at_rest",
    "counts_steps",
    "feedback_joins_charge",
    "has_synapse",
    "integrator",
    "is_recurrent",
    "spiking_neuron",
    "starting",
]
