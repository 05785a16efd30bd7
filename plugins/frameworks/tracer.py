"""Run an author's forward once, and trace what it computes of which tensors and at which line.

Modules that a rule converts are leaves: their calls are recorded with what they take and give. All that the forward
does between them is seen as functions of torch, through a TorchFunctionMode. So loops over steps, lists, states that
are handed on and any other Python just run. What a tensor means hangs on the tensor itself, with its version: one that
something else has written to since is known no more.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikeserve.models.spec.nodes import Scale
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks.axes import Axes
from spikeserve.plugins.frameworks.framework import Framework, TimeAxes
from spikeserve.plugins.frameworks.function_modules import ConvOverTime, keeps_sign, permute, reshape
from spikeserve.plugins.frameworks.graph import StepGraph
from spikeserve.plugins.frameworks.nouns import (
    DRAWN_START,
    INPUT,
    OWN,
    PADDING,
    GraphReadout,
    Node,
    Signal,
    StepValue,
    Term,
    TimeReduction,
    TracedValue,
    Unsupported,
    UnsupportedAxes,
    UnsupportedValue,
)
from spikeserve.plugins.frameworks.over_time import padded, taps_of
from spikeserve.plugins.frameworks.own_neuron import OwnNeuron
from spikeserve.plugins.frameworks.own_neurons import OwnNeurons, concatenated_linear
from spikeserve.plugins.frameworks.state_finder import CALL_AUTHORS, OURS, RUNS, TORCH, Site, running_frames, tensors
from spikeserve.plugins.frameworks.terms import CONSTANT, JOINED, SOURCE, START

OVER_LENGTH = (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)
ALONG_TIME = (nn.Conv1d, nn.ConstantPad1d, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Identity, OwnNeuron)
LINEAR = (nn.Linear, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


class Tracer(TorchFunctionMode):
    """The trace of one run. `operations` says what each function of torch does to traced values.

    `states` are the operands that begin as constants, of which `from_rest` lets those that are drawn begin at 0.
    `along_time` counts calls along the axis of time.
    """

    def __init__(
        self,
        framework: Framework,
        leaves: dict[nn.Module, str],
        operations: Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any]], Any],
        *,
        not_negative: bool,
        states: frozenset[tuple[Site, int | str]] = frozenset(),
        from_rest: bool = False,
        batch: int = 0,
    ) -> None:
        super().__init__()
        self.step_graph, self.framework = StepGraph(), framework
        self.states, self.from_rest = states, from_rest
        self.batch, self.own = batch, OwnNeurons(self)
        self._sources: dict[tuple[StepValue, Axes], Term] = {}
        self._paths: dict[int, str] = {}
        self.shapes: dict[int, Shape] = {}
        self.not_negative = {INPUT} if not_negative else set[int]()
        self._leaves, self._operations = leaves, operations
        self._inside, self.along_time = 0, 0
        package = sys.modules.get(framework.name)
        self._package = str(Path(package.__file__).parent) if package and package.__file__ else OURS

    def run(self, network: nn.Module, source: Tensor, **beside: int) -> Any:
        """Run the network on its marked input, and on numbers beside it, and return its output."""
        self._paths = {id(module): path for path, module in network.named_modules()}
        with ExitStack() as stack:
            for module, path in self._leaves.items():  # none of which has a forward of its own
                module.__dict__["forward"] = self._traced_forward(module, path)
                stack.callback(module.__dict__.pop, "forward")
            stack.enter_context(torch.no_grad())
            stack.enter_context(self)
            return network(source, **beside)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch and record it, unless it runs within a leaf."""
        if self._inside:
            return func(*args, **(kwargs or {}))
        with self._not_recorded():
            return self._operations(self, func, args, kwargs or {})

    @contextmanager
    def _not_recorded(self) -> Iterator[None]:
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @property
    def most_calls(self) -> int:
        """The most steps that a module with a state, or a neuron of the author's own, has run."""
        return max(self.step_graph.most_calls, *(len(neuron.maps) for neuron in self.own.neurons), 0)

    def mark(self, tensor: Tensor, traced: TracedValue) -> None:
        """Set a tensor's traced value, as it is now."""
        tensor._traced = (self, tensor._version, traced)  # type: ignore[attr-defined]

    def traced(self, tensor: object) -> TracedValue | None:
        """Return a tensor's traced value, None for a tensor that does not depend on the input."""
        mark: tuple[Tracer, int, TracedValue] | None = getattr(tensor, "_traced", None)
        if mark is None or mark[0] is not self or not isinstance(tensor, Tensor):
            return None
        if mark[1] != tensor._version:
            return UnsupportedValue(f"{self.line()}: what it takes was written to in place, through another view of it")
        return mark[2]

    def hold(self, tensor: Tensor, term: Term) -> None:
        """Say which term of a neuron's step a tensor is, as it is now."""
        tensor._term = (self, tensor._version, term)  # type: ignore[attr-defined]

    def term(self, tensor: object) -> Term | None:
        """Return the term that a tensor is, None where it is none of a neuron's."""
        mark: tuple[Tracer, int, Term] | None = getattr(tensor, "_term", None)
        if mark is None or mark[0] is not self or not isinstance(tensor, Tensor) or mark[1] != tensor._version:
            return None
        return mark[2]

    def source(self, value: StepValue, axes: Axes) -> Term:
        """Return the term of what a node gives at a step, which is one however often it is taken."""
        made = Term(SOURCE, value=value, axes=axes, shape=axes.shape, plain=True)
        return self._sources.setdefault((value, axes), made)

    def node_output(self, tensor: object, *, is_read: bool = False) -> TracedValue | None:
        """Return a tensor's traced value, of a term its neuron's output, or where it `is_read` its sum over time."""
        traced, term = self.traced(tensor), self.term(tensor)
        if term is None or term.plain or isinstance(traced, TimeReduction):
            return traced
        if traced is None if is_read else term.operation in (CONSTANT, START):
            return traced
        try:
            return self.own.answer(term) if is_read else self.own.signal(term)
        except Unsupported as error:
            return UnsupportedValue(f"{error.where or self.line()}: {error}", error.refusal)

    def supported(self, tensor: object) -> Signal | TimeReduction | None:
        """Return a tensor's traced value; raises NotConvertible where it is unsupported."""
        traced = self.node_output(tensor)
        if isinstance(traced, UnsupportedValue):
            raise traced.refusal(traced.sentence)
        return traced

    def line(self) -> str:
        """Return the file and line of the author's code that runs: the innermost that is no library's."""
        return self._innermost((frame.f_code.co_filename, frame.f_lineno) for frame in running_frames())

    def line_of(self, error: BaseException) -> str:
        """Return the same of the code that raised an error."""
        frames = [(frame.f_code.co_filename, number) for frame, number in walk_tb(error.__traceback__)]
        return self._innermost(frames[::-1])

    @staticmethod
    def own_line_of(error: BaseException) -> str:
        """Return the importer's own line that raised an error, "" for what an author's code or a function raises."""
        *_, (frame, number) = walk_tb(error.__traceback__)
        name = frame.f_code.co_filename
        is_own = name.startswith(OURS) and frame.f_code not in CALL_AUTHORS
        return f"{Path(name).name}, line {number}" if is_own else ""

    def _innermost(self, frames: Iterable[tuple[str, int]]) -> str:
        """Return the first that is no library's, or else the first of the framework's own networks."""
        within = None
        for name, number in frames:
            if name.startswith((TORCH, OURS, "<")) or "contextlib" in name:
                continue
            here = f"{Path(name).name}, line {number}"
            if not name.startswith(self._package):
                return here
            within = within or here
        return within or "the network"

    def variable(self, tensor: Tensor) -> str:
        """Return the name by which the author's code knows a tensor, where it has one."""
        frame = next(self._frames(), None)
        variables = frame.f_locals if frame is not None else {}
        owner = variables.get("self")
        own = {**vars(owner), **owner._parameters, **owner._buffers} if isinstance(owner, nn.Module) else {}
        return next((name for name, value in [*variables.items(), *own.items()] if value is tensor), "")

    def module(self) -> str:
        """Return the path of the author's innermost module that runs."""
        return self._running()[0]

    def place(self) -> str:
        """Return the line of the author's code that runs, and the path and class of the module within the network."""
        path, kind = self._running()
        return f"{self.line()}, in '{path}' ({kind})" if path else self.line()

    def _running(self) -> tuple[str, str]:
        """Return the path and the class of the author's innermost module that runs, "" for the network itself."""
        modules = (frame.f_locals.get("self") for frame in self._frames())
        return next(((path, type(each).__name__) for each in modules if (path := self._paths.get(id(each)))), ("", ""))

    @staticmethod
    def _frames() -> Iterator[FrameType]:
        """Return the frames of the author's code, from the innermost on."""
        others = (TORCH, OURS, "<")
        return (frame for frame in running_frames() if not frame.f_code.co_filename.startswith(others))

    def seen(self, signal: Signal, name: str) -> list[StepValue]:
        """Return a signal's values; if the forward has flattened it, a node does so first."""
        return [self.arranged(value, signal.axes, signal.axes.sample, name) for value in signal.values]

    def arranged(self, value: StepValue, axes: Axes, shape: Shape, name: str) -> StepValue:
        """Return a value with its sample's axes in the order and shape in which they are seen, by nodes if need be."""
        if value == PADDING:
            raise Unsupported(
                "takes steps before the first or behind the last, which only a convolution over time may: pad time "
                "on the left alone, or cut them off, as in x[..., :steps]"
            )
        if value.node < 0:
            raise Unsupported("takes steps of which some are not written yet")
        refined, order = axes.refined, axes.order
        if order != tuple(range(len(order))):
            value = self._reshaped(value, refined, name)
            permuted = tuple(refined[place] for place in order)
            value = self._moved(value, ("permute", order), Node(f"{name}_permuted", permute(order)), permuted)
        return self._reshaped(value, shape, name)

    def _reshaped(self, value: StepValue, shape: Shape, name: str) -> StepValue:
        own = self.shapes[value.node]
        if own == shape:
            return value
        if shape == (math.prod(own),):
            return self._moved(value, "flatten", Node(f"{name}_flat", nn.Flatten()), shape)
        return self._moved(value, ("reshape", shape), Node(f"{name}_reshaped", reshape(shape)), shape)

    def _moved(self, value: StepValue, key: Hashable, node: Node, shape: Shape) -> StepValue:
        moved = self.step_graph.stateless(key, [value], lambda: replace(node, where=self.line()))
        self.describe(moved.node, shape, [value])
        return moved

    def describe(self, node: int, shape: Shape, sources: Iterable[StepValue]) -> None:
        """Note the shape that leaves a node, and whether its values are never negative."""
        self.shapes[node] = shape
        module = self.step_graph.nodes[node].module
        kept = (module is None or keeps_sign(module)) and all(value.node in self.not_negative for value in sources)
        if kept or isinstance(module, nn.ReLU):
            self.not_negative.add(node)

    def require_no_membrane(self, values: Iterable[StepValue]) -> None:
        """Raise Unsupported where a membrane is taken."""
        if any(self.step_graph.nodes[value.node].membrane for value in values):
            raise Unsupported("takes a neuron's membrane, which no node does")

    def applied(self, key: Any, make: Callable[[], Node], signal: Signal, tensor: Tensor, returned: Tensor) -> Signal:
        """Record a node without a state on every value of a signal; the axes of time and batch stay as they are."""
        leading, made_once = signal.axes.leading, make()
        module = made_once.module
        if signal.axes.time_last and (isinstance(module, ALONG_TIME) or getattr(module, "kind", None) is Scale):
            return self._along_time(key, make, signal, tensor, returned)
        if isinstance(made_once.module, OVER_LENGTH) and len(signal.axes.sample) == 1:  # as if of one channel
            place = len(leading)
            channel = replace(signal, axes=signal.axes.inserted(place))
            pooled = self.applied(key, make, channel, tensor.unsqueeze(place), returned.unsqueeze(place))
            return replace(pooled, axes=pooled.axes.without(place))
        values = self.seen(signal, made_once.path)
        self.require_no_membrane(values)
        if returned.shape[: len(leading)] != tensor.shape[: len(leading)]:
            raise UnsupportedAxes("changes the axes of time or batch")
        made = [self.step_graph.stateless(key, [value], make) for value in values]
        out = signal.axes.around(returned.shape[len(leading) :])
        for value, before, given_back in zip(made, values, out.time_first(returned), strict=True):
            if not signal.is_read:
                self.step_graph.keep(value, given_back)
            self.describe(value.node, out.sample, [before])
        return Signal(out, tuple(made))

    def _along_time(
        self, key: Any, make: Callable[[], Node], signal: Signal, tensor: Tensor, returned: Tensor
    ) -> Signal:
        """Record what runs on (batch, inputs, time_steps): a padding, a convolution, or what is alike at each step."""
        module, values = make().module, list(signal.values)
        self.along_time += 1
        if isinstance(module, nn.ConstantPad1d):
            return replace(signal, axes=signal.axes.of_steps(returned.shape[2]), values=padded(module, values))
        moved = replace(signal, axes=signal.axes.time_before())
        if not isinstance(module, nn.Conv1d):
            result = self.applied(key, make, moved, tensor.transpose(1, 2), returned.transpose(1, 2))
            return replace(result, axes=result.axes.time_before())
        delays, steps = taps_of(module, values)
        seen = self.seen(replace(moved, values=tuple(steps)), "over_time")
        self.require_no_membrane(seen[:1])
        named = make().path if isinstance(key, int) else key  # by its id a module is the same in one run only

        def over() -> Node:
            return replace(make(), module=ConvOverTime(module, delays))

        node = self.step_graph.node((named, "over time", delays), (seen[0].node,), over)
        known = len(steps) + delays[-1]  # a later one would see steps behind the last
        made = [StepValue(node, step) if step < known else PADDING for step in range(returned.shape[2])]
        for value, gave in zip(made[:known], returned.unbind(2), strict=False):
            self.step_graph.keep(value, gave)
        self.describe(node, tuple(returned.shape[1:2]), ())
        (axis,) = Axes.of((), returned.shape[1:2]).axes
        axes = signal.axes.without(1).inserted(1, axis).of_steps(len(made))
        return Signal(axes, tuple(made))

    def _traced_forward(self, module: nn.Module, path: str) -> Callable[..., Any]:
        original = module.forward
        takes = self.framework.takes(module)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return original(*args, **kwargs)
            with self._not_recorded():
                first, *others = [*args, *kwargs.values()]
                beside = self.term(first)
                if beside is not None and beside.operation == JOINED and isinstance(module, nn.Linear):
                    returned = original(first)
                    self.mark(returned, UnsupportedValue(OWN))
                    self.hold(returned, concatenated_linear(self, beside, module.weight, module.bias, path))
                    return returned
                traced = self.supported(first)
                if traced is None:
                    return original(*args, **kwargs)
                tensor = first.clone()
                states = [self.traced(state) for state in tensors(others)]
                returned = original(*args, **kwargs)
                try:
                    if takes is None:
                        node = Node(path, module, where=self.line())
                        made = self.stateless(id(module), lambda: node, traced, tensor, _only(returned))
                        self.mark(_only(returned), made)
                    elif isinstance(traced, Signal):
                        self._stateful(module, path, takes, traced, states, tensor, returned)
                    else:
                        self._refuse_answer()
                except Unsupported as error:
                    raise error.refusal(f"{error.where or self.line()}: '{path}' {error}") from error
            return returned

        return forward

    def stateless(
        self, key: Any, make: Callable[[], Node], traced: Signal | TimeReduction, tensor: Tensor, returned: Tensor
    ) -> Signal | TimeReduction:
        """Record a node without a state on a signal, or on what is read over time.

        A linear layer of what is read over time gives the same if it runs at every step, and its output is read: of the
        last step, of a mean, or without a bias of a sum.
        """
        if isinstance(traced, Signal):
            return self.applied(key, make, traced, tensor, returned)
        answer, module = traced.averaged(len(traced.steps)), make().module
        biased = answer.readout.over is Reduction.SUM and getattr(module, "bias", None) is not None
        if not isinstance(module, LINEAR) or not answer.is_linear or biased:
            self._refuse_answer()
        return answer.of(self.applied(key, make, answer.at_each_step(), tensor, returned))

    @staticmethod
    def _refuse_answer() -> NoReturn:
        raise Unsupported("takes what is read over time already, which no readout does")

    def _stateful(
        self,
        module: nn.Module,
        path: str,
        takes: TimeAxes,
        signal: Signal,
        states: list[TracedValue | None],
        tensor: Tensor,
        returned: Any,
    ) -> None:
        """Record the call of a module with a state: one step, or all of them."""
        spikes, *others = tensors(returned)
        kinds = tuple("".join(part.kind.value[0] for part in axis) for axis in signal.axes.leading)
        if kinds != takes.value:
            merged = "; steps and samples in one axis share a state, so reshape before it" if "tb" in kinds else ""
            raise Unsupported(f"takes {_named(takes.value)}, and is given {_named(kinds)}{merged}")
        values = self.seen(signal, path)
        self.require_no_membrane(values)
        over_time, made = takes is not TimeAxes.STEP, []

        def node_of_module() -> Node:
            return Node(path, module, where=self.line())

        for place, value in enumerate(values):
            step = value if value.step is not None or not over_time else StepValue(value.node, place)
            call = self.step_graph.calls(module)
            for state in states:
                own = isinstance(state, Signal) and state.state == (id(module), call - 1)
                if isinstance(state, UnsupportedValue) and state.random and not call:
                    if self.from_rest:
                        continue
                    raise Unsupported(DRAWN_START)
                if not own and (state is not None or call):
                    which = "a state of its own making" if state is None else "a state that is changed"
                    raise Unsupported(f"is given {which} at its step {call}, not what it returned the step before")
            made.append(self.step_graph.stateful(module, step, node_of_module))
        node, last = made[-1].node, (id(module), self.step_graph.calls(module) - 1)
        leading = signal.axes.leading
        if spikes.shape[: len(leading)] == tensor.shape[: len(leading)]:
            out = signal.axes.around(spikes.shape[len(leading) :])
            for value, gave in zip(made, out.time_first(spikes), strict=True):
                self.step_graph.keep(value, gave)
            self.mark(spikes, Signal(out, tuple(made), last))
            self.describe(node, out.sample, ())
            self._mark_attributes(module, path, Signal(out, tuple(made)))
            if bool(spikes.any()) and bool((spikes >= 0).all()) and bool((spikes == spikes.round()).all()):
                self.not_negative.add(node)
            else:
                self.not_negative.discard(node)
        else:  # a readout that says for itself how it is read over time
            sample = Axes.of(leading[1:], spikes.shape[1:])
            self.shapes[node] = sample.sample
            self.mark(
                spikes,
                TimeReduction(GraphReadout(node, where=self.line()), tuple(value.step or 0 for value in made), sample),
            )
        others = [state for state in others if state is not spikes]
        self._mark_states(path, returned, others, Signal(signal.axes, tuple(made), last))

    def _mark_states(self, path: str, returned: Any, states: list[Tensor], spikes: Signal) -> None:
        """Mark the states that a module returns beside its spikes; the last, or the one named v, is its membrane."""
        named = [part.v for part in (returned if isinstance(returned, tuple) else ()) if hasattr(part, "v")]
        membrane = named[0] if named else (states[-1] if states else None)
        for state in states:
            if state is membrane and len(spikes.values) == 1 and state.shape == spikes.axes.shape:
                self._mark_membrane(path, state, spikes)
            else:
                self.mark(state, Signal(spikes.axes, (StepValue(-1, None),), spikes.state))

    def _mark_attributes(self, module: nn.Module, path: str, spikes: Signal) -> None:
        """Mark the membranes that a module keeps as attributes: of all steps that it ran, or of the last."""
        time = spikes.axes.time
        last = spikes if time is None else Signal(spikes.axes.without(time), spikes.values[-1:])
        for name in self.framework.membranes:
            membrane = getattr(module, name, None)
            if not isinstance(membrane, Tensor):
                continue
            for signal in (spikes, last):
                if membrane.shape == signal.axes.shape:
                    self._mark_membrane(path, membrane, signal)
                    break

    def _mark_membrane(self, path: str, membrane: Tensor, spikes: Signal) -> None:
        """Mark a tensor as the membrane of a neuron at the steps of these spikes of it."""
        made = [
            self.step_graph.stateless("membrane", [value], lambda: Node(f"{path}_membrane", None, membrane=True))
            for value in spikes.values
        ]
        for value, source, state in zip(made, spikes.values, spikes.axes.time_first(membrane), strict=True):
            self.step_graph.keep(value, state)
            self.shapes[value.node] = self.shapes[source.node]
        self.mark(membrane, replace(spikes, values=tuple(made)))


RUNS.add(Tracer.run.__code__)
CALL_AUTHORS |= {Tracer.run.__code__, Tracer.__torch_function__.__code__}


def _named(kinds: tuple[str, ...]) -> str:
    """Return axes in words, by the first letters of what they are of: `t`, `b` and `s`."""
    words = {"t": "time", "b": "batch", "s": "sample"}
    return " × ".join("·".join(words[kind] for kind in axis) for axis in kinds) or "one sample"


def _only(returned: Any) -> Tensor:
    parts = tensors(returned)
    if len(parts) != 1:
        raise Unsupported(f"returns {len(parts)} tensors")
    return parts[0]
