"""Neurons of one's own: a step written as a Python function, or as the lines of a bundle.

    def adaptive(current, v, w, *, decay, slow, gain, threshold):
        u = decay * v + current - w
        spikes = fire(u, threshold)
        return spikes, u - threshold * hold(spikes), slow * w + gain * hold(spikes)

    layer = Neuron(64, step=adaptive, decay=0.9, slow=0.98, gain=0.1, threshold=1.0, learn=["decay", "slow"])

A function's positional arguments are `current`, `feedback` where the layer is recurrent, and the states after the step
before; its keyword-only arguments are parameters. It returns what leaves the neuron, and then the states in the same
order. It is run once, on expressions (`models.spec.expressions`), which become the lines of a program: those lines are
trained, published and served. So it may use any Python, but an `if` cannot hang on a value of the step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from traceback import extract_tb
from typing import Any, ClassVar, NoReturn, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import ValidationError
from torch import Tensor

from spikeserve.models.spec import describe_first_error
from spikeserve.models.spec.expressions import ARITY, Expression, constant, in_order, leaf
from spikeserve.models.spec.nodes import ProgramIntegrator, ProgramNeuron, Recurrent
from spikeserve.models.spec.parameters import MAX_FLOAT32, PER_NEURON, show
from spikeserve.models.spec.program import CURRENT, FEEDBACK, FUNCTIONS, InvalidProgram, Program, check, write
from spikeserve.training.config import Surrogate
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.architecture import NodeTraining
from spikeserve.training.fit.layers import Neurons
from spikeserve.training.fit.modules import NeuronModule

Function: TypeAlias = Callable[..., Any]
Value: TypeAlias = float | ArrayLike | Tensor  # of a parameter: one number, or one for each neuron
TO_USE = (
    f"a step has + - * /, comparisons, abs, and of training.library equal, {', '.join(sorted(FUNCTIONS - {'abs'}))}"
)


class OwnNeuron(NeuronModule):
    """The base of the layers whose step is their author's; `leaving` is what a list of lines names what leaves by."""

    node: ClassVar[type[ProgramNeuron | ProgramIntegrator]]
    leaving: ClassVar[str]

    def __init__(
        self,
        *shape: int,
        step: Function | Sequence[str],
        states: Mapping[str, float | str] | None = None,
        recurrent: bool | Recurrent = False,
        batch_first: bool = False,
        learn: Sequence[str] = (),
        surrogate: Surrogate | str = Surrogate.SUPERSPIKE,
        slope: float = 10.0,
        **parameters: Any,
    ) -> None:
        leaving = parameters.pop(self.leaving, None)
        super().__init__(
            *shape, batch_first=batch_first, learn=learn, surrogate=surrogate, slope=slope,
            step=step, states=states, leaving=leaving, recurrent=recurrent, parameters=parameters,
        )  # fmt: skip

    def _neurons(self, fields: dict[str, Any], learn: Sequence[str]) -> Neurons:
        kind, step, recurrent = type(self).__name__, fields["step"], fields["recurrent"]
        parameters, states, leaving = dict(fields["parameters"]), fields["states"], fields["leaving"]
        if callable(step):
            if leaving is not None:
                raise InvalidConfig(
                    f"{kind}: {self.leaving} is {leaving!r}, but the first value that a function returns is what leaves"
                )
            author = _Author(kind, step)
            parameters = author.parameters(parameters)
            states, (lines, leaving) = author.written(states or {}, parameters, spiking=self.node is ProgramNeuron)
        elif isinstance(step, str) or not isinstance(step, Sequence):
            raise InvalidConfig(f"{kind}: step is {str(step)[:80]!r}, expected a function, or a list of lines")
        else:
            lines, states = [*step], states or {}
        values = {name: self._value(name, value) for name, value in parameters.items()}
        text = {"states": states, "step": lines, self.leaving: leaving}
        numbers = {name: float(value) if value.ndim == 0 else PER_NEURON for name, value in values.items()}
        back = {"recurrent": Recurrent() if recurrent is True else recurrent} if recurrent else {}
        try:
            node = self.node(name="neuron", program=text, parameters=numbers, **back)
        except ValidationError as error:
            sentence = describe_first_error(error).removeprefix("node 'neuron': ")
            raise InvalidConfig(f"{kind}: {sentence}") from error
        for name in learn:
            if name not in values:
                raise InvalidConfig(f"{kind}: learn holds '{name}', which is none of its parameters")
        node = node.with_values(dict.fromkeys(learn, PER_NEURON))
        neurons = Neurons(node, self.shape, NodeTraining(learned=dict.fromkeys(learn, 0.0)))
        for name, value in values.items():
            neurons.set_parameter(name, value)
        return neurons

    def _value(self, name: str, value: Value) -> Tensor:
        try:
            with np.errstate(over="ignore"):  # infinite then, and refused
                array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, np.float32)
        except (TypeError, ValueError):
            array = np.full((), np.nan, np.float32)
        shape = show(self.shape)
        if array.shape not in ((), self.shape):
            what = f"of shape {show(array.shape)}"
        elif not np.isfinite(array).all() or isinstance(value, bool | str):
            what = repr(value)[:80]
        else:
            return torch.from_numpy(array.copy())
        raise InvalidConfig(f"{type(self).__name__}: {name} is {what}, expected a number, or an array of shape {shape}")


