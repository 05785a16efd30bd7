"""The cost of an update in NeuroBench's NeuronOperations, for which its harness has numbers of three equations."""

from __future__ import annotations

from collections.abc import Mapping

from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import LIF, Alpha, CubaLIF, Neuron
from spikeserve.models.spec.rules import Charge, Reset, Synapse

# The harness' numbers are by snnTorch's classes Leaky, Synaptic and Alpha, which become these nodes, and their resets.
# It has some for Lapicque too, which becomes a LIF here and computes the same; and none for any other class or reset.
OPERATIONS: Mapping[tuple[str, Reset], int] = {
    ("LIF", Reset.SUBTRACT): 4,
    ("LIF", Reset.VALUE): 4,
    ("CubaLIF", Reset.SUBTRACT): 6,
    ("CubaLIF", Reset.VALUE): 8,
    ("Alpha", Reset.SUBTRACT): 18,
    ("Alpha", Reset.VALUE): 24,
}


def update_operations(network: Network) -> tuple[dict[str, int], list[str]]:
    """Return the operations of an update by neuron node, and the names of those that the harness has no number for."""
    numbers = {node.name: _operations(node) for node in network.spec.nodes if isinstance(node, Neuron)}
    known = {name: number for name, number in numbers.items() if number is not None}
    return known, [name for name in numbers if name not in known]


def _operations(node: Neuron) -> int | None:
    if not isinstance(node, LIF | CubaLIF | Alpha) or node.recurrent is not None:
        return None
    of_snntorch = getattr(node, "charge", Charge.DECAY) is Charge.DECAY
    of_snntorch &= getattr(node, "synapse", Synapse.DECAY) is Synapse.DECAY
    return OPERATIONS.get((node.type, node.reset)) if of_snntorch else None
