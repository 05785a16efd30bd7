"""A step and its gradients as Triton kernels: the expressions of `derivation`, written as Triton source.

Triton reads the source file of a function. So each rule's kernels are written as a module into a folder of this
process, which goes when the process does, and are imported from there. A program runs a block of neurons of a batch
through all steps, with their states in registers:

    forward   loads parameters and states; at each step loads the current, stores what leaves and, if STORED, what the
              backward pass needs; stores the states
    backward  the same from the last step to the first, with gradients in place of states, to which it adds up those of
              trained parameters and, if SUMMED, of a current that is the same at every step

Arrays are rows of one element for each neuron of each sample, and a pointer goes from row to row with the steps.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from spikeserve.models.spec.expressions import Expression, evaluate, leaf
from spikeserve.training.fit.operators.derivation import CURRENT, FEEDBACK, SLOPE, TO_LEAVING, Rule, Step, gradient_of

BLOCK = 128  # neurons of a program
# Without fusion each multiplication and each addition rounds on its own, so that spikes are those of every engine.
LAUNCH_OPTIONS: Mapping[str, Any] = {"BLOCK": BLOCK, "num_warps": 4, "enable_fp_fusion": False}

# Triton's own `/` and `sqrt` are less exact on a device.
OPERATIONS: Mapping[str, str] = {
    "+": "{} + {}",
    "-": "{} - {}",
    "*": "{} * {}",
    "/": "tl.div_rn({}, {})",
    "neg": "-{}",
    "abs": "tl.abs({})",
    "minimum": "tl.where({0} < {1}, {0}, {1})",
    "maximum": "tl.where({0} > {1}, {0}, {1})",
    ">": "({} > {}).to(tl.float32)",
    ">=": "({} >= {}).to(tl.float32)",
    "==": "({} == {}).to(tl.float32)",
    "select": "tl.where({} > 0.0, {}, {})",
    "exp": "operations.exp({})",
    "sqrt": "tl.sqrt_rn({})",
    "floor": "tl.floor({})",
    "trunc": "tl.where({0} < 0.0, tl.ceil({0}), tl.floor({0}))",
    "fire": "({} >= {}).to(tl.float32)",
    "fire_above": "({} > {}).to(tl.float32)",
    "fire_multiple": "operations.fire_multiple({}, {})",
    "hold": "{}",
    "nearest": "operations.nearest({}, {})",
    "sigmoid": "tl.div_rn(1.0, 1.0 + tl.exp(0.0 - {}))",
}


@dataclass(frozen=True)
class Kernels:
    """A rule's step and its kernels; `source` says what their arguments are."""

    step: Step
    forward: Any
    backward: Any


@cache
def kernels_of(rule: Rule) -> Kernels:
    """Return a rule's kernels, written and imported at the first call."""
    step = Step.of(rule)
    path = _folder() / f"kernels_{next(_numbers)}.py"
    path.write_text(source(step), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"spikeserve_triton_{path.stem}", path)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Kernels(step, module.forward, module.backward)


_numbers = count()


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="spikeserve-triton-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class _Writer:
    """Writes expressions as lines of a kernel, each of which gives a name to a block."""

    def __init__(self) -> None:
        self.constants: list[str] = []
        self.lines: list[str] = []

    def write(self, roots: Sequence[Expression], known: Mapping[Expression, str]) -> list[str]:
        """Write what `roots` need, and return their names."""
        return evaluate(roots, known, self._compute)

    def _compute(self, expression: Expression, operands: Sequence[str]) -> str:
        if expression.operation == "constant":
            name = f"constant_{len(self.constants)}"
            self.constants.append(f"{name} = tl.full([BLOCK], {expression.detail!r}, tl.float32)")
            return name
        name = f"value_{len(self.lines)}"
        self.lines.append(f"{name} = {OPERATIONS[expression.operation].format(*operands)}")
        return name


def source(step: Step) -> str:
    """Return the source of a module with a step's kernels, `forward` and `backward`.

    Their arguments: steps, elements of a row and neurons; then what the kernels' first lines name, in this order:

        forward   the current's distance from step to step; current, what leaves, feedback of a recurrent layer; the
                  parameters; the states, which are replaced; what is stored; STORED
        backward  the surrogate's slope; the gradients of what leaves, of the current and of the feedback; the
                  parameters; the gradients of the states, which are replaced; what is stored; the gradients of trained
                  parameters, which are added to, one for each element; SUMMED

    A pointer of `backward` to what is of every step is to the row of the last one.
    """
    head = [
        "import triton",
        "import triton.language as tl",
        "",
        "from spikeserve.training.fit.operators import triton_operations as operations",
    ]
    return "\n".join([*head, "", "", *_forward(step), "", "", *_backward(step), ""])


