"""A network as a graph: its modules in order where it says so, or its own forward, run once and traced.

A network of nothing but containers (nn.Sequential and a framework's own) says its order. Any other is run on random
values in each layout that its forward might take, until one folds into a graph of one step.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from spikeserve.training.errors import NotConvertible, OtherLayout, RepeatedStep
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.answer import answer_of
from spikeserve.training.importers.frameworks.axes import Unclear
from spikeserve.training.importers.frameworks.checkpoint import first_line
from spikeserve.training.importers.frameworks.fold import Value
from spikeserve.training.importers.frameworks.framework import Framework
from spikeserve.training.importers.frameworks.graph import INPUT, Graph, Node, Over, Reading
from spikeserve.training.importers.frameworks.layer import has_hooks
from spikeserve.training.importers.frameworks.layouts import BATCH, Layout, beside_input, layouts
from spikeserve.training.importers.frameworks.meaning import Answer, Signal
from spikeserve.training.importers.frameworks.operations import operate
from spikeserve.training.importers.frameworks.torch_modules import MODULES
from spikeserve.training.importers.frameworks.trace import Recorder

DESCENDED = (nn.ReLU, nn.Softmax, nn.LogSoftmax, nn.Unflatten)  # torch's own that are traced as functions


def graph_of(network: nn.Module, framework: Framework, options: Options) -> Graph:
    """Return a network's graph of one step; raises NotConvertible by one sentence where it is none."""
    network = framework.unwrap(network)
    leaves, own = _modules(network, framework, descended=())
    _require_no_hooks(leaves)
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
        if type(module) not in framework.containers and type(module).forward is not nn.Sequential.forward:
            own.append(module)
        for name, child in module._modules.items():  # repeated ones too
            if child is not None:
                collect(child, f"{path}.{name}" if path else name)

    collect(network, "")
    return leaves, own


def _is_leaf(module: nn.Module, framework: Framework, descended: tuple[type[nn.Module], ...]) -> bool:
    kind = type(module)
    if framework.kind(module) is not None and kind not in descended:
        return True
    if kind in framework.containers or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    if framework.takes(module) is not None:
        return True  # without a rule of its own, it is refused by its class
    if isinstance(module, tuple(framework.rules)):
        return kind.__module__.partition(".")[0] in ("torch", framework.name)  # an author's own forward is traced
    return not module._modules and kind.__module__.startswith("torch.") and kind not in descended


def _require_no_hooks(leaves: list[tuple[str, nn.Module]]) -> None:
    hooked = [
        f"{path}: it has a forward hook, which may change what it computes"
        for path, module in leaves
        if has_hooks(module)
    ]
    if hooked:
        raise NotConvertible.because(hooked)


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
    return Graph(tuple(nodes), Reading(len(nodes) - 1))


def _traced(network: nn.Module, framework: Framework, leaves: dict[nn.Module, str], options: Options) -> Graph:
    """Run a network in each layout until one is folded; the refusal is that of the layout that came furthest."""
    shape, time_steps = options.input_shape or (), options.time_steps or 1
    beside = beside_input(network, time_steps)
    refused: list[tuple[tuple[int, int, int], str]] = []
    for layout in layouts(shape, time_steps, options.batch or BATCH):
        recorder = Recorder(framework, leaves, operate, not_negative=bool(np.min(options.low or 0.0) >= 0))
        recorder.shapes[INPUT] = shape
        try:
            _rest(network)  # whatever ran before
            return _folded(network, recorder, layout, beside, options)
        except NotConvertible as error:
            # A forward that takes a sample out of the batch, or loops over one step, was given another layout than its.
            other = isinstance(error, OtherLayout) or (layout.by_step and isinstance(error, RepeatedStep))
            refused.append((_progress(recorder, 0 if other else 2), f"given {layout.name}: {error}"))
        except (Exception, SystemExit) as error:  # the author's own code may raise anything
            sentence = f"given {layout.name}, its forward fails: {recorder.line_of(error)}: {first_line(error)}"
            hint = "; --batch and --time-steps say how many samples and steps it is tried with"
            refused.append((_progress(recorder, 1), sentence + hint))
        finally:
            with suppress(Exception, SystemExit):
                _rest(network)
    furthest = max(progress for progress, _ in refused)
    sentence = next(sentence for progress, sentence in refused if progress == furthest)
    raise NotConvertible(f"the network ({type(network).__name__}) cannot be folded into a graph: {sentence}")