class Neuron(OwnNeuron):
    """Neurons whose step is your own; they return spikes.

    `step`: a function of `current`, `feedback` (if `recurrent`) and the states, and of keyword-only parameters, which
    returns the spikes and then the states after the step. Or a list of lines, as in a bundle (docs/spec.md), with the
    name of what leaves as `spikes`. The first state is the membrane. `states`: where each state starts, a number or a
    parameter's name; a function's start at 0 unless they are named. `parameters`: each a number, or an array of the
    layer's shape. `learn`: those that are trained, for each neuron its own, unbounded: bound them in the step by
    `minimum` and `maximum`.

    Raises InvalidConfig for a step that is none, and for a parameter too few or too many.
    """

    node = ProgramNeuron
    leaving = "spikes"


class Integrator(OwnNeuron):
    """Neurons whose step is your own and that never fire, as the readout; see `Neuron`.

    The function returns what leaves, any number, and then the states; of a list of lines that is named `output`.
    """

    node = ProgramIntegrator
    leaving = "output"


@dataclass
class _Author:
    """A step as its author's function, of a layer of this `kind`."""

    kind: str
    function: Function

    def __post_init__(self) -> None:
        self.name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            arguments = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            self.fail("has no signature that Python knows, expected a function of your own")
        if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in arguments):
            self.fail("takes any arguments, expected current, each state, and after a * each parameter")
        self.keywords = {each.name: each.default for each in arguments if each.kind is each.KEYWORD_ONLY}
        self.positional = [each.name for each in arguments if each.kind is not each.KEYWORD_ONLY]
        if self.positional[:1] != [CURRENT]:
            self.fail(f"takes {', '.join(self.positional) or 'nothing'}, expected current first")
        for each in arguments:
            if each.name in self.positional and each.default is not each.empty:
                self.fail(f"has a default for '{each.name}', expected states={{'{each.name}': …}} for where it starts")
        self.states = [name for name in self.positional[1:] if name != FEEDBACK]

    def fail(self, why: str, cause: Exception | None = None) -> NoReturn:
        raise InvalidConfig(f"{self.kind}: step '{self.name}' {why}") from cause

    def parameters(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return a value for each keyword-only argument, those in `values` or the function's defaults."""
        for name in values:
            if name not in self.keywords:
                what = "is a state" if name in self.states else "it does not take"
                self.fail(f"is given '{name}', which {what}, expected {', '.join(self.keywords) or 'no parameter'}")
        parameters = {name: values.get(name, default) for name, default in self.keywords.items()}
        for name, value in parameters.items():
            if value is inspect.Parameter.empty:
                self.fail(f"takes '{name}', which has no value, expected {self.kind}(…, {name}=…)")
        return parameters

    def written(
        self, starts: Mapping[str, float | str], parameters: Mapping[str, Value], *, spiking: bool
    ) -> tuple[dict[str, float | str], tuple[list[str], str]]:
        """Run it, and return where each state starts, the lines that it comes to, and the name of what leaves."""
        for name in starts:
            if name not in self.states:
                self.fail(f"has no state '{name}', expected {', '.join(self.states) or 'no states'}")
        starts = {name: starts.get(name, 0.0) for name in self.states}
        leaving, *after = self.run(parameters)
        try:
            begun = {name: leaf(start) if isinstance(start, str) else constant(start) for name, start in starts.items()}
        except TypeError as error:
            self.fail(f"starts at none of its parameters and no number: {error}", error)
        named = dict(zip(self.states, after, strict=True))
        membrane = after[0] if after and spiking else leaving
        program = Program(begun, named, leaving, membrane, spiking)
        for name in parameters:
            if name not in program.parameters:
                self.fail(f"takes '{name}', which changes nothing that it returns")
        try:
            check(program, "what it returns first")
            return dict(starts), write(program)
        except InvalidProgram as error:
            self.fail(f"is no step of a neuron: {error}", error)

    def run(self, parameters: Mapping[str, Value]) -> list[Expression]:
        """Call the author's function once; give the expression that leaves, and those of the states after the step."""
        try:
            returned = self.function(*map(leaf, self.positional), **{name: leaf(name) for name in parameters})
        except Exception as error:  # whatever goes wrong in it is its author's to know
            code = getattr(self.function, "__code__", None)
            places = [each for each in extract_tb(error.__traceback__) if code and each.filename == code.co_filename]
            where = f", line {places[-1].lineno} of {Path(places[-1].filename).name}" if places else ""
            why = (str(error).splitlines() or [type(error).__name__])[0]
            help_ = f"; {TO_USE}" if "Expression" in why else ""
            what = "" if isinstance(error, TypeError | NameError) else f"{type(error).__name__}: "
            self.fail(f"cannot be run{where}: {what}{why}{help_}", error)
        values = [*returned] if isinstance(returned, tuple | list) else [] if returned is None else [returned]
        names = ["what leaves", *(f"'{name}'" for name in self.states)]
        if len(values) != len(names):
            self.fail(f"returns {len(values) or 'no'} value{'s' * (len(values) > 1)}, expected {', '.join(names)}")
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, Expression):
                self.fail(f"returns {str(value)[:80]} as {name}, expected what it computes from current and its states")
        for each in in_order(values):
            if each.operation not in (*ARITY, "leaf", "constant"):
                self.fail(f"uses {each.operation}, which is no operation: {TO_USE}")
            if isinstance(each.detail, Real) and not abs(float(each.detail)) <= MAX_FLOAT32:
                self.fail(f"uses the number {each.detail}, which does not fit into float32")
        return values
