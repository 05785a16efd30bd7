"""A network as a graph: its modules in order where it says so, or its own forward, run once and traced.

A network of nothing but containers (nn.Sequential and a framework's own) says its order. Any other is run on random
values in each layout that its forward might take, until one folds into a graph of one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.spec.parameters import Shape, show
from training.errors import NotConvertible
from training.importers.builder import Options
from training.importers.frameworks.axes import Axes, Axis, Kind, Part, Unclear
from training.importers.frameworks.fold import Fold, Value
from training.importers.frameworks.framework import Framework
from training.importers.frameworks.graph import INPUT, Graph, Node, Over, Reading
from training.importers.frameworks.layer import has_hooks
from training.importers.frameworks.meaning import Answer, Signal, Unknown
from training.importers.frameworks.operations import operate
from training.importers.frameworks.torch_modules import MODULES
from training.importers.frameworks.trace import Recorder, tensors

BATCH = 3
CALLED_STEPS = 5  # of a network that is called for each step
DESCENDED = (nn.ReLU, nn.Softmax, nn.LogSoftmax, nn.Unflatten)  # torch's own that are traced as functions


@dataclass(frozen=True)
class Layout:
    """What a forward is given: values, their axes, and what it is called; `calls` of it, one for each step, or one."""

    name: str
    sources: tuple[Tensor, ...]
    axes: Axes
    timed: bool


def graph_of(network: nn.Module, framework: Framework, options: Options) -> Graph:
    """Return a network's graph of one step; raises NotConvertible by one sentence where it is none."""
    network = framework.unwrap(network)
    leaves, own = _modules(network, framework)
    _require_no_hooks(leaves)
    if not own:
        return _chain(leaves)
    return _traced(network, framework, {module: path for path, module in reversed(leaves)}, options)


def _modules(network: nn.Module, framework: Framework) -> tuple[list[tuple[str, nn.Module]], list[nn.Module]]:
    """Return the modules that are converted each by a rule, in order and repeated, and those with a forward to trace."""
    leaves: list[tuple[str, nn.Module]] = []
    own: list[nn.Module] = []

    def collect(module: nn.Module, path: str) -> None:
        if _is_leaf(module, framework):
            leaves.append((path, module))
            return
        if type(module) not in framework.containers and type(module).forward is not nn.Sequential.forward:
            own.append(module)
        for name, child in module._modules.items():  # repeated ones too
            if child is not None:
                collect(child, f"{path}.{name}" if path else name)

    collect(network, "")
    return leaves, own


def _is_leaf(module: nn.Module, framework: Framework) -> bool:
    kind = type(module)
    if kind in framework.rules:
        return True
    if kind in framework.containers or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    if framework.takes(module) is not None:
        return True  # a state of which nothing is known
    if any(isinstance(module, known) for known in framework.rules):
        return kind.forward not in {known.forward for known in framework.rules if isinstance(module, known)} or True
    return not module._modules and kind.__module__.startswith("torch.") and kind not in DESCENDED


