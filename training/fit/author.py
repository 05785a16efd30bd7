"""A neuron's step as its author's function, which becomes a program.

    def adaptive(current, v, w, *, decay, slow, gain, threshold):
        u = decay * v + current - w
        spikes = fire(u, threshold)
        return spikes, u - threshold * hold(spikes), slow * w + gain * hold(spikes)

A function's positional arguments are `current`, `feedback` where the layer is recurrent, and the states after the step
before; its keyword-only arguments are parameters. It returns what leaves the neuron, and then the states in the same
order. It is run once, on expressions (`models.spec.expressions`), which become the lines of a program: those lines are
trained, published and served. So it may use any Python, but an `if` cannot hang on a value of the step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from traceback import extract_tb
from typing import Any, NoReturn, TypeAlias

from spikeserve.models.spec.expressions import ARITY, Expression, constant, in_order, leaf
from spikeserve.models.spec.parameters import MAX_FLOAT32
from spikeserve.models.spec.program import CURRENT, FEEDBACK, FUNCTIONS, InvalidProgram, Program, check, write
from spikeserve.training.errors import InvalidConfig

Function: TypeAlias = Callable[..., Any]
TO_USE = (
    f"a step has + - * /, comparisons, abs, and of training.library equal, {', '.join(sorted(FUNCTIONS - {'abs'}))}"
)


@dataclass
class Author:
    """A step as its author's function, of a layer of this `kind`; raises InvalidConfig for one that is none."""

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
        """Raise InvalidConfig, which names the neuron and the function."""
        raise InvalidConfig(f"{self.kind}: step '{self.name}' {why}") from cause

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
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

    def written(self, starts: Mapping[str, float | str], parameters: Mapping[str, Any], leaving: str) -> dict[str, Any]:
        """Run it, and return its program as in a bundle, where the name of what leaves is that of `leaving`."""
        for name in starts:
            if name not in self.states:
                self.fail(f"has no state '{name}', expected {', '.join(self.states) or 'no states'}")
        starts = {name: starts.get(name, 0.0) for name in self.states}
        left, *after = self.run(parameters)
        try:
            begun = {name: leaf(start) if isinstance(start, str) else constant(start) for name, start in starts.items()}
        except TypeError as error:
            self.fail(f"starts at none of its parameters and no number: {error}", error)
        named = dict(zip(self.states, after, strict=True))
        spiking = leaving == "spikes"
        program = Program(begun, named, left, after[0] if after and spiking else left, spiking)
        for name in parameters:
            if name not in program.parameters:
                self.fail(f"takes '{name}', which changes nothing that it returns")
        try:
            check(program, "what it returns first")
            lines, name = write(program)
        except InvalidProgram as error:
            self.fail(f"is no step of a neuron: {error}", error)
        return {"states": starts, "step": lines, leaving: name}

    def run(self, parameters: Mapping[str, Any]) -> list[Expression]:
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
