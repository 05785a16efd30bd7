"""Releases of a framework: a network with the arithmetic of each, and which of them fits a bundle or a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from packaging.version import Version

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.training.data.numpy_files import Npz, open_npz
from spikeserve.training.errors import InvalidData, NotConvertible
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.compare import Outputs, compare, judged
from spikeserve.training.importers.frameworks.convert import ConvertedNetwork, convert_graph
from spikeserve.training.importers.frameworks.framework import Framework
from spikeserve.training.importers.frameworks.graph import Graph

if TYPE_CHECKING:
    from spikeserve.training.importers.frameworks.compare import Outputs

INPUT = "input"


def read_trace(path: Path, converted: ConvertedNetwork) -> tuple[DenseInputs, Outputs]:
    """Read a trace: the `input` of each step, and under the path of each neuron's module the spikes that it gave.

    All are (time_steps, samples, *shape); an `input` of one step is the same at all. Layers may be missing. Raises
    InvalidData for a name that is no neuron's, and an array of another shape.
    """
    spec = converted.network.spec
    places = {converted.graph.nodes[place].path: place for place in converted.places.values()}
    nodes = {place: node for node, place in converted.places.items()}
    with open_npz(path) as file:
        recorded = [name for name in file.names if name != INPUT]
        if INPUT not in file.names or not recorded:
            raise InvalidData(
                f"'{path}' has {', '.join(file.names) or 'nothing'}, expected '{INPUT}' and the spikes of at least one "
                f"of {', '.join(places)}"
            )
        if unknown := sorted(set(recorded) - places.keys()):
            raise InvalidData(f"'{path}': '{unknown[0]}' is no neuron of the network, which has {', '.join(places)}")
        steps = _array(file, INPUT, spec.input.shape)
        spikes = {name: _array(file, name, spec.output_shapes[nodes[places[name]]]) for name in recorded}
    time_steps = len(spikes[recorded[0]])
    for name, array in {INPUT: steps, **spikes}.items():
        if array.shape[1] != steps.shape[1] or len(array) not in ({1, time_steps} if name == INPUT else {time_steps}):
            raise InvalidData(
                f"'{path}': '{name}' has {len(array)} steps of {array.shape[1]} samples, expected "
                f"{time_steps} steps of {steps.shape[1]} samples"
            )
    return DenseInputs(steps, time_steps), {places[name]: (array, None) for name, array in spikes.items()}


def _array(file: Npz, name: str, shape: Shape) -> FloatArray:
    array = file.read(name)
    if array.dtype.kind not in "biuf" or array.ndim < 2 or array[0, :1].size != np.prod(shape):
        raise InvalidData(
            f"'{file.path}': '{name}' has shape {show(array.shape)} of {array.dtype}, expected numbers: steps, samples "
            f"and {show(shape)}"
        )
    return array.astype(np.float32).reshape(*array.shape[:2], *shape)


def trained_by(
    converted: ConvertedNetwork, framework: Framework, options: Options, release: Version
) -> ConvertedNetwork:
    """Return a network with the arithmetic of another release, and a note of what that changes.

    The network itself has been compared with the modules of the installed release; these cannot show another one's.
    """
    past = convert_graph(converted.graph, framework, options, release)
    installed = converted.network.spec.nodes
    changed = [f"'{node.name}'" for node in past.network.spec.nodes if node not in installed]
    if not changed:
        note = f"{framework.name} {release} computes this network as the installed {framework.version} does."
    else:
        note = (
            f"Neurons that compute as in {framework.arithmetic(release)}: {', '.join(changed)}. Before that the "
            f"network was compared with the modules of {framework.version}, which is installed; `verify --trace` "
            f"compares the bundle with what {release} gave."
        )
    return replace(past, notes=(*past.notes, note))


@dataclass(frozen=True)
class Versions:
    """A graph of modules, and what it computes in each release of their framework."""

    graph: Graph
    framework: Framework
    options: Options

    def of_bundle(self, network: Network) -> str:
        """Return a sentence that says which releases compute exactly as the bundle's network does."""
        fits = [release for release, converted in self._converted() if _same(converted.network, network)]
        if not fits:
            return f"The bundle is this network in no release of {self.framework.name} whose arithmetic is known."
        return (
            f"The bundle computes as {self._named(fits)}, and {self.framework.version} is installed; --trace compares "
            "it with what another release gave."
        )

    def of_trace(self, inputs: DenseInputs, theirs: Outputs) -> str:
        """Return a sentence that says which releases give a trace, but for the rounding of sums."""
        fits: list[Version] = []
        differing: dict[Version, int] = {}
        for release, converted in self._converted():
            parity = compare(converted, theirs, ReferenceEngine(converted.network), inputs)
            if all(origin.is_rounding for origin in judged(parity, converted.network, inputs)):
                fits.append(release)
            differing[release] = sum(row.differing for row in parity)
        if fits:
            return f"The trace fits {self._named(fits)}: import it again with --trained-with {fits[-1]}."
        fewest = min(differing.values(), default=0)
        nearest = [release for release, count in differing.items() if count == fewest]
        near = f"; nearest is {self._named(nearest)}, from which {fewest} neuron-steps differ" if nearest else ""
        return f"The trace fits no release of {self.framework.name} whose arithmetic is known{near}."

    def _converted(self) -> Iterator[tuple[Version, ConvertedNetwork]]:
        """Convert the network with each arithmetic; a release that had not what it needs is left out."""
        for group in self.framework.releases.groups:
            with suppress(NotConvertible):
                yield group[-1], convert_graph(self.graph, self.framework, self.options, group[-1])

    def _named(self, releases: list[Version]) -> str:
        return f"{self.framework.name} {self.framework.releases.span(*releases)}"


def _same(network: Network, other: Network) -> bool:
    """Return whether two networks have the same nodes and tensors, however the weights are stored."""
    nodes, others = (each.spec.with_weight_bits({}).nodes for each in (network, other))
    return (
        nodes == others
        and network.tensors.keys() == other.tensors.keys()
        and all(np.array_equal(tensor, other.tensors[name]) for name, tensor in network.tensors.items())
    )
