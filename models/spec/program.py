"""A neuron's step as data: a program of readable lines, and the small grammar that reads them.

    {"states": {"v": 0.0},
     "step": ["u = decay * v + current", "s = fire(u, threshold)", "v = u - threshold * hold(s)"],
     "spikes": "s"}

Each line gives a name to a value. Names are set once, but for a state's: before its line it is the state of the step
before, and from there on the state after this one. `current` is what arrives, and `feedback` what a recurrent layer
sends back to itself. Any name that is never set is a parameter. The operators are + - * / > >= < <= ==, and the
functions those of `models.spec.expressions`. Nothing is executed: Python's parser makes a tree of a line, and whatever
in it is no operation is refused.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from keyword import iskeyword
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from spikeserve.models.spec.expressions import ARITY, Expression, constant, equal, evaluate, in_order, leaf, made

MAX_OPERATIONS, MAX_STATES, MAX_PARAMETERS = 256, 16, 64
MAX_LINES, MAX_CHARACTERS, MAX_DEPTH = 256, 2000, 64  # of a program, of a line, of operations within one another
CURRENT, FEEDBACK, SPIKES = "current", "feedback", "spikes"  # what arrives, what comes back, a recurrent layer's last
LINE = "line"  # of the array of a Delay's state
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
FUNCTIONS = frozenset(name for name in ARITY if name.isidentifier() and name != "neg")
RESERVED = frozenset({CURRENT, FEEDBACK, SPIKES, LINE})  # which no state and no parameter may be called

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARED = {ast.Gt: ">", ast.GtE: ">=", ast.Eq: "=="}
_REVERSED = {ast.Lt: ">", ast.LtE: ">="}


class InvalidProgram(ValueError):
    """A program that is none, in one sentence."""


@dataclass(frozen=True, eq=False)
class Program:
    """One step of a neuron as expressions of its states, its parameters, `current` and `feedback`.

    `starts`: each state's name, and the constant or the parameter that it is before the first step. `after`: the states
    after the step. `leaving`: what leaves, whole numbers of spikes if the neuron is `spiking`. `membrane`: what is
    recorded as its membrane after each step.
    """

    starts: Mapping[str, Expression]
    after: Mapping[str, Expression]
    leaving: Expression
    membrane: Expression
    spiking: bool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        # Expressions that are made alike are one object.
        return (self.roots, tuple(self.after), tuple(self.starts.items()), self.spiking)

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states."""
        return tuple(self.starts)

    @cached_property
    def roots(self) -> tuple[Expression, ...]:
        """What a step computes: what leaves, the membrane, and the states after it."""
        return (self.leaving, self.membrane, *self.after.values())

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that a step or a start needs, in order of use."""
        inputs = {CURRENT, FEEDBACK, *self.starts}
        leaves = (each.detail for each in in_order([*self.roots, *self.starts.values()]) if each.operation == "leaf")
        return tuple(name for name in leaves if isinstance(name, str) and name not in inputs)

    @cached_property
    def operations(self) -> int:
        """How many operations a step of one neuron takes."""
        return sum(each.operation in ARITY for each in in_order(self.roots))

    @cached_property
    def sees_signs(self) -> bool:
        """Whether a step may divide by a value that is 0, so that the sign of a zero decides between two infinities."""
        inputs = {leaf(name) for name in (CURRENT, FEEDBACK, *self.starts)}
        divisors = [each.operands[1] for each in in_order(self.roots) if each.operation in ("/", "fire_multiple")]
        return not inputs.isdisjoint(in_order(divisors))

    @cached_property
    def of_positive_zeros(self) -> Program:
        """The same step, which takes a current or feedback of -0 for 0: the sign of a zero sum hangs on its order."""
        known = {each: each + equal(each, 0.0) * 0.0 for each in (leaf(CURRENT), leaf(FEEDBACK))}
        leaving, membrane, *after = evaluate(self.roots, known, lambda each, operands: each.of(operands))
        return Program(self.starts, dict(zip(self.after, after, strict=True)), leaving, membrane, self.spiking)

    @cached_property
    def hears_itself(self) -> bool:
        """Whether the program asks for a recurrent layer's feedback."""
        return leaf(FEEDBACK) in in_order(self.roots)

    @cached_property
    def several(self) -> bool:
        """Whether a neuron may fire more than once in a step."""
        return self.spiking and _counts(self.leaving) not in (None, 0.0, 1.0)


