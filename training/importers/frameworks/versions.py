"""A network with the arithmetic of each release of its framework, and which release fits a bundle or a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from packaging.version import Version

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.compare import Outputs, compare, judged
from spikeserve.training.importers.frameworks.convert import Converted, convert_graph
from spikeserve.training.importers.frameworks.framework import Framework
from spikeserve.training.importers.frameworks.graph import Graph


def trained_by(converted: Converted, framework: Framework, options: Options, release: Version) -> Converted:
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

    def _converted(self) -> Iterator[tuple[Version, Converted]]:
        """Convert the network with each arithmetic; a release that had not what it needs is left out."""
        for group in self.framework.releases.groups:
            with suppress(NotConvertible):
                yield group[-1], convert_graph(self.graph, self.framework, self.options, group[-1])

    def _named(self, releases: list[Version]) -> str:
        return f"{self.framework.name} {self.framework.releases.span(*releases)}"


def _same(network: Network, other: Network) -> bool:
    """Return whether two networks have the same nodes and tensors."""
    return (
        network.spec.nodes == other.spec.nodes
        and network.tensors.keys() == other.tensors.keys()
        and all(np.array_equal(tensor, other.tensors[name]) for name, tensor in network.tensors.items())
    )
