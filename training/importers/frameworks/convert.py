"""From a framework's network to ours: the same layers, thresholds, resets and delays, as data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from models.errors import InvalidInput, InvalidSpec
from models.spec.network import Network
from models.spec.nodes import Integrating, Spiking
from training.errors import InvalidGraph, NotConvertible
from training.importers.builder import Builder, Options
from training.importers.frameworks.chain import Link, chain_of
from training.importers.frameworks.framework import Framework
from training.importers.frameworks.layer import Findings, Layer
from training.importers.frameworks.torch_modules import flatten_whole


@dataclass(frozen=True)
class Converted:
    """A network, and where it came from: the chain of modules, and for each neuron's node its place in it."""

    network: Network
    links: tuple[Link, ...]
    places: dict[str, int]
    notes: tuple[str, ...]


def convert(module: nn.Module, framework: Framework, options: Options) -> Converted:
    """Convert a network; modules do not say their `input_shape` and `time_steps`, so that the options must.

    Raises NotConvertible with a line for each thing that cannot be converted, InvalidGraph and InvalidSpec.
    """
    if options.input_shape is None or options.time_steps is None:
        raise InvalidInput("input_shape or time_steps is missing, which no module says")
    links = chain_of(module, framework, options.input_shape, options.time_steps)
    builder, findings = Builder(options.input_shape), Findings()
    places: dict[str, int] = {}
    for place, link in enumerate(links):
        before = len(builder.nodes)
        layer = Layer(link.path, link.module, builder, findings)
        try:
            _convert(layer, framework, flattens=link.flattens)
        except (InvalidGraph, InvalidSpec) as error:
            layer.refuse("its parameters" if isinstance(error, InvalidGraph) else "its input", str(error))
            builder.shapes[builder.last] = None  # what follows may be refused for faults of its own, but for no shape
        places |= {node.name: place for node in builder.nodes[before:] if isinstance(node, Spiking | Integrating)}
    if findings.refusals:
        raise NotConvertible.because(findings.refusals)
    dt = findings.steps.pop() if len(findings.steps) == 1 else None
    network = builder.network(options, dt=dt, readout=findings.readout)
    return Converted(network, tuple(links), places, tuple(findings.notes))


def _convert(layer: Layer, framework: Framework, *, flattens: bool) -> None:
    if flattens:
        flatten_whole(layer, f"{layer.name}_flat")
    rule = framework.rules.get(type(layer.module))
    if rule is not None:
        rule(layer)
        return
    known = next((kind for kind in framework.rules if isinstance(layer.module, kind)), None)
    if known is not None:
        layer.refuse("its class", f"a subclass of {known.__name__} may compute something else; expected that itself")
    else:
        layer.refuse("its class", "no rule converts it")
    layer.builder.shapes[layer.builder.last] = None
