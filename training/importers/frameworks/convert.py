"""From a framework's network to ours: the same layers, thresholds, resets and delays, as data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from models.errors import InvalidSpec
from models.spec import Coding, Input, Readout, Spec
from models.spec.network import Network
from models.spec.nodes import Integrating, Spiking
from models.spec.parameters import Shape
from training.importers.frameworks.builder import Builder, Layer
from training.importers.frameworks.chain import Link, chain_of
from training.importers.frameworks.connections import flatten_whole
from training.importers.frameworks.errors import NotConvertible
from training.importers.frameworks.framework import Framework


@dataclass(frozen=True)
class Served:
    """What a module's numbers do not say: what is sent, for how long, and what is answered.

    `readout` by default is the spike count, or of a last layer that does not fire what it says, or the largest
    membrane; `labels` are the outputs' numbers by default.
    """

    input_shape: Shape
    time_steps: int
    coding: Coding = Coding.SPIKES
    readout: Readout | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Converted:
    """A network, and where it came from: the chain of modules, and for each neuron's node its place in it."""

    network: Network
    links: tuple[Link, ...]
    places: dict[str, int]
    notes: tuple[str, ...]


def convert(module: nn.Module, framework: Framework, served: Served) -> Converted:
    """Convert a network; raises NotConvertible with a line for each thing that cannot be, and InvalidSpec."""
    links = chain_of(module, framework, served.input_shape, served.time_steps)
    builder = Builder(shape=served.input_shape)
    places: dict[str, int] = {}
    for place, link in enumerate(links):
        made = len(builder.nodes)
        _convert(Layer(link.path, link.module, builder), framework, flattens=link.flattens)
        places |= {node.name: place for node in builder.nodes[made:] if isinstance(node, Spiking | Integrating)}
    if builder.refusals:
        raise NotConvertible.because(builder.refusals)
    if not builder.nodes or builder.shape is None:
        raise InvalidSpec("the network has no layer")
    labels = served.labels or tuple(map(str, range(builder.shape[0])))
    spec = Spec.read(
        {
            "input": Input(shape=served.input_shape),
            "coding": served.coding,
            "time_steps": served.time_steps,
            "dt": builder.steps.pop() if len(builder.steps) == 1 else None,
            "nodes": builder.nodes,
            "readout": served.readout or builder.readout or _usual(builder),
            "labels": labels,
        }
    )
    return Converted(Network(spec, builder.tensors), tuple(links), places, tuple(builder.notes))


def _convert(layer: Layer, framework: Framework, *, flattens: bool) -> None:
    if flattens:
        flatten_whole(Layer(f"{layer.path}_flat", layer.module, layer.builder))
    rule = framework.rules.get(type(layer.module))
    if rule is not None:
        rule(layer)
        return
    known = next((kind for kind in framework.rules if isinstance(layer.module, kind)), None)
    if known is not None:
        layer.refuse("its class", f"a subclass of {known.__name__} may compute something else; expected that itself")
    else:
        layer.refuse("its class", "no rule converts it")
    layer.builder.shape = None


def _usual(builder: Builder) -> Readout:
    return Readout.MAX_MEMBRANE if isinstance(builder.nodes[-1], Integrating) else Readout.SPIKE_COUNT
