"""What a neuron is: the named neurons as programs, what each operation computes, and a layer through time."""

from spikeserve.models.neurons.layer import NeuronLayer, NeuronState, Operations, Recurrence, at_rest, counts_steps
from spikeserve.models.neurons.named import once, program_of
from spikeserve.models.neurons.operations import OPERATIONS

__all__ = [
    "OPERATIONS",
    "NeuronLayer",
    "NeuronState",
    "Operations",
    "Recurrence",
    "at_rest",
    "counts_steps",
    "once",
    "program_of",
]
