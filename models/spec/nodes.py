"""All nodes, as data: connections, pools and neurons.

A node computes from its fields the shape of its output and the tensors that it needs. What it does with spikes and
currents is in `models.neurons` (neurons) and in each engine (connections).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from spikeserve.models.spec.connections import Conv1d as Conv1d
from spikeserve.models.spec.connections import Conv2d as Conv2d
from spikeserve.models.spec.connections import ConvTranspose1d as ConvTranspose1d
from spikeserve.models.spec.connections import ConvTranspose2d as ConvTranspose2d
from spikeserve.models.spec.connections import Delay as Delay
from spikeserve.models.spec.connections import Linear as Linear
from spikeserve.models.spec.connections import Scale as Scale
from spikeserve.models.spec.joins import Concatenate as Concatenate
from spikeserve.models.spec.joins import JoinBase as JoinBase
from spikeserve.models.spec.joins import MatMul as MatMul
from spikeserve.models.spec.joins import Multiply as Multiply
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.neurons import ALIF as ALIF
from spikeserve.models.spec.neurons import IF as IF
from spikeserve.models.spec.neurons import LI as LI
from spikeserve.models.spec.neurons import LIF as LIF
from spikeserve.models.spec.neurons import RF as RF
from spikeserve.models.spec.neurons import AdLIF as AdLIF
from spikeserve.models.spec.neurons import Alpha as Alpha
from spikeserve.models.spec.neurons import CubaALIF as CubaALIF
from spikeserve.models.spec.neurons import CubaLI as CubaLI
from spikeserve.models.spec.neurons import CubaLIF as CubaLIF
from spikeserve.models.spec.neurons import Firing as Firing
from spikeserve.models.spec.neurons import I as I
from spikeserve.models.spec.neurons import Leaky as Leaky
from spikeserve.models.spec.neurons import NeuronBase as NeuronBase
from spikeserve.models.spec.neurons import Recurrent as Recurrent
from spikeserve.models.spec.neurons import SpikingBase as SpikingBase
from spikeserve.models.spec.neurons import Threshold as Threshold
from spikeserve.models.spec.node_base import NodeBase as NodeBase
from spikeserve.models.spec.parameters import MAX_STEPS
from spikeserve.models.spec.pools import AvgPool1d as AvgPool1d
from spikeserve.models.spec.pools import AvgPool2d as AvgPool2d
from spikeserve.models.spec.pools import MaxPool1d as MaxPool1d
from spikeserve.models.spec.pools import MaxPool2d as MaxPool2d
from spikeserve.models.spec.pools import Pool2d as Pool2d
from spikeserve.models.spec.pools import SumPool1d as SumPool1d
from spikeserve.models.spec.pools import SumPool2d as SumPool2d
from spikeserve.models.spec.program_neurons import ProgramBase as ProgramBase
from spikeserve.models.spec.program_neurons import ProgramIntegrator as ProgramIntegrator
from spikeserve.models.spec.program_neurons import ProgramNeuron as ProgramNeuron
from spikeserve.models.spec.shapes import Flatten as Flatten
from spikeserve.models.spec.shapes import Permute as Permute
from spikeserve.models.spec.shapes import Reshape as Reshape
from spikeserve.models.spec.windows import ONE_ROW as ONE_ROW
from spikeserve.models.spec.windows import Axis as Axis

Conv = Conv1d | Conv2d
ConvTranspose = ConvTranspose1d | ConvTranspose2d
Weighted = Linear | Conv1d | Conv2d | ConvTranspose1d | ConvTranspose2d
SumPool = SumPool1d | SumPool2d
AvgPool = AvgPool1d | AvgPool2d
MaxPool = MaxPool1d | MaxPool2d
Pool = SumPool | AvgPool | MaxPool
Moved = Flatten | Reshape | Permute  # which move values and compute nothing
Spiking = IF | LIF | CubaLIF | ALIF | CubaALIF | AdLIF | Alpha | RF | Threshold | ProgramNeuron
Integrating = I | LI | CubaLI | ProgramIntegrator
Neuron = Spiking | Integrating
Node = Annotated[
    Weighted | Pool | Moved | Multiply | Concatenate | MatMul | Scale | Delay | Neuron, Field(discriminator="type")
]

# The closed interval of each array's values; a number is checked by its field.
ARRAY_RANGES: Mapping[str, tuple[float, float]] = {
    **{name: (parameter.low, parameter.high) for name, parameter in NEURON_PARAMETERS.items()},
    "delay": (0.0, MAX_STEPS),
}
WHOLE = frozenset({"delay"})  # arrays of whole numbers
