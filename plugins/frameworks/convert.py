"""From a framework's network to ours: its graph, and the same layers, thresholds, resets and delays as data.

A network of nothing but containers (nn.Sequential and a framework's own) says its order. Any other is run on random
values in each layout that its forward might take, until one folds into a graph of one step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from torch import nn

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Flatten, Integrating, Node, Scale, Spiking
from spikeserve.models.spec.parameters import show
from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks.entry import first_line
from spikeserve.plugins.frameworks.framework import Findings, Framework, Layer, TimeAxes
from spikeserve.plugins.frameworks.function_modules import ConvOverTime
from spikeserve.plugins.frameworks.layouts import BATCH, layouts
from spikeserve.plugins.frameworks.modifications import changes, global_hooks
from spikeserve.plugins.frameworks.nouns import INPUT, Graph, GraphReadout
from spikeserve.plugins.frameworks.nouns import Node as GraphNode
from spikeserve.plugins.frameworks.operations import cure_of
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.plugins.frameworks.torch import MODULES
from spikeserve.plugins.frameworks.traced_run import TracedRun, rest
from spikeserve.training.errors import InvalidGraph, NotConvertible, OtherLayout, RepeatedStep
from spikeserve.training.importers.builder import Builder, Draft

PROBABILITIES = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)
DESCENDED = (nn.ReLU, nn.Unflatten, *PROBABILITIES)  # torch's own that are traced as functions
PLACES = {TimeAxes.STEP: 0, TimeAxes.TIME_FIRST: 1, TimeAxes.BATCH_FIRST: 2, TimeAxes.MERGED: 4}  # among the layouts
NUMBERS = r"\b(?!1\b)[1-9]\d{0,2}\b"  # that may be sizes, in what an author's code raises
MAX_TRIED = 3  # of them


@dataclass(frozen=True)
class ConvertedNetwork:
    """A network, and where it came from: the graph of modules, and for each neuron's node its place in it."""

    network: Network
    graph: Graph
    places: Mapping[str, int]
    notes: tuple[str, ...]


def convert(module: nn.Module, framework: Framework, options: FrameworkOptions) -> ConvertedNetwork:
    """Convert a network.

    Its neurons compute as those of the installed release. Raises NotConvertible with a line for each thing that cannot
    be converted, InvalidGraph and InvalidSpec.
    """
    graph = graph_of(module, framework, options)
    builder, findings = Builder(options.input_shape), Findings()
    outputs: dict[int, list[str]] = {INPUT: ["input"]}
    places: dict[str, int] = {}
    for index in graph.needed:
        node = graph.nodes[index]
        if node.module is None:
            continue
        builder.follow(_sources(graph, node, outputs, builder))
        before = len(builder.nodes)
        alone = len(node.sources) == 1 and graph.users(node.sources[0]) == 1
        layer = Layer(node.path, node.module, builder, findings, node.where, alone)
        _convert(layer, framework)
        outputs[index] = builder.sources
        places |= {made.name: index for made in builder.nodes[before:] if isinstance(made, Spiking | Integrating)}
    convolutions = [graph.nodes[index].module for index in graph.needed]
    shape = show(options.input_shape)
    if any(isinstance(module, ConvOverTime) for module in convolutions):
        findings.notes.append(f"Its Conv1d runs over time, of which each step has the shape {shape}.")
    if any(isinstance(module, nn.Conv1d) for module in convolutions):
        findings.notes.append(
            f"Its Conv1d runs along the length within a step of shape {shape}; to run over time, --input-shape is that "
            "of one step."
        )
    if findings.refusals:
        raise NotConvertible.because(findings.refusals)
    if builder.nodes:  # a network without any is refused below
        _read(graph, builder, outputs, findings)
    dt = findings.steps.pop() if len(findings.steps) == 1 else None
    if options.coding is None and graph.repeats_input:
        options = options.model_copy(update={"coding": Coding.DIRECT})
    network = builder.network(options, dt=dt, readout=findings.readout)
    return ConvertedNetwork(network, graph, places, tuple(findings.notes))


def _sources(graph: Graph, node: GraphNode, outputs: dict[int, list[str]], builder: Builder) -> list[str]:
    """Return the names whose outputs a node sums, in the order in which its author adds them."""
    named = [_names(graph, source, outputs, builder) for source in node.sources]
    if not node.joins:
        return named[0]
    return [names[0] if len(names) == 1 else _one_node(names, node.path, builder) for names in named]


def _names(graph: Graph, index: int, outputs: dict[int, list[str]], builder: Builder) -> list[str]:
    if index in outputs:
        return outputs[index]
    names: list[str] = []
    for term in graph.terms(index):
        own = _names(graph, term, outputs, builder) if term != index else []
        if names and len(own) > 1:
            own = [_one_node(own, graph.nodes[term].path, builder)]
        if set(own) & set(names):  # added twice: a sum takes each of its inputs once
            names = [_one_node(names, graph.nodes[index].path, builder)]
        names = [*names, *own]
    outputs[index] = names
    return names