def _require_no_hooks(leaves: list[tuple[str, nn.Module]]) -> None:
    hooked = [
        f"{path}: it has a forward hook, which may change what it computes" for path, module in leaves if has_hooks(module)
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


def _layouts(shape: Shape, time_steps: int, batch: int) -> Iterator[Layout]:
    """Return each way in which a forward may take its input; no two of its values are the same."""
    values = torch.rand((time_steps, batch, *shape), generator=torch.Generator().manual_seed(0))
    time, samples = (Part(Kind.TIME, time_steps),), (Part(Kind.BATCH, batch),)

    def layout(name: str, source: Tensor, *leading: Axis, timed: bool) -> Layout:
        return Layout(f"{name} of {show(tuple(source.shape))}", (source,), Axes.of(leading, shape), timed)

    yield replace(layout("one step", values[0], samples, timed=True), sources=tuple(values[:CALLED_STEPS]))
    yield layout("time first", values, time, samples, timed=True)
    yield layout("batch first", values.transpose(0, 1).contiguous(), samples, time, timed=True)
    yield layout("one sample for all steps", values[0], samples, timed=False)
    merged = values.transpose(0, 1).flatten(0, 1)
    yield layout("batch and time in one axis", merged, (*samples, *time), timed=True)


def _traced(network: nn.Module, framework: Framework, leaves: dict[nn.Module, str], options: Options) -> Graph:
    """Run a network in each layout until one is folded; the refusal is that of the layout that came furthest."""
    assert options.input_shape is not None and options.time_steps is not None
    refused: list[tuple[int, str]] = []
    for layout in _layouts(options.input_shape, options.time_steps, options.batch or BATCH):
        for module in network.modules():  # from rest, whatever ran before
            _rest(module)
        recorder = Recorder(framework, leaves, operate, not_negative=bool(np.min(options.low or 0.0) >= 0))
        recorder.shapes[INPUT] = options.input_shape
        try:
            graph = _folded(network, recorder, layout)
            return graph
        except NotConvertible as error:
            refused.append((len(recorder.fold.nodes) + 1000 * recorder.fold.most_calls, f"given {layout.name}: {error}"))
        except Exception as error:  # the author's own code may raise anything
            reason = str(error).strip().splitlines() or [type(error).__name__]
            refused.append((-1, f"given {layout.name}: its forward fails: {reason[0]}"))
        finally:
            for module in network.modules():
                _rest(module)
    furthest = max(count for count, _ in refused)
    sentences = [sentence for count, sentence in refused if count == furthest]
    raise NotConvertible(f"the network ({type(network).__name__}) cannot be folded into a graph: {sentences[0]}")


def _rest(module: nn.Module) -> None:
    for name in ("reset_mem", "reset", "reset_states"):
        if callable(reset := getattr(module, name, None)):
            reset()


def _folded(network: nn.Module, recorder: Recorder, layout: Layout) -> Graph:
    answers: list[tuple[Signal | Answer, Tensor]] = []
    for step, source in enumerate(layout.sources):
        given = source.clone()
        steps = [len(layout.sources) > 1 and step] if layout.axes.time is None and not layout.axes.timed else []
        values = _values(layout, step) if steps or not layout.timed else tuple(
            Value(INPUT, place) for place in range(_time(layout.axes))
        )  # fmt: skip
        recorder.mark(given, Signal(layout.axes, values))
        answers.append(_answer(recorder, recorder.run(network, given)))
        if layout.axes.timed or not layout.timed:
            break
        if recorder.fold.most_calls > step + 1:
            raise NotConvertible("it takes more than one step of its neurons in a call")
    return recorder.fold.proven(_reading(recorder, layout, [answer for answer, _ in answers]), recorder.framework)


def _values(layout: Layout, step: int) -> tuple[Value, ...]:
    return (Value(INPUT, step if layout.timed else None),)


def _time(axes: Axes) -> int:
    return next(part.size for part in axes.parts if part.kind is Kind.TIME)


def _answer(recorder: Recorder, returned: Any) -> tuple[Signal | Answer, Tensor]:
    """Return the first of what a network returns that depends on its input."""
    for tensor in tensors(returned):
        meaning = recorder.known(tensor)
        if meaning is not None:
            return meaning, tensor
    raise NotConvertible("what it returns does not depend on its input")


def _reading(recorder: Recorder, layout: Layout, answers: list[Signal | Answer]) -> Reading:
    fold = recorder.fold
    steps = _time(layout.axes) if layout.axes.timed else (len(answers) if layout.timed else max(1, fold.most_calls))
    by_step = layout.timed and not layout.axes.timed
    readings = {_as_answer(recorder, answer, steps, by_step=by_step) for answer in answers}
    if len(readings) > 1:
        raise NotConvertible("what it returns at its first step and later are not copies of each other")
    return readings.pop()


def _as_answer(recorder: Recorder, answer: Signal | Answer, steps: int, *, by_step: bool) -> Reading:
    fold = recorder.fold
    try:
        if isinstance(answer, Signal):
            values, _ = recorder.seen(answer, "output")
            nodes = {value.node for value in values}
            if len(nodes) > 1:
                raise NotConvertible("what it returns at its steps are not copies of each other")
            reading = Reading(nodes.pop())
            own = {value.step for value in values}
        else:
            ((value,), _) = recorder.seen(
                Signal(answer.axes, (Value(answer.reading.node, None),)), "output"
            )
            reading, own = replace(answer.reading, node=value.node, factor=answer.factor), set(answer.steps)
    except Unclear as error:
        raise NotConvertible(f"what it returns {error}") from error
    node = fold.nodes[reading.node]
    if node.membrane:
        reading = replace(reading, node=node.sources[0], membrane=True)
    if by_step or own == {None} or own == set(range(steps)):
        return _averaged(reading, steps)
    if own == {steps - 1}:
        return replace(reading, over=Over.LAST)
    raise NotConvertible(f"what it returns is of {len(own)} of its {steps} steps")


def _averaged(reading: Reading, steps: int) -> Reading:
    """Return a sum that is divided by the number of steps as the mean that it is."""
    if reading.over is Over.SUM and abs(reading.factor * steps - 1) < 1e-6:
        return replace(reading, over=Over.MEAN, factor=1.0)
    return reading


_ = (Fold, Unknown)
