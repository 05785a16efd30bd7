"""All nodes, as data: connections, pools and neurons.

A node computes from its fields the shape of its output and the tensors that it needs. What it does with spikes and
currents is in `models.neurons` (neurons) and in each engine (connections).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from spikeserve.models.spec.connections import (
    Conv1d,
    Conv2d,
    ConvBase,
    Delay,
    Linear,
    Scale,
)
from spikeserve.models.spec.joins import (
    Concatenate,
    JoinBase,
    MatMul,
    Multiply,
)
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.neurons import (
    ALIF,
    IF,
    LI,
    LIF,
    RF,
    Adaptive,
    Alpha,
    CubaALIF,
    CubaLI,
    CubaLIF,
    Current,
    Driven,
    Firing,
    I,
    Leaky,
    NeuronBase,
    Recurrent,
    SpikingBase,
    Threshold,
)
from spikeserve.models.spec.node_base import (
    NodeBase,
)
from spikeserve.models.spec.parameters import MAX_STEPS
from spikeserve.models.spec.pools import (
    AvgPool1d,
    AvgPool2d,
    MaxPool1d,
    MaxPool2d,
    Pool2d,
    PoolBase,
    SumPool1d,
    SumPool2d,
)
from spikeserve.models.spec.program_neurons import ProgramBase, ProgramIntegrator, ProgramNeuron
from spikeserve.models.spec.rules import (
    FLOWS,
    FORGETS,
    GROWS,
    LEAKS,
    RESET_TIMINGS,
    RESTS,
    SUMS,
    Adapt,
    Charge,
    Fire,
    Joins,
    Reset,
    ResetTiming,
    Synapse,
)
from spikeserve.models.spec.shapes import (
    Flatten,
    Permute,
    Reshape,
)
from spikeserve.models.spec.transposed import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTransposeBase,
    Spread,
)
from spikeserve.models.spec.windows import (
    SweptBase,
    Window,
)

__all__ = [
    "ALIF",
    "ARRAY_RANGES",
    "FLOWS",
    "FORGETS",
    "GROWS",
    "IF",
    "LEAKS",
    "LI",
    "LIF",
    "RESET_TIMINGS",
    "RESTS",
    "RF",
    "SUMS",
    "WHOLE",
    "Adapt",
    "Adaptive",
    "Alpha",
    "AvgPool",
    "AvgPool1d",
    "AvgPool2d",
    "Charge",
    "Concatenate",
    "Conv",
    "Conv1d",
    "Conv2d",
    "ConvBase",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTransposeBase",
    "CubaALIF",
    "CubaLI",
    "CubaLIF",
    "Current",
    "Delay",
    "Driven",
    "Fire",
    "Firing",
    "Flatten",
    "I",
    "Integrating",
    "JoinBase",
    "Joins",
    "Leaky",
    "Linear",
    "MatMul",
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "Moved",
    "Multiply",
    "Neuron",
    "NeuronBase",
    "Node",
    "NodeBase",
    "Permute",
    "Pool",
    "Pool2d",
    "PoolBase",
    "ProgramBase",
    "ProgramIntegrator",
    "ProgramNeuron",
    "Recurrent",
    "Reset",
    "ResetTiming",
    "Reshape",
    "Scale",
    "Spiking",
    "SpikingBase",
    "Spread",
    "SumPool",
    "SumPool1d",
    "SumPool2d",
    "SweptBase",
    "Synapse",
    "Threshold",
    "Weighted",
    "Window",
]

Conv = Conv1d | Conv2d
ConvTranspose = ConvTranspose1d | ConvTranspose2d
Weighted = Linear | Conv1d | Conv2d | ConvTranspose1d | ConvTranspose2d
SumPool = SumPool1d | SumPool2d
AvgPool = AvgPool1d | AvgPool2d
MaxPool = MaxPool1d | MaxPool2d
Pool = SumPool | AvgPool | MaxPool
Moved = Flatten | Reshape | Permute  # which move values and compute nothing
Spiking = IF | LIF | CubaLIF | ALIF | CubaALIF | Alpha | RF | Threshold | ProgramNeuron
Integrating = I | LI | CubaLI | ProgramIntegrator
Neuron = Spiking | Integrating
Node = Annotated[
    Linear
    | Conv1d
    | Conv2d
    | ConvTranspose1d
    | ConvTranspose2d
    | SumPool1d
    | SumPool2d
    | AvgPool1d
    | AvgPool2d
    | MaxPool1d
    | MaxPool2d
    | Flatten
    | Reshape
    | Permute
    | Multiply
    | Concatenate
    | MatMul
    | Scale
    | Delay
    | IF
    | LIF
    | CubaLIF
    | ALIF
    | CubaALIF
    | Alpha
    | RF
    | Threshold
    | ProgramNeuron
    | I
    | LI
    | CubaLI
    | ProgramIntegrator,
    Field(discriminator="type"),
]

# The closed interval of each array's values; a number is checked by its field.
ARRAY_RANGES: Mapping[str, tuple[float, float]] = {
    **{name: (parameter.low, parameter.high) for name, parameter in NEURON_PARAMETERS.items()},
    "delay": (0.0, MAX_STEPS),
}
WHOLE = frozenset({"delay"})  # arrays of whole numbers
