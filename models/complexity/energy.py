"""Estimates of the energy that a network takes on a chip: published constants times counted operations.

An estimate compares designs; it is no measurement, and says nothing of the machine that ran the network. All constants
are of one source, in one process: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
figure 1.1.9: 45 nm at 0.9 V. Each constant names what it was compared with: publications that quote the figure. What is
counted, in picojoules per sample:

    operations      an addition for each effective AC, and a multiplication and an addition for each effective MAC
    with memory     the same; for each of these operations its weight is read, and the sum that it adds to is read and
                    written; each neuron takes a multiplication and an addition at each step, and its state is read and
                    written
    without spikes  the same layers as a network of 8-bit integers that does every operation of a pass: `operations` are
                    its multiplications and additions; with memory, each reads a weight and an input, sums stay in a
                    register, and each output is written once. A pass takes a whole sample, or one step of it where the
                    sample has a value for each step.

Accesses follow E. Lemaire et al., "An analytical estimation of spiking neural networks energy efficiency" (ICONIP 2022,
arXiv:2210.13107): each connection and each layer has memories of its own, as large as what they hold. A memory is the
smallest SRAM of the table that holds it, or else DRAM; an access of fewer than 64 bits takes its share of one; a write
takes what a read does. Left out are moving spikes between layers, reading the input, biases, pools, joins, delays,
control, and leakage. With 8-bit weights, sums and states are 32-bit integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spikeserve.models.complexity.connections import Connection
from spikeserve.models.engines.state import arrays_of
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Neuron

SOURCE = "Horowitz, ISSCC 2014, figure 1.1.9: 45 nm, 0.9 V"

# Publications that quote numbers of the figure, by which each constant was checked.
FRONTIERS = "PMC8934428, table 3"
ECOFLOW = "EcoFlow's simulator"
GIST = "V0XNIHILI's functions"
HAN = "Han et al. 2015, figure 1"


@dataclass(frozen=True)
class Constant:
    """One constant of the table: what it is of, its picojoules as `SOURCE` has them, and who quotes them."""

    of: str
    picojoules: float
    quoted_by: tuple[str, ...]


INT8_MULTIPLY = Constant("multiplication of 8-bit integers", 0.2, (GIST,))
INT32_ADD = Constant("addition of 32-bit integers", 0.1, (FRONTIERS, GIST, HAN))
FLOAT32_ADD = Constant("addition of float32", 0.9, (FRONTIERS, ECOFLOW, GIST, HAN))
FLOAT32_MULTIPLY = Constant("multiplication of float32", 3.7, (FRONTIERS, ECOFLOW, GIST, HAN))
SRAM_8K = Constant("access of 64 bits in 8 KiB of SRAM", 10.0, (FRONTIERS, ECOFLOW, GIST))
SRAM_32K = Constant("access of 64 bits in 32 KiB of SRAM", 20.0, (ECOFLOW, GIST))
SRAM_1M = Constant("access of 64 bits in 1 MiB of SRAM", 100.0, (ECOFLOW, GIST))
# The lower end of 1.3 to 2.6 nJ. That an access is of 64 bits is by way of Han et al., who have 640 pJ for 32.
DRAM = Constant("access of 64 bits in DRAM", 1300.0, (ECOFLOW, GIST, HAN))

CONSTANTS = (INT8_MULTIPLY, INT32_ADD, FLOAT32_ADD, FLOAT32_MULTIPLY, SRAM_8K, SRAM_32K, SRAM_1M, DRAM)
SRAM = ((2**13, SRAM_8K), (2**15, SRAM_32K), (2**20, SRAM_1M))

ASSUMPTIONS = (
    "an estimate from published constants, not a measurement, and not of the machine that ran the network",
    "each operation reads its weight, and reads and writes the sum that it adds to; a write takes what a read does",
    "each neuron takes a multiplication and an addition at each step, and its state is read and written",
    "each connection and each layer has memories of its own: the smallest SRAM that holds them, or else DRAM",
    "without spikes, every operation of a pass is done, and sums stay in a register; a pass takes a whole sample, or "
    "one step of it where it has a value for each step",
    "moving spikes, reading the input, biases, pools, joins, delays, control and leakage are left out",
)

# Each estimate by its name, and what it is of.
ESTIMATES: Mapping[str, str] = {
    "operations": "this network in float32: its effective ACs and MACs alone",
    "with_memory": "this network in float32: with neurons and memory traffic",
    "int8_operations": "this network with 8-bit weights: its effective ACs and MACs alone",
    "int8_with_memory": "this network with 8-bit weights: with neurons and memory traffic",
    "without_spikes_operations": "the same layers without spikes, 8-bit: every MAC of a pass alone",
    "without_spikes_with_memory": "the same layers without spikes, 8-bit: with memory traffic",
}


def access(size: int, memory: int) -> float:
    """Return the picojoules of reading or writing `size` bytes in a memory of so many bytes."""
    word = next((constant for most, constant in SRAM if memory <= most), DRAM)
    return word.picojoules * size / 8


@dataclass(frozen=True)
class Arithmetic:
    """A kind of numbers: the picojoules of an addition and a multiplication, and the bytes of a weight."""

    add: float
    multiply: float
    weight_bytes: int


STATE_BYTES = 4  # of a sum, a membrane or another state of a neuron
FLOAT32 = Arithmetic(FLOAT32_ADD.picojoules, FLOAT32_MULTIPLY.picojoules, 4)
INT8 = Arithmetic(INT32_ADD.picojoules, INT8_MULTIPLY.picojoules, 1)


@dataclass(frozen=True)
class Energy:
    """The estimates for one network, as picojoules of each thing that is counted.

    `traffic`: connection to picojoules of memory traffic for one operation, by the arithmetic; `neurons`: picojoules of
    all neurons in one step; `passes`: those of one pass without spikes, alone and with memory traffic.
    """

    traffic: Mapping[Arithmetic, Mapping[str, float]]
    neurons: Mapping[Arithmetic, float]
    passes: tuple[float, float]
    per_step: bool  # whether a pass is a step

    @classmethod
    def of(cls, network: Network, connections: Mapping[str, Connection]) -> Energy:
        """Return the estimates for a network."""
        both = (FLOAT32, INT8)
        return cls(
            {kind: {name: _traffic(each, kind) for name, each in connections.items()} for kind in both},
            {kind: _neurons(network, kind) for kind in both},
            _without_spikes(list(connections.values())),
            network.spec.coding.per_step,
        )

    def estimates(self, acs: Mapping[str, Any], macs: Mapping[str, Any], steps: Any, samples: Any) -> dict[str, Any]:
        """Return each estimate, in picojoules, by the names of `ESTIMATES`.

        `acs` and `macs` are effective operations by connection, and `steps` the steps that `samples` samples took, all
        of some samples together; or each is an array (batch,), with `samples` 1 for each.
        """
        estimates: dict[str, Any] = {}
        for kind, name in ((FLOAT32, ""), (INT8, "int8_")):
            operations = sum(
                (kind.add * acs[each] + (kind.add + kind.multiply) * macs[each] for each in acs), 0 * steps
            )
            traffic = sum(per_one * (acs[each] + macs[each]) for each, per_one in self.traffic[kind].items())
            estimates[f"{name}operations"] = operations
            estimates[f"{name}with_memory"] = operations + traffic + self.neurons[kind] * steps
        passes = steps if self.per_step else samples
        estimates["without_spikes_operations"] = self.passes[0] * passes
        estimates["without_spikes_with_memory"] = self.passes[1] * passes
        return estimates


def _traffic(connection: Connection, kind: Arithmetic) -> float:
    """Return the energy with which one operation reads its weight, and reads and writes the sum that it adds to."""
    weight = access(kind.weight_bytes, connection.weights * kind.weight_bytes)
    return weight + 2 * access(STATE_BYTES, connection.outputs * STATE_BYTES)


def _neurons(network: Network, kind: Arithmetic) -> float:
    """Return the energy of one step of all neurons: a multiplication, an addition, and its state read and written."""
    held, total = arrays_of(network), 0.0
    for node in network.spec.nodes:
        if isinstance(node, Neuron):
            states = [name for name in held if name.rpartition(".")[0] == node.name and not name.endswith(".spikes")]
            neurons = math.prod(network.spec.output_shapes[node.name])
            one = access(STATE_BYTES, STATE_BYTES * len(states) * neurons)
            total += neurons * (kind.multiply + kind.add + 2 * len(states) * one)
    return total


def _without_spikes(connections: list[Connection]) -> tuple[float, float]:
    """Return the energy of one pass of the same connections as a network of 8-bit integers, alone and with memory."""
    alone = sum(each.dense for each in connections) * (INT8.multiply + INT8.add)
    traffic = sum(
        each.dense * (access(1, each.weights) + access(1, each.inputs)) + each.outputs * access(1, each.outputs)
        for each in connections
    )
    return alone, alone + traffic