def _progress(recorder: Recorder, trust: int) -> tuple[int, int, int]:
    """Return how far a run came, to compare with those in other layouts."""
    return recorder.fold.most_calls, len(recorder.fold.nodes), trust


def _rest(network: nn.Module) -> None:
    """Put every module to rest."""
    for module in network.modules():
        for name in ("reset_mem", "reset", "reset_states", "reset_state"):
            if callable(reset := getattr(module, name, None)):
                reset()


def _folded(network: nn.Module, recorder: Recorder, layout: Layout, beside: dict[str, int], options: Options) -> Graph:
    """Run a network and return its graph; raises NotConvertible where it is none."""
    fold, readings = recorder.fold, set[Reading]()
    for step, source in enumerate(layout.sources):
        given = source.clone()
        recorder.mark(given, Signal(layout.axes, _values(layout, step)))
        output = recorder.run(network, given, **beside)
        answer, returned, note = answer_of(recorder, output, layout, options.answer)
        if layout.by_step and fold.most_calls > step + 1:
            raise RepeatedStep("it runs its neurons more than once for a step")
        if not layout.steps and fold.most_calls not in (0, 1, options.time_steps):
            raise NotConvertible(f"it runs {fold.most_calls} steps, and --time-steps is {options.time_steps}")
        readings.add(replace(_reading(recorder, layout, answer, returned), note=note))
    if len(readings) > 1:
        raise NotConvertible("what it returns at its first step and later are not copies of each other")
    return replace(fold.proven(readings.pop(), recorder.framework), repeats_input=not layout.steps)


def _values(layout: Layout, step: int) -> tuple[Value, ...]:
    if layout.by_step:
        return (Value(INPUT, step),)
    return tuple(Value(INPUT, place) for place in range(layout.steps)) if layout.steps else (Value(INPUT, None),)


def _reading(recorder: Recorder, layout: Layout, answer: Signal | Answer, returned: Tensor) -> Reading:
    """Return how what a network returns is read of a node; raises NotConvertible where it is of some steps only."""
    fold, steps = recorder.fold, layout.steps or max(1, recorder.fold.most_calls)
    if isinstance(answer, Answer):
        answer = answer.averaged(steps)
        reading, values = answer.reading, [Value(answer.reading.node, step) for step in answer.steps]
        reading = replace(reading, factor=answer.factor)
    else:
        values = [*answer.values]
        reading = Reading(values[0].node)
    if len({value.node for value in values}) > 1:
        raise NotConvertible("what it returns at its steps are not copies of each other")
    own = {value.step for value in values}
    if not layout.by_step and own == {steps - 1} and steps > 1:
        reading = replace(reading, over=Over.LAST)
    elif not layout.by_step and own not in ({None}, set(range(steps))):
        where = f"{reading.where}: " if reading.where else ""
        raise NotConvertible(
            f"{where}what it returns is of {len(own)} of its {steps} steps, expected all of them or the last; leave "
            "out the choice of steps, or choose them in what a client sends"
        )
    fold.require_answer(reading, sorted(step for step in own if step is not None), returned)
    try:
        _ = answer.axes.sample  # read flat, in whatever shape
    except Unclear as error:
        raise NotConvertible(f"what it returns {error}") from error
    node = fold.nodes[reading.node]
    return replace(reading, node=node.sources[0], membrane=True) if node.membrane else reading