def _counts(root: Expression) -> float | None:
    """Bound the spikes that an expression counts, by infinity where it has no bound; None where it is no count."""

    def compute(each: Expression, operands: Sequence[float | None]) -> float | None:
        if each.operation in (">", ">=", "==", "fire", "fire_above"):
            return 1.0
        if each.operation == "fire_multiple":
            return float("inf")
        if each.operation == "constant":
            number = float(each.detail or 0.0)
            return number if number >= 0 and number.is_integer() and str(number) != "-0.0" else None
        counts = operands[1:] if each.operation == "select" else operands
        known = [count for count in counts if count is not None]
        if len(known) < len(counts) or not counts:
            return None
        if each.operation in ("select", "maximum", "minimum", "hold"):
            return max(known)
        if each.operation == "*":
            return known[0] * known[1] if all(known) else 0.0
        return sum(known) if each.operation == "+" else None

    return evaluate([root], {}, compute)[0]


def read(states: Mapping[str, float | str], step: Iterable[str], leaving: str, *, spiking: bool) -> Program:
    """Read a program: each state with its start, the lines of a step, and the name of what leaves.

    Raises InvalidProgram with a sentence that names the line.
    """
    lines = [*step]
    if len(lines) > MAX_LINES:
        raise InvalidProgram(f"step: has {len(lines)} lines, expected at most {MAX_LINES}")
    for name in states:
        check_name(name, "state")
    reader = _Reader(dict.fromkeys(states))
    for number, line in enumerate(lines, start=1):
        reader.read_line(line, f"step, line {number}")
    for name in states:
        if name not in reader.named:
            raise InvalidProgram(f"states: '{name}' is never set, expected a line '{name} = …' in step")
    if leaving not in reader.named:
        what = "spikes" if spiking else "output"
        raise InvalidProgram(f"{what}: '{leaving}' is set by no line of step")
    starts = {name: leaf(start) if isinstance(start, str) else constant(start) for name, start in states.items()}
    named = reader.named
    membrane = named[next(iter(states))] if states and spiking else named[leaving]
    program = Program(starts, {name: named[name] for name in states}, named[leaving], membrane, spiking)
    check(program, leaving)
    return program


def check(program: Program, leaving: str = "what leaves") -> None:
    """Raise InvalidProgram for a program that is too large, or whose values no current and no state reaches."""
    most = ((program.operations, "operations", MAX_OPERATIONS), (len(program.starts), "states", MAX_STATES))
    for count, what, limit in (*most, (len(program.parameters), "parameters", MAX_PARAMETERS)):
        if count > limit:
            raise InvalidProgram(f"program: has {count} {what}, expected at most {limit}")
    inputs = {leaf(name) for name in (CURRENT, FEEDBACK, *program.starts)}
    for name, root in {**program.after, leaving: program.leaving}.items():
        if inputs.isdisjoint(in_order([root])):
            raise InvalidProgram(f"program: '{name}' depends on no state and no current, expected one that does")
    for name, start in program.starts.items():
        if start.detail in program.starts or start.detail in RESERVED:
            raise InvalidProgram(f"states: '{name}' starts at '{start.detail}', expected a number or a parameter")
    if program.spiking and _counts(program.leaving) is None:
        raise InvalidProgram(
            "spikes: what leaves may be no whole number of spikes, expected fire(…), a comparison, or a choice of these"
        )


