"""One run of a network in one layout: traced, made a graph of one step, and compared with other runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks.axes import Axes, AxisKind, AxisPart
from spikeserve.plugins.frameworks.framework import Framework
from spikeserve.plugins.frameworks.graph import all_close
from spikeserve.plugins.frameworks.layouts import beside_input, layouts, layouts_of
from spikeserve.plugins.frameworks.modifications import require_unchanged
from spikeserve.plugins.frameworks.nouns import (
    INPUT,
    Graph,
    GraphReadout,
    Layout,
    Signal,
    StepValue,
    TimeReduction,
    TracedValue,
    Unsupported,
    UnsupportedValue,
)
from spikeserve.plugins.frameworks.operations import trace_function
from spikeserve.plugins.frameworks.options import FrameworkOptions, Start
from spikeserve.plugins.frameworks.state_finder import CALL_AUTHORS, NothingRandom, Site, StateFinder, tensors
from spikeserve.plugins.frameworks.tracer import Tracer
from spikeserve.training.errors import NotConvertible, RepeatedStep

SAME = 1e-5  # of the largest value: how far two runs of one forward on one input may differ
RESETS = ("reset_mem", "reset", "reset_states", "reset_state")


@dataclass
class TracedRun:
    """A network, the modules that rules convert with their paths, and the layout in which it is run."""

    network: nn.Module
    framework: Framework
    leaves: dict[nn.Module, str]
    options: FrameworkOptions
    layout: Layout
    place: int  # of its layout, in the order of `layouts`
    beside: dict[str, int] = field(init=False)
    scout: StateFinder = field(init=False, default_factory=StateFinder)
    tracer: Tracer = field(init=False)
    _not_reset: dict[tuple[nn.Module, str], Any] = field(init=False, default_factory=dict)
    _returned: list[Tensor] = field(init=False)
    _answers: list[tuple[GraphReadout, list[int], Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.beside = beside_input(self.network, self.options.time_steps or 1)
        self._begin(frozenset())

    def _begin(self, states: frozenset[tuple[Site, int | str]]) -> None:
        """Begin a trace in which these operands are states."""
        self.tracer = Tracer(
            self.framework,
            self.leaves,
            trace_function,
            not_negative=bool(np.min(self.options.low or 0.0) >= 0),
            states=states,
            from_rest=self.options.start is Start.REST,
            batch=self.layout.batch,
        )
        self.tracer.shapes[INPUT] = self.options.input_shape
        self._returned, self._answers = [], []

    def is_possible(self) -> bool:
        """Run the forward as it is written, which finds its states; return whether it takes what has such shapes."""
        before = dict(_attribute_states(self.network))
        try:
            with self._running():
                rest(self.network)
                for source in self.layout.sources:
                    self.scout.run(self.network, source.clone(), **self.beside)
        except (Exception, SystemExit):  # the author's own code may raise anything
            return False
        finally:
            self._not_reset = {key: value for key, value in before.items() if self.scout.follows(getattr(*key))}
            with suppress(Exception, SystemExit):
                self._rest()
        return True

    def _rest(self) -> None:
        """Put the network to rest: by its own methods, and where it has none as it was before it ran."""
        rest(self.network)
        for (module, name), value in self._not_reset.items():
            setattr(module, name, value.clone() if isinstance(value, Tensor) else value)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run the author's code as it is written, not compiled; what it draws is 0 where that is asked for."""
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if self.tracer.from_rest:
                stack.enter_context(NothingRandom())
            stack.enter_context(_scripts_as_written())
            yield

    def graph(self) -> Graph:
        """Run the network and return its graph, proven; raises NotConvertible where it is none."""
        readout, step_graph, layout = self.readout(), self.tracer.step_graph, self.layout
        self._require_same_again()
        graph = step_graph.proven(readout, self.framework, layout.values, repeats=not layout.steps)
        for read, steps, returned in self._answers:
            step_graph.require_answer(read, steps, returned)
        node = step_graph.nodes[readout.node]
        if node.membrane:
            graph = replace(graph, readout=replace(readout, node=node.sources[0], membrane=True))
        # A forward that takes one sample and runs one step of several has a caller that steps it.
        repeats = not layout.steps and self.tracer.most_calls == self.options.time_steps
        answer = self.answer if layout.steps or repeats else self.stepped_answer
        return replace(graph, repeats_input=repeats, layout=layout.of_any_batch, answer=answer)

    def answer(self, inputs: Tensor) -> Tensor:
        """Run the forward on inputs (time_steps, batch, *shape), and return its answer as it gives that.

        It is (batch, *sample), or of each step (time_steps, batch, *sample). Where the forward takes one batch alone,
        the samples are cut or repeated to fit. Raises what the forward raises.
        """
        inputs = inputs[:, torch.arange(self.options.batch or inputs.shape[1]) % inputs.shape[1]]
        layout = next(islice(layouts_of(inputs, inputs), self.place, None))
        other = replace(self, layout=layout)
        other.is_possible()  # finds its states
        other.readout()
        answers = [returned for _, _, returned in other._answers]
        return torch.stack(answers) if layout.by_step else answers[0]

    def stepped_answer(self, inputs: Tensor) -> Tensor:
        """Call the forward once for each step, and return its answers (time_steps, batch, *sample).

        A forward of two arguments gets the state that it returned last, beside its answer, as in Norse.
        """
        takes_state = len(inspect.signature(self.network.forward).parameters) > 1 + len(self.beside)
        answers, state = list[Tensor](), list[Any]()
        self._rest()
        with torch.no_grad(), self._running():
            for step in inputs:
                returned = self.network(step, *state, **self.beside)
                state = [returned[1]] if takes_state and isinstance(returned, tuple) and len(returned) == 2 else []
                values = _values_of(returned)
                answers.append(tensors(values[self.options.answer or next(iter(values))])[0].clone())
        self._rest()
        return torch.stack(answers)

    def readout(self) -> GraphReadout:
        """Run the network from rest and return how what it returns is read of a node.

        What takes a state is part of a neuron of the author's own, or of a sum over time. Where that gives no graph, or
        one in which a state is not followed from step to step, all of it may be what nodes give.
        """
        try:
            read = self._traced_forward(self.scout.states)
        except NotConvertible:
            if self.scout.states and (without := self._without_states()):
                return without
            raise
        return (self._without_states(neurons=False) if self.tracer.own.lose_a_state else None) or read

    def _without_states(self, *, neurons: bool = True) -> GraphReadout | None:
        """Trace again as if there were no states; None where that gives no graph, or one that still has `neurons`."""
        before = self.tracer, self._returned, self._answers
        with suppress(Exception, SystemExit):
            read = self._traced_forward(frozenset())
            if neurons or not self.tracer.own.neurons:
                return read
        self.tracer, self._returned, self._answers = before
        return None

    def _traced_forward(self, states: frozenset[tuple[Site, int | str]]) -> GraphReadout:
        self._begin(states)
        self._rest()
        step_graph, layout, readouts = self.tracer.step_graph, self.layout, set[GraphReadout]()
        for step, source in enumerate(layout.sources):
            inputs = source.clone()
            self.tracer.mark(inputs, Signal(layout.axes, _values(layout, step)))
            with self._running():
                output = self.tracer.run(self.network, inputs, **self.beside)
            self._returned += [tensor.clone() for tensor in tensors(output)]
            answer, returned, note = answer_of(self.tracer, output, layout, self.options.answer)
            calls = self.tracer.most_calls
            if layout.by_step and calls > step + 1:
                raise RepeatedStep("it runs its neurons more than once for a step")
            if not layout.steps and calls not in (0, 1, self.options.time_steps):
                raise NotConvertible(f"it runs {calls} steps, and --time-steps is {self.options.time_steps}")
            readouts.add(replace(self._time_readout(answer, returned), note=note))
        if len(readouts) > 1:
            raise NotConvertible("what it returns at its first step and later are not copies of each other")
        (readout,) = readouts
        try:
            needed = list[int]()
            while needed != (needed := Graph(tuple(step_graph.nodes), readout).needed):  # finishing one may need others
                self.tracer.own.finish(needed)
        except Unsupported as error:
            raise NotConvertible(f"{error.where}: {error}") from error
        return readout

    def _time_readout(self, answer: Signal | TimeReduction, returned: Tensor) -> GraphReadout:
        """Return the readout of a network's answer; raises NotConvertible where it is of some steps only."""
        layout = self.layout
        if answer.axes.time_last:
            answer, returned = replace(answer, axes=answer.axes.time_before()), returned.transpose(1, 2)
        steps, arranged = layout.steps or max(1, self.tracer.most_calls), returned
        if isinstance(answer, TimeReduction):
            answer = answer.averaged(steps)
            values = [StepValue(answer.readout.node, step) for step in answer.steps]
            readout = replace(answer.readout, factor=answer.factor)
        else:
            values, readout = [*answer.values], GraphReadout(answer.values[0].node)
            with suppress(Unsupported):  # for which the sentence is made below
                arranged = answer.axes.time_first(returned)
        if len({value.node for value in values}) > 1:
            raise NotConvertible("what it returns at its steps are not copies of each other")
        own = {value.step for value in values}
        if not layout.by_step and own == {steps - 1} and steps > 1:
            readout = replace(readout, over=Reduction.LAST)
        elif not layout.by_step and own not in ({None}, set(range(steps))):
            where = f"{readout.where}: " if readout.where else ""
            raise NotConvertible(
                f"{where}what it returns is of {len(own)} of its {steps} steps, expected all of them or the last; "
                "leave out the choice of steps, or choose them in what a client sends"
            )
        try:
            values = self._in_order(answer.axes, values)
        except Unsupported as error:
            raise NotConvertible(f"what it returns {error}") from error
        readout = replace(readout, node=values[0].node)
        self._answers.append((readout, [value.step or 0 for value in values], arranged))
        return readout

    def _in_order(self, axes: Axes, values: list[StepValue]) -> list[StepValue]:
        """Return values whose sample lies in memory as it was returned: it is read flat, in whatever shape."""
        shape = axes.sample
        if axes.order == tuple(range(len(axes.order))):
            return values
        self.tracer.require_no_membrane(values)
        return [self.tracer.arranged(value, axes, shape, "output") for value in values]

    def _require_same_again(self) -> None:
        """Raise NotConvertible where the network, run again on the same input, gives or holds something else."""
        self._rest()
        again: list[Tensor] = []
        with require_unchanged(self.network), torch.no_grad(), self._running():
            for source in self.layout.sources:
                again += [tensor.clone() for tensor in tensors(self.network(source.clone(), **self.beside))]
            self._rest()
        same = len(again) == len(self._returned) and all(
            one.shape == other.shape and all_close(one, other, SAME)
            for one, other in zip(again, self._returned, strict=True)
        )
        if not same:
            raise NotConvertible(
                "its forward gives other values when it runs again on the same input: a served network computes the "
                "same, so leave out of what your factory returns whatever differs from call to call"
            )

    def also_holds(self, time_steps: int, batch: int, *, must_run: bool = False) -> bool:
        """Return whether the network runs with other values of another size, in the same layout.

        Raises NotConvertible where it computes something else of them, or where it `must_run` and does not.
        """
        options = self.options.model_copy(update={"time_steps": time_steps})
        layout = next(islice(layouts(options.input_shape, time_steps, batch, seed=1), self.place, None))
        other = replace(self, options=options, layout=layout)
        if not other.is_possible() and not must_run:
            return False
        try:
            read = other.readout()
        except (Exception, SystemExit):  # a forward may have a number of its own
            if must_run:
                raise
            return False
        self._require_same_nodes(other, read)
        return True

    def _require_same_nodes(self, other: TracedRun, read: GraphReadout) -> None:
        readout = self._answers[0][0]
        own, others = self.tracer.step_graph.computes(readout), other.tracer.step_graph.computes(read)
        if own == others and self._reads_the_same(other, read):
            return
        different = next(
            (place for place, (one, two) in enumerate(zip(own, others, strict=False)) if one != two),
            min(len(own), len(others)),
        )
        graph = Graph(tuple(self.tracer.step_graph.nodes), readout)
        node = graph.nodes[graph.needed[different] if different < len(own) else readout.node]
        where = (readout.where if own == others else node.where) or f"'{node.path}'"
        raise NotConvertible(
            f"{where} computes something else where it is given {other.layout}: a number there comes from the "
            "size of the batch or of time, or from values by code that PyTorch does not show; expected a constant"
        )

    def _reads_the_same(self, other: TracedRun, read: GraphReadout) -> bool:
        """Return whether both have one readout, where a sum over the number of steps is a mean."""
        one, two = self._answers[0][0], replace(read, node=self._answers[0][0].node)
        if one.over in (Reduction.SUM, Reduction.MEAN) and two.over in (Reduction.SUM, Reduction.MEAN):
            own, others = self._of_sum_and_mean(one), other._of_sum_and_mean(two)
            return one.softmax == two.softmax and bool(np.isclose(own, others).any())
        return replace(one, where="", note="") == replace(two, where="", note="")

    def _of_sum_and_mean(self, readout: GraphReadout) -> tuple[float, float]:
        """Return the factor of the sum over time, and that of the mean, which give the readout."""
        steps = self.options.time_steps or 1
        of_sum = readout.factor / steps if readout.over is Reduction.MEAN else readout.factor
        return of_sum, of_sum * steps