def _forward(step: Step) -> list[str]:
    writer, stored = _Writer(), _named("stored", map(str, range(len(step.stored))))
    states, parameters = _named("state", step.states), _named("parameter", step.parameters)
    known = {leaf(name): state for name, state in zip(step.states, states, strict=True)}
    known |= {leaf(name): parameter for name, parameter in zip(step.parameters, parameters, strict=True)}
    feedback = [] if step.to_feedback is None else ["feedback"]
    known |= {CURRENT: "current", FEEDBACK: "feedback"}
    names = writer.write([step.leaving, *step.after, *step.stored], known)
    leaving, after, kept = names[0], names[1 : 1 + len(step.states)], names[1 + len(step.states) :]
    loop = [
        *(_load(name) for name in ["current", *feedback]),
        *writer.lines,
        _store("leaving", leaving),
        *_under("if STORED:", [*map(_store, stored, kept), *_move("+", stored)]),
        *_together(states, after),
        "current_pointer += current_stride",
        *_move("+", ["leaving"]),
    ]
    pointers = ["current", "leaving", *feedback, *parameters, *states, *stored]
    start = [*_parameters(parameters), *map(_load, states), *writer.constants]
    return _kernel("forward", ["current_stride"], pointers, "STORED", start, loop, map(_store, states, states))


def _backward(step: Step) -> list[str]:
    writer, stored = _Writer(), _named("stored", map(str, range(len(step.stored))))
    states, parameters = _named("to_state", step.states), _named("parameter", step.parameters)
    trained = _named("to_trained", step.trained)
    feedback = [] if step.to_feedback is None else ["to_feedback"]
    known = {leaf(name): parameter for name, parameter in zip(step.parameters, parameters, strict=True)}
    known |= {gradient_of(name): state for name, state in zip(step.states, states, strict=True)}
    known |= {TO_LEAVING: "to_leaving", SLOPE: "slope"} | dict(zip(step.stored, stored, strict=True))
    ends = [] if step.to_feedback is None else [step.to_feedback]
    current, *others = writer.write([step.to_current, *ends, *step.to_before, *step.to_trained], known)
    before, of_trained = others[len(ends) :][: len(states)], others[len(ends) + len(states) :]
    loop = [
        *map(_load, ["to_leaving", *stored]),
        *writer.lines,
        *_under("if SUMMED:", [f"to_current += {current}"]),
        *_under("else:", [_store("to_current", current), *_move("-", ["to_current"])]),
        *map(_store, feedback, others),
        *(f"{name} += {value}" for name, value in zip(trained, of_trained, strict=True)),
        *_together(states, before),
        *_move("-", ["to_leaving", *stored]),
    ]
    start = [
        *_parameters(parameters),
        *map(_load, [*states, *trained]),
        *writer.constants,
        "slope = tl.full([BLOCK], slope, tl.float32)",
        "to_current = tl.full([BLOCK], 0.0, tl.float32)",
    ]
    end = [*_under("if SUMMED:", [_store("to_current", "to_current")]), *map(_store, states, states)]
    end += map(_store, trained, trained)
    pointers = ["to_leaving", "to_current", *feedback, *parameters, *states, *stored, *trained]
    return _kernel("backward", ["slope"], pointers, "SUMMED", start, loop, end)


def _kernel(
    name: str,
    numbers: Iterable[str],
    pointers: Iterable[str],
    choice: str,
    start: Iterable[str],
    loop: Iterable[str],
    end: Iterable[str],
) -> list[str]:
    arguments = ["steps", "row", "size", *numbers, *(f"{pointer}_pointer" for pointer in pointers)]
    body = [
        "place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)",
        "inside = place < row",
        "neuron = place % size",
        *start,
        *_under("for _ in range(steps):", loop),
        *end,
    ]
    signature = ", ".join([*arguments, f"{choice}: tl.constexpr", "BLOCK: tl.constexpr"])
    # Triton would compile a kernel for each shape and alignment. A thread handles one element, so that gains nothing.
    return [f"@triton.jit(do_not_specialize={arguments})", *_under(f"def {name}({signature}):", body)]


def _under(head: str, lines: Iterable[str]) -> list[str]:
    return [head, *(f"    {line}" for line in lines or ["pass"])]


def _named(kind: str, names: Iterable[str]) -> list[str]:
    """Name what a kernel holds; an author's name may be any other word of the kernel."""
    return [f"{kind}_{name}" for name in names]


def _parameters(parameters: Iterable[str]) -> list[str]:
    # Outside of the layer a parameter is 1, so that none divides by 0 there.
    return [f"{name} = tl.load({name}_pointer + neuron, mask=inside, other=1.0)" for name in parameters]


def _load(name: str) -> str:
    return f"{name} = tl.load({name}_pointer + place, mask=inside, other=0.0)"


def _store(name: str, value: str) -> str:
    return f"tl.store({name}_pointer + place, {value}, mask=inside)"


def _move(sign: str, names: Iterable[str]) -> list[str]:
    return [f"{name}_pointer {sign}= row" for name in names]


def _together(names: Sequence[str], values: Sequence[str]) -> list[str]:
    """Return an assignment of all names at once, since a value may be another's name."""
    return [f"{', '.join(names)} = {', '.join(values)}"] if names else []