def _one_node(names: list[str], name: str, builder: Builder) -> str:
    """Return a node that gives a sum as it is: times one."""
    builder.follow(names)
    return builder.add(Draft(name, Scale, {"scale": np.float64(1.0)}))


def _read(graph: Graph, builder: Builder, outputs: dict[int, list[str]], findings: Findings) -> None:
    """Put the answer's node last, and note its readout over time."""
    readout = graph.readout
    names = _names(graph, readout.node, outputs, builder)
    if len(names) > 1 or names != [builder.last]:
        _one_node(names, "output", builder)
    read = next((node for node in reversed(builder.nodes) if not isinstance(node, Flatten)), builder.nodes[-1])
    findings.readout = findings.readout or _readout(readout, read, findings)
    if readout.note:
        findings.notes.append(readout.note)
    if readout.sigmoid:
        findings.notes.append("Its last sigmoid is left out; probabilities are a softmax of the values before it.")


def _readout(readout: GraphReadout, last: Node, findings: Findings) -> Readout | None:
    """Return the readout that a forward's own reduction over time is, None for what is usual of the last node."""
    if readout.over is not None:
        if readout.factor != 1.0:
            findings.notes.append(
                f"Its forward scales what it reads by {readout.factor:g}, which the readout does not."
            )
        if readout.over is Reduction.SUM and isinstance(last, Spiking) and not readout.membrane:
            return Readout.SPIKE_COUNT
        return Readout(f"{readout.over}_membrane" if readout.membrane else readout.over)
    if not readout.membrane and isinstance(last, Spiking | Integrating):
        return None
    chosen = Readout.MAX_MEMBRANE if readout.membrane else Readout.MEAN
    what = "the membrane of its last neuron" if readout.membrane else "its last layer"
    findings.notes.append(
        f"Its forward returns {what} at every step and not how an answer is read from them: here {chosen}, unless "
        "--readout says another."
    )
    return chosen


def _convert(layer: Layer, framework: Framework) -> None:
    try:
        kind = framework.kind(layer.module)
        if kind is not None:
            framework.rules[kind](layer)
            return
        known = next((kind for kind in framework.rules if isinstance(layer.module, kind)), None)
        if known is not None:
            layer.refuse(
                "its class", f"a subclass of {known.__name__} may compute something else; expected that itself"
            )
        else:
            layer.refuse("its class", f"no rule converts it{cure_of(type(layer.module).__name__)}")
    except (InvalidGraph, InvalidSpec) as error:
        layer.refuse("its parameters" if isinstance(error, InvalidGraph) else "its input", str(error))
    for name in layer.builder.sources:  # what follows may be refused for faults of its own, but for no shape
        layer.builder.shapes[name] = None


def graph_of(network: nn.Module, framework: Framework, options: FrameworkOptions) -> Graph:
    """Return a network's graph of one step; raises NotConvertible by one sentence where it is none."""
    network = framework.unwrap(network)
    leaves, own = _modules(network, framework, descended=())
    _require_genuine(leaves)
    ends = options.time_steps == 1 and any(type(module) in PROBABILITIES for _, module in leaves[-1:])
    if not own and not ends and not _is_over_time(leaves, options):
        return _chain(leaves, framework, options)
    leaves, _ = _modules(network, framework, descended=DESCENDED)
    return _traced(network, framework, {module: path for path, module in reversed(leaves)}, options)


def _modules(
    network: nn.Module, framework: Framework, *, descended: tuple[type[nn.Module], ...]
) -> tuple[list[tuple[str, nn.Module]], list[nn.Module]]:
    """Return the modules that rules convert, in order and repeated, and those with a forward of their own."""
    leaves: list[tuple[str, nn.Module]] = []
    own: list[nn.Module] = []

    def collect(module: nn.Module, path: str) -> None:
        if _is_leaf(module, framework, descended):
            leaves.append((path, module))
            return
        if not framework.passes_on(module):
            own.append(module)
        for name, child in module._modules.items():  # repeated ones too
            if child is not None:
                collect(child, f"{path}.{name}" if path else name)

    collect(network, "")
    return leaves, own


def _is_leaf(module: nn.Module, framework: Framework, descended: tuple[type[nn.Module], ...]) -> bool:
    kind = type(module)
    if isinstance(module, nn.Flatten) and module.start_dim > 0 and (module.start_dim, module.end_dim) != (1, -1):
        return False  # of some axes, which only a run tells
    if framework.kind(module) is not None and kind not in descended:
        return True
    if kind in framework.containers or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    if isinstance(module, tuple(framework.rules)):
        return kind.__module__.startswith("torch.") and kind not in descended  # an author's own forward is traced
    return not module._modules and kind.__module__.startswith("torch.") and kind not in descended


def _require_genuine(leaves: list[tuple[str, nn.Module]]) -> None:
    """Raise NotConvertible where a module that a rule converts computes something else than its class says."""
    modified = [
        f"{path or '(the network itself)'}: {change}"
        for path, module in dict(leaves).items()
        for change in changes(module)
    ]
    if refused := [*global_hooks(), *modified]:
        raise NotConvertible.because(refused)