def check_name(name: str, what: str) -> None:
    """Raise InvalidProgram for what cannot be the name of a state or a parameter."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InvalidProgram(
            f"{what} '{name[:80]}': expected a name of letters, digits and _ "
            f"that is none of {', '.join(sorted(RESERVED))}"
        )


class _Reader:
    """Reads lines into expressions; `named` are those that lines have set."""

    def __init__(self, states: Mapping[str, None]) -> None:
        self.states = states
        self.named: dict[str, Expression] = {}
        self.used: set[str] = set()
        self.operations = 0
        self.place = ""

    def fail(self, why: str) -> NoReturn:
        raise InvalidProgram(f"{self.place}: {why}")

    def read_line(self, line: str, place: str) -> None:
        self.place = place
        if len(line) > MAX_CHARACTERS or not line.isascii() or not line.isprintable():
            self.fail(f"expected at most {MAX_CHARACTERS} printable characters of ASCII")
        try:
            body = ast.parse(line.strip()).body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            self.fail(f"'{_cut(line)}' is no assignment, expected 'name = value'")
        if len(body) != 1 or not isinstance(body[0], ast.Assign) or len(body[0].targets) != 1:
            self.fail(f"'{_cut(line)}' is no assignment, expected one 'name = value'")
        target = body[0].targets[0]
        if not isinstance(target, ast.Name):
            self.fail(f"'{_cut(line)}' sets no name, expected 'name = value'")
        self.set(target.id, self.value(body[0].value, 0))

    def set(self, name: str, value: Expression) -> None:
        if name in self.named:
            self.fail(f"'{name}' is set twice, expected a new name")
        if not NAME.fullmatch(name) or name in RESERVED - {SPIKES, LINE}:
            self.fail(f"'{name[:80]}' cannot be set, expected a name that is no current and no feedback")
        if name in self.used and name not in self.states:
            self.fail(f"'{name}' is used before it is set")
        self.named[name] = value

    def value(self, tree: ast.expr, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            self.fail(f"operations lie more than {MAX_DEPTH} deep in one another, expected several lines")
        if isinstance(tree, ast.Name):
            return self.named_value(tree.id)
        if isinstance(tree, ast.Constant):
            return self.number(tree.value)
        operation, operands = self.operation(tree)
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            self.fail(f"the program has more than {MAX_OPERATIONS} operations")
        return made(operation, *(self.value(operand, depth + 1) for operand in operands))

    def named_value(self, name: str) -> Expression:
        if not NAME.fullmatch(name):
            self.fail(f"'{name[:80]}' is too long for a name, expected at most 64 letters, digits and _")
        self.used.add(name)
        return self.named[name] if name in self.named else leaf(name)

    def number(self, value: object) -> Expression:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"'{_cut(repr(value))}' is no number")
        if not abs(value) <= float(np.finfo(np.float32).max):
            self.fail("a number does not fit into float32")
        return constant(float(np.float32(value)))

    def operation(self, tree: ast.expr) -> tuple[str, list[ast.expr]]:
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return "neg", [tree.operand]
        if isinstance(tree, ast.BinOp) and type(tree.op) in _BINARY:
            return _BINARY[type(tree.op)], [tree.left, tree.right]
        if isinstance(tree, ast.Compare) and len(tree.ops) == 1:
            operands, kind = [tree.left, tree.comparators[0]], type(tree.ops[0])
            if kind in _REVERSED:
                return _REVERSED[kind], operands[::-1]
            if kind in _COMPARED:
                return _COMPARED[kind], operands
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in FUNCTIONS:
            if tree.keywords or len(tree.args) != ARITY[tree.func.id]:
                self.fail(f"{tree.func.id} takes {ARITY[tree.func.id]} values, but is given others")
            return tree.func.id, tree.args
        called = getattr(getattr(tree, "func", None), "id", None)
        what = f"there is no function '{called[:80]}'" if called else f"a {type(tree).__name__} is no operation"
        return self.fail(f"{what}, expected + - * / > >= < <= == or one of {', '.join(sorted(FUNCTIONS))}")


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


LOWEST, HIGHEST = 0, 9  # how tightly a written value holds together
_INFIX: Mapping[str, int] = {">": 1, ">=": 1, "==": 1, "+": 2, "-": 2, "*": 3, "/": 3}
MAX_WRITTEN = 16  # operations that are written in one line


def write(program: Program, called: Mapping[Expression, str] = MappingProxyType({})) -> tuple[list[str], str]:
    """Write a program's step as lines, which `read` reads back, and the name of what leaves.

    A value that is used more than once has a line of its own, under the name that it is `called` if that is free. It
    is the line of a state where no later line needs what the state was before; else the state is set at the end.
    """
    taken = {*program.starts, *program.parameters, *(RESERVED - {SPIKES, LINE})}
    roots, order = (program.leaving, *program.after.values()), in_order([program.leaving, *program.after.values()])
    lines_of = _with_lines(order, {*roots})
    reads = {each: _read_by(each, lines_of) for each in lines_of}
    copied = {each.detail for each in program.after.values()}  # states of which another becomes the old value
    lines: list[str] = []
    known: dict[Expression, tuple[str, int]] = {}
    leaving = ""
    if not program.leaving.operands:  # before a line sets what it is a copy of
        leaving = unused("x", taken)
        lines.append(f"{leaving} = {program.leaving.detail}")
    left = dict(program.after)
    for place, each in enumerate(order):
        known[each] = _written(each, [known[operand] for operand in each.operands])
        if each not in lines_of:
            continue
        later = {name for other in order[place + 1 :] for name in reads.get(other, ())} | copied
        becomes = next((name for name, after in left.items() if after is each and name not in later), None)
        if becomes:
            del left[becomes]
        usual = "s" if each is program.leaving and program.spiking else "x"
        name = becomes or unused(called.get(each, usual), taken)
        lines.append(f"{name} = {known[each][0]}")
        known[each] = (name, HIGHEST)
    leaving = leaving or known[program.leaving][0]
    while left:  # copies, each before another state is set that it is a copy of
        free = next((name for name in left if all(other.detail != name for other in left.values())), None)
        if free is None:
            free, saved = next(iter(left)), unused("x", taken)
            lines.append(f"{saved} = {free}")
            left = {name: leaf(saved) if after.detail == free else after for name, after in left.items()}
        after = left.pop(free)
        lines.append(f"{free} = {known[after][0] if after in known else after.detail}")
    return lines, leaving


def unused(name: str, taken: set[str]) -> str:
    """Return a name like this one that a line may set and that is not taken, and take it."""
    stem = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_")[:48] or "x"
    stem = f"x_{stem}" if stem[0].isdigit() else stem
    numbered = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
    free = next(each for each in (stem, *numbered) if each not in taken and not iskeyword(each))
    taken.add(free)
    return free


def _with_lines(order: Sequence[Expression], roots: set[Expression]) -> set[Expression]:
    """Return which expressions have a line of their own."""
    uses = Counter(operand for each in order for operand in each.operands)
    own, written = set[Expression](), dict[Expression, int]()
    for each in order:
        written[each] = sum(written[operand] for operand in each.operands) + bool(each.operands)
        if each.operands and (each in roots or uses[each] > 1 or written[each] > MAX_WRITTEN):
            own.add(each)
            written[each] = 0
    return own


def _read_by(root: Expression, own: set[Expression]) -> set[str]:
    """Return the names that are read in the line of an expression."""
    names, waiting = set[str](), [*root.operands]
    while waiting:
        each = waiting.pop()
        if each.operation == "leaf":
            names.add(str(each.detail))
        elif each not in own:
            waiting += each.operands
    return names


def _written(each: Expression, operands: Sequence[tuple[str, int]]) -> tuple[str, int]:
    if each.operation == "leaf":
        return str(each.detail), HIGHEST
    if each.operation == "constant":
        return str(np.float32(each.detail)), HIGHEST if str(each.detail)[0] != "-" else LOWEST
    if each.operation in _INFIX:
        tight = _INFIX[each.operation]
        (first, left), (second, right) = operands
        first = first if left >= tight + (tight == 1) else f"({first})"
        second = second if right > tight else f"({second})"
        return f"{first} {each.operation} {second}", tight
    if each.operation == "neg":
        (inner, tight) = operands[0]
        return f"-{inner}" if tight == HIGHEST else f"-({inner})", LOWEST
    return f"{each.operation}({', '.join(inner for inner, _ in operands)})", HIGHEST
