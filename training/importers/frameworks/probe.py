"""A network as a graph: its modules in order where it says so, or its own forward, run once and traced.

A network of nothing but containers (nn.Sequential and a framework's own) says its order. Any other is run on random
values in each layout that its forward might take, until one folds into a graph of one step.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from torch import nn

from spikeserve.training.errors import NotConvertible, OtherLayout, RepeatedStep
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.entry import first_line
from spikeserve.training.importers.frameworks.framework import Framework
from spikeserve.training.importers.frameworks.graph import Graph, GraphReadout, Node
from spikeserve.training.importers.frameworks.modifications import changes, global_hooks
from spikeserve.training.importers.frameworks.signature import BATCH, layouts
from spikeserve.training.importers.frameworks.torch import MODULES
from spikeserve.training.importers.frameworks.traced_run import TracedRun, rest
from spikeserve.training.importers.frameworks.tracer import Tracer

DESCENDED = (nn.ReLU, nn.Softmax, nn.LogSoftmax, nn.Unflatten)  # torch's own that are traced as functions


def graph_of(network: nn.Module, framework: Framework, options: Options) -> Graph:
    """Return a network's graph of one step; raises NotConvertible by one sentence where it is none."""
    network = framework.unwrap(network)
    leaves, own = _modules(network, framework, descended=())
    _require_genuine(leaves)
    if not own:
        return _chain(leaves)
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
        return kind.__module__.startswith("torch.")  # an author's own forward is traced
    return not module._modules and kind.__module__.startswith("torch.") and kind not in descended


def _require_genuine(leaves: list[tuple[str, nn.Module]]) -> None:
    """Raise NotConvertible where a module that a rule converts computes something else than its class says."""
    found = [
        f"{path or '(the network itself)'}: {change}"
        for path, module in dict(leaves).items()
        for change in changes(module)
    ]
    if refused := [*global_hooks(), *found]:
        raise NotConvertible.because(refused)


def _chain(leaves: list[tuple[str, nn.Module]]) -> Graph:
    """Return the graph of modules in order."""
    shared = [
        f"{path}: it is the same module as another's, and would share its state"
        for place, (path, module) in enumerate(leaves)
        if type(module) not in MODULES and any(module is other for _, other in leaves[:place])
    ]
    if shared:
        raise NotConvertible.because(shared)
    nodes = [Node("input", None)]
    for path, module in leaves:
        nodes.append(Node(path, module, (len(nodes) - 1,)))
    return Graph(tuple(nodes), GraphReadout(len(nodes) - 1))


def _traced(network: nn.Module, framework: Framework, leaves: dict[nn.Module, str], options: Options) -> Graph:
    """Run a network in each layout until one gives a graph; the refusal is that of the layout that came furthest."""
    shape, time_steps = options.input_shape or (), options.time_steps or 1
    batch = options.batch or BATCH
    refused: list[tuple[tuple[int, int, int], str]] = []
    for place, layout in enumerate(layouts(shape, time_steps, batch)):
        first = TracedRun(network, framework, leaves, options, layout)
        try:
            graph = first.graph()
            _require_same_for_other_sizes(first, place, time_steps, batch)
        except NotConvertible as error:
            # A forward that takes a sample out of the batch, or loops over one step, was given another layout than its.
            other = isinstance(error, OtherLayout) or (layout.by_step and isinstance(error, RepeatedStep))
            sentence = f"given {layout.name}: {error}"
            refused.append((_progress(first.tracer, 0 if other else 2), sentence))
        except (Exception, SystemExit) as error:  # the author's own code may raise anything
            line = first.tracer.line_of(error)
            sentence = f"given {layout.name}, its forward fails: {line}: {first_line(error)}"
            hint = "; --batch and --time-steps say how many samples and steps it is tried with"
            refused.append((_progress(first.tracer, 1), sentence + hint))
        else:
            return _of_one_sample(first, batch) or graph
        finally:
            with suppress(Exception, SystemExit):
                rest(network)
    furthest = max(progress for progress, _ in refused)
    sentence = next(sentence for progress, sentence in refused if progress == furthest)
    raise NotConvertible(f"the network ({type(network).__name__}) cannot be folded into a graph: {sentence}")


def _of_one_sample(first: TracedRun, batch: int) -> Graph | None:
    """Return the graph of a network that takes steps, but also one sample which it repeats; None of any other."""
    options = first.options
    if not first.layout.steps or first.layout.by_step or options.coding is not None:
        return None
    ways = layouts(options.input_shape or (), options.time_steps or 1, batch)
    layout = next(layout for layout in ways if not layout.steps)
    with suppress(Exception, SystemExit):
        graph = replace(first, layout=layout).graph()
        return graph if graph.repeats_input else None
    return None


def _require_same_for_other_sizes(first: TracedRun, place: int, steps: int, batch: int) -> None:
    """Raise NotConvertible where a forward computes something else of more samples, more steps or other values.

    A forward may take no other number of samples or of steps than the given one; other values it has to take.
    """
    if first.also_holds(place, steps + 1, batch + 2):
        return
    if not (first.also_holds(place, steps, batch + 2) | first.also_holds(place, steps + 1, batch)):
        first.also_holds(place, steps, batch, must_run=True)


def _progress(tracer: Tracer, trust: int) -> tuple[int, int, int]:
    """Return how far a run came, to compare with those in other layouts."""
    return tracer.most_calls, len(tracer.step_graph.nodes), trust