def rest(network: nn.Module) -> None:
    """Put every module to rest."""
    for module in network.modules():
        for name in RESETS:
            if callable(reset := getattr(module, name, None)):
                reset()


CALL_AUTHORS.add(rest.__code__)


@contextmanager
def _scripts_as_written() -> Iterator[None]:
    """Run what torch.jit.script compiled, of functions, as the code that it was made of."""
    kind: Any = torch.jit.ScriptFunction
    compiled = kind.__call__

    def written(script: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(script, "_torchdynamo_inline", partial(compiled, script))(*args, **kwargs)

    kind.__call__ = written
    try:
        yield
    finally:
        kind.__call__ = compiled


def _attribute_states(network: nn.Module) -> Iterator[tuple[tuple[nn.Module, str], Any]]:
    """Yield the attributes in which a module may hold a state that it has no method to reset, with their values."""
    for module in network.modules():
        if any(callable(getattr(module, name, None)) for name in RESETS):
            continue
        for name, value in {**vars(module), **module._buffers}.items():
            if isinstance(value, Tensor | int | float | None):
                yield (module, name), value.clone() if isinstance(value, Tensor) else value


def _values(layout: Layout, step: int) -> tuple[StepValue, ...]:
    if layout.by_step:
        return (StepValue(INPUT, step),)
    return tuple(StepValue(INPUT, place) for place in (range(layout.steps) if layout.steps else (None,)))


def answer_of(
    tracer: Tracer, returned: Any, layout: Layout, chosen: str | None
) -> tuple[Signal | TimeReduction, Tensor, str]:
    """Return the first of what a network returns that depends on its input, or the chosen one, and a note on others."""
    if returned is None:
        raise NotConvertible(
            "its forward returns nothing: let your factory return a module whose forward returns the answer"
        )
    values = _values_of(returned)
    if chosen is not None and chosen not in values:
        raise NotConvertible(f"answer: '{chosen}' is none of what its forward returns, expected {', '.join(values)}")
    known = {name: pairs for name, value in values.items() if (pairs := _traced_values(tracer, value))}
    names = [name for name in known if chosen in (None, name)]
    if not names:
        raise NotConvertible(
            "what it returns does not depend on its input, as far as PyTorch shows: what torch.func, torch.jit.script "
            "and extensions compute is not seen"
        )
    traced, tensor = _meant(known[names[0]])
    others = [f"'{name}'" for name in names[1:] if _is_another(tracer, traced, known[name][0][0], layout)]
    if not others:
        return traced, tensor, ""
    note = f"Of what its forward returns '{names[0]}' is read, unless --answer names another: {', '.join(others)}."
    return traced, tensor, note


def _values_of(returned: Any) -> dict[str, Any]:
    """Name the values that a forward returns: by the keys of a dictionary, or by their places from 1 on."""
    if isinstance(returned, dict):
        return {str(key): value for key, value in returned.items()}
    values = returned if isinstance(returned, tuple) else (returned,)
    return {str(place): value for place, value in enumerate(values, start=1)}


def _traced_values(tracer: Tracer, value: Any) -> list[tuple[TracedValue, Tensor]]:
    """Return the tensors in a value that depend on the input, each behind its traced value."""
    pairs = ((tracer.node_output(tensor, is_read=True), tensor) for tensor in tensors(value))
    return [(traced, tensor) for traced, tensor in pairs if traced is not None]


def _meant(pairs: list[tuple[TracedValue, Tensor]]) -> tuple[Signal | TimeReduction, Tensor]:
    """Return the traced value of the first tensor, or of all together where they are the steps of one node."""
    first, tensor = pairs[0]
    if isinstance(first, UnsupportedValue):
        raise first.refusal(first.sentence)
    steps = tuple(each for traced, _ in pairs if isinstance(traced, Signal) for each in traced.values)
    in_order = steps == tuple(StepValue(steps[0].node, place) for place in range(len(pairs))) if steps else False
    if isinstance(first, Signal) and len(pairs) > 1 and in_order:
        axes = first.axes.inserted(0, (AxisPart(AxisKind.TIME, len(steps)),))
        return Signal(axes, steps), torch.stack([tensor for _, tensor in pairs])
    return first, tensor


def _is_another(tracer: Tracer, read: Signal | TimeReduction, other: TracedValue, layout: Layout) -> bool:
    """Return whether a value might be the answer too: it is of other nodes or steps, and no state that is handed on."""
    if isinstance(other, UnsupportedValue):
        return False
    nodes = tracer.step_graph.nodes
    if isinstance(other, Signal):
        node = other.values[0].node
        if node < 0 or (layout.by_step and nodes[node].membrane):
            return False

    def of(traced: Signal | TimeReduction) -> set[StepValue]:
        if isinstance(traced, TimeReduction):
            values = tuple(StepValue(traced.readout.node, step) for step in traced.steps)
        else:
            values = traced.values
        return {StepValue(nodes[node].sources[0] if nodes[node].membrane else node, step) for node, step in values}

    return of(other) != of(read)