def _is_over_time(leaves: list[tuple[str, nn.Module]], options: FrameworkOptions) -> bool:
    """Return whether a Conv1d among modules in order runs over time: a step has no axis but that of its channels."""
    shaping = (module for _, module in leaves if isinstance(module, nn.Conv1d | nn.Unflatten))
    return len(options.input_shape) == 1 and isinstance(next(shaping, None), nn.Conv1d)


def _chain(leaves: list[tuple[str, nn.Module]], framework: Framework, options: FrameworkOptions) -> Graph:
    """Return the graph of modules in order."""
    shared = [
        f"{path}: it is the same module as another's, and would share its state"
        for place, (path, module) in enumerate(leaves)
        if type(module) not in MODULES and any(module is other for _, other in leaves[:place])
    ]
    if shared:
        raise NotConvertible.because(shared)
    nodes = [GraphNode("input", None)]
    for path, module in leaves:
        nodes.append(GraphNode(path, module, (len(nodes) - 1,)))
    place = next((PLACES[takes] for _, module in leaves if (takes := framework.takes(module)) is not None), 0)
    layout = next(islice(layouts(options.input_shape, options.time_steps or 1, BATCH), place, None))
    return Graph(tuple(nodes), GraphReadout(len(nodes) - 1), layout=layout.of_any_batch)


def _traced(network: nn.Module, framework: Framework, leaves: dict[nn.Module, str], options: FrameworkOptions) -> Graph:
    """Run a network in each layout until one gives a graph; the refusal is that of the layout that came furthest.

    Where none does and no batch is said, the numbers that the error names are tried as one.
    """
    time_steps, batch = options.time_steps or 1, options.batch or BATCH
    refused: list[tuple[tuple[int, ...], str, str]] = []
    for run in _by_shapes(network, framework, leaves, options):
        try:
            graph = run.graph()
            _require_same_for_other_sizes(run, time_steps, batch)
        except NotConvertible as error:
            # A forward that takes a sample out of the batch, or loops over one step, was given another layout than its.
            other = isinstance(error, OtherLayout) or (run.layout.by_step and isinstance(error, RepeatedStep))
            refused.append((_progress(run, 0 if other else 2), f"given {run.layout}: {error}", ""))
        except (Exception, SystemExit) as error:  # the author's own code may raise anything
            line, own = run.tracer.line_of(error), run.tracer.own_line_of(error)
            fails = f"the importer fails in its {own}, a fault to report, at" if own else "its forward fails:"
            sentence = f"given {run.layout}, {fails} {line}: {first_line(error)}"
            refused.append((_progress(run, 1), sentence, first_line(error)))
        else:
            return _of_one_sample(run, batch) or graph
        finally:
            with suppress(Exception, SystemExit):
                rest(network)
    _, sentence, raised = max(refused)
    sizes = sorted({int(each) for each in re.findall(NUMBERS, raised)})[:MAX_TRIED]
    for number in sizes if options.batch is None else ():
        with suppress(NotConvertible):
            _traced(network, framework, leaves, options.model_copy(update={"batch": number}))
            sentence += f"; with --batch {number} it runs"
            break
    raise NotConvertible(f"the network ({type(network).__name__}) cannot be folded into a graph: {sentence}")


def _of_one_sample(first: TracedRun, batch: int) -> Graph | None:
    """Return the graph of a network that takes steps, but also one sample which it repeats; None of any other."""
    options = first.options
    if not first.layout.steps or first.layout.by_step or options.coding is not None:
        return None
    ways = layouts(options.input_shape, options.time_steps or 1, batch)
    place, layout = next((place, layout) for place, layout in enumerate(ways) if not layout.steps)
    with suppress(Exception, SystemExit):
        alone = replace(first, layout=layout, place=place)
        graph = alone.graph() if alone.is_possible() else None
        return graph if graph and graph.repeats_input else None
    return None


def _require_same_for_other_sizes(first: TracedRun, steps: int, batch: int) -> None:
    """Raise NotConvertible where a forward computes something else of more samples, more steps or other values.

    A forward may take no other number of samples or of steps than the given one; other values it has to take.
    """
    if first.also_holds(steps + 1, batch + 2):
        return
    if not (first.also_holds(steps, batch + 2) | first.also_holds(steps + 1, batch)):
        first.also_holds(steps, batch, must_run=True)


def _by_shapes(
    network: nn.Module, framework: Framework, leaves: dict[nn.Module, str], options: FrameworkOptions
) -> Iterator[TracedRun]:
    """Yield a forward's runs in each layout: those last that fail by their shapes, to say how."""
    failing: list[TracedRun] = []
    shape, time_steps, batch = options.input_shape, options.time_steps or 1, options.batch or BATCH
    for place, layout in enumerate(layouts(shape, time_steps, batch)):
        run = TracedRun(network, framework, leaves, options, layout, place)
        if run.is_possible():
            yield run
        else:
            failing.append(run)
    yield from failing


def _progress(run: TracedRun, trust: int) -> tuple[int, ...]:
    """Return how far a run came, to compare with those in other layouts, of which the first counts among equals."""
    tracer = run.tracer
    return tracer.most_calls, len(tracer.step_graph.nodes) + tracer.along_time, trust, -run.place
