"""The neuron's equations, once: the rules, one step, and how a layer starts."""

from models.neurons.equations import (
    CHARGES,
    RESETS,
    SYNAPSES,
    Arithmetic,
    Integrator,
    Needed,
    ResetRule,
    SpikingNeuron,
    State,
    feedback_joins_charge,
    has_synapse,
    integrator,
    spiking_neuron,
    starting,
)

__all__ = [
    "CHARGES",
    "RESETS",
    "SYNAPSES",
    "Arithmetic",
    "Integrator",
    "Needed",
    "ResetRule",
    "SpikingNeuron",
    "State",
    "feedback_joins_charge",
    "has_synapse",
    "integrator",
    "spiking_neuron",
    "starting",
]
