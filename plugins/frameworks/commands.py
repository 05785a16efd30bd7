"""`spikeserve import snntorch|spikingjelly|norse|sinabs|torch`, and `verify` against the framework's own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from spikeserve.plugins.frameworks import NAMES
from spikeserve.plugins.frameworks.compare import (
    ANSWER,
    FirstDifference,
    LayerParity,
    compare,
    judged,
    random_run,
    table,
)
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.entry import Weights, load_network
from spikeserve.plugins.frameworks.framework import Framework, find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.commands.flags import flags_of
from spikeserve.training.commands.groups import console
from spikeserve.training.errors import InvalidEntry
from spikeserve.training.importers.options import ImportedNetwork
from spikeserve.training.report import card as report_card
from spikeserve.training.report.parity import COMPARED

FLAGS = tuple(flags_of(FrameworkOptions, checked=True))


class FrameworkImporter:
    """Takes in a network of a framework's modules, compared with what they make of random samples themselves."""

    options = FrameworkOptions
    source = "Your own code: package.module:factory."
    checked = ()
    compared = ("state_dict", "rename", "batch", "answer", "start")

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, source: str, options: FrameworkOptions) -> ImportedNetwork:
        """Return the network that a factory makes, and show how it was compared.

        Raises InvalidEntry, NotConvertible, InvalidGraph or InvalidSpec.
        """
        framework = find(self.name)
        converted = convert(load_network(source, _weights(options)), framework, options)
        network = converted.network
        console.print(f"Its forward takes {converted.graph.layout}; {options.time_steps} steps a sample")
        layers, parted = _compared(converted, network, framework)
        other = [origin for origin in parted if not origin.is_rounding]
        notes = {"Notes": "\n\n".join(converted.notes)} if converted.notes else {}
        return ImportedNetwork(
            network,
            f"A spiking network from {framework.name} {framework.version}: {len(network.spec.nodes)} nodes, "
            f"{network.parameter_count} parameters",
            {"Rule": f"{framework.name} {framework.rule}; each node of the spec says its own"},
            notes | {f"Agreement with {framework.name}": _agreement(framework, layers, other)},
            notes=converted.notes,
            refusal=f"{_disagreement(other)}; --publish-anyway publishes it"
            if other and not options.publish_anyway
            else "",
        )

    def compare(self, network: Network, source: str, typed: Mapping[str, Any]) -> bool:
        """Run a network and the framework's own module on the same inputs; return whether a spike differs."""
        framework, spec = find(self.name), network.spec
        said = {name: getattr(spec.input, name) for name in type(spec.input).model_fields if name != "shape"}
        said |= {name: getattr(spec, name) for name in ("time_steps", "coding", "readout", "labels")}
        options = FrameworkOptions.read({"input_shape": spec.input.shape} | said | dict(typed))
        converted = convert(load_network(source, _weights(options)), framework, options)
        own = [node.name for node in spec.nodes]
        if missing := sorted(converted.places.keys() - set(own)):
            raise InvalidEntry(
                f"against: the network's '{missing[0]}' is no node of the bundle, which has {', '.join(own)}"
            )
        parity, parted = _compared(converted, network, framework)
        layers = [row for row in parity if row.node != ANSWER]
        differing = sum(row.differing for row in parity)
        for row in parity[len(layers) :]:
            console.print(f"{row.differing} of {row.neuron_steps} values that its forward returns differ")
        total = sum(row.neuron_steps for row in layers)
        console.print(f"{sum(row.differing for row in layers)} of {total} neuron-steps differ")
        if differing:
            told = next((origin for origin in parted if not origin.is_rounding), parted[0])
            console.print(f"in {len(parted)} of {COMPARED} samples: {told}")
        return differing > 0


snntorch, spikingjelly, norse, sinabs, torch, _ = map(FrameworkImporter, NAMES)


def _weights(options: FrameworkOptions) -> Weights | None:
    if options.state_dict is not None:
        return Weights(options.state_dict, options.rename)
    if options.rename is not None:
        raise InvalidEntry(f"rename: it is '{options.rename}', but there is no --state-dict whose keys it is about")
    return None


def _disagreement(other: Sequence[FirstDifference]) -> str:
    """Return how a network is another than its framework's, by the samples in which it is not rounding."""
    return f"{len(other)} of {COMPARED} random samples differ from its framework by more than rounding: {other[0]}"


def _compared(
    converted: ConvertedNetwork, network: Network, framework: Framework
) -> tuple[list[LayerParity], list[FirstDifference]]:
    """Compare a network with a framework's modules on random samples, and show it; return also where samples part."""
    inputs, theirs, factor = random_run(converted, framework, COMPARED)
    parity = compare(converted, theirs, ReferenceEngine(network), inputs)
    title = f"{framework.name} {framework.version} against the reference engine, {COMPARED} random samples"
    console.print(table(parity, title if factor == 1 else f"{title} times {factor} so that neurons spike"))
    for row in parity:
        if row.spikes == 0:
            console.print(f"'{row.node}' was silent on these samples, which says little", highlight=False)
    if not any(row.spikes for row in parity) and any(row.spikes == 0 for row in parity):
        console.print("No neuron fired in any sample, so the comparison shows nothing of their rules")
    return parity, judged(parity, network, inputs)


def _agreement(framework: Framework, layers: Sequence[LayerParity], other: Sequence[FirstDifference]) -> str:
    """Return the card's section on how a network compares with its framework's modules."""
    rows = [(layer.node, f"`{layer.module}`", f"{layer.differing} of {layer.neuron_steps}") for layer in layers]
    agreement = (
        f"Neuron-steps in which the reference engine and {framework.name}'s own modules differ, on random inputs. Sums "
        "may round in another order, so that a membrane within rounding of its threshold may fall otherwise.\n\n"
    )
    if other:
        agreement = f"**It computes something else than its framework.** {_disagreement(other)}.\n\n{agreement}"
    return agreement + report_card.table(("node", "module", "differing"), rows)
