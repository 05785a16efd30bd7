"""Programs as data: what is read, what is written back, and the sentence for each that is none."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.neurons import program_of
from spikeserve.models.spec import Spec
from spikeserve.models.spec.expressions import leaf
from spikeserve.models.spec.nodes import Neuron, ProgramBase
from spikeserve.models.spec.program import InvalidProgram, read, write
from tests.networks import Case, dyadic_cases

LIF = ["u = decay * v + current", "s = fire(u, threshold)", "v = u - threshold * hold(s)"]


def spiking(lines: list[str], states: dict[str, Any] | None = None) -> Any:
    return read({"v": 0.0} if states is None else states, lines, "s", spiking=True)


def test_a_program_knows_its_states_its_parameters_and_its_operations() -> None:
    program = spiking(LIF)
    assert program.states == ("v",)
    assert program.parameters == ("decay", "threshold")
    assert program.operations == 6  # * + fire hold * -
    assert not program.several
    assert not program.hears_itself


def test_a_states_name_is_the_one_before_its_line_and_the_one_after_from_there_on() -> None:
    program = spiking(["v = 0.5 * v + current", "s = v > 1"])
    assert program.leaving is (program.after["v"] > 1.0)
    assert program.after["v"] is 0.5 * leaf("v") + leaf("current")


def test_a_numbers_float32_is_what_counts() -> None:
    assert spiking(["v = 0.1 * v + current", "s = v > 1"]) == spiking(["v = 0.10000000149 * v + current", "s = v > 1"])


def test_what_may_fire_twice_is_known_from_its_operations() -> None:
    assert spiking([*LIF[:1], "s = fire(u, 1) + fire(u, 2)", "v = u"]).several
    assert spiking([*LIF[:1], "s = fire_multiple(u, 1)", "v = u"]).several
    assert not spiking([*LIF[:1], "s = select(v, fire(u, 1), u > 2)", "v = u"]).several


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["u = v +"], "step, line 1: 'u = v +' is no assignment, expected 'name = value'"),
        (["u = v if v else 1"], "step, line 1: a IfExp is no operation, expected"),
        (["u = __import__('os')"], "step, line 1: there is no function '__import__', expected"),
        (["u = v.real"], "step, line 1: a Attribute is no operation"),
        (["u = fire(v)"], "step, line 1: fire takes 2 values, but is given others"),
        (["u = 'a'"], "step, line 1: ''a'' is no number"),
        (["u = 1e39"], "step, line 1: a number does not fit into float32"),
        (["u = v > 1 > 0"], "step, line 1: a Compare is no operation"),
        (["u = v\x00"], "step, line 1: expected at most 2000 printable characters of ASCII"),
        (["u = " + "v" * 2000], "step, line 1: expected at most 2000 printable characters of ASCII"),
        (["current = v"], "step, line 1: 'current' cannot be set"),
        (["v.x = 1"], "sets no name"),
        (["u = v", "u = v"], "step, line 2: 'u' is set twice, expected a new name"),
        (["v = w", "w = current", "s = v > 1"], "step, line 2: 'w' is used before it is set"),
        (["s = current > 1"], "states: 'v' is never set, expected a line 'v = …' in step"),
        (["v = v + current"], "spikes: 's' is set by no line of step"),
        (["v = current", "s = fire(v, 1) - fire(v, 2)"], "spikes: what leaves may be no whole number of spikes"),
        (["v = current", *(f"x{n} = v + {n}" for n in range(300)), "s = v > 1"], "has 302 lines, expected at most 256"),
    ],
)
def test_a_program_that_is_none_is_refused_in_a_sentence(lines: list[str], sentence: str) -> None:
    with pytest.raises(InvalidProgram) as error:
        spiking(lines)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["current", "spikes", "line", "a b", "1a", "x" * 65])
def test_a_state_has_no_name_that_means_something_else(name: str) -> None:
    with pytest.raises(InvalidProgram, match="expected a name of letters"):
        spiking([f"{name} = current", "s = current > 1"], {name: 0.0})


def test_a_state_starts_at_no_other_state() -> None:
    with pytest.raises(InvalidProgram, match="'w' starts at 'v', expected a number or a parameter"):
        spiking(["v = current", "w = current", "s = current > 1"], {"v": 0.0, "w": "v"})


@given(case=dyadic_cases())
def test_what_is_written_is_read_back_as_the_same_program(case: Case) -> None:
    for node in case.network.spec.nodes:
        if isinstance(node, Neuron):
            program = program_of(node)
            lines, leaving = write(program)
            starts = {name: start.detail for name, start in program.starts.items()}
            again = read(starts, lines, leaving, spiking=program.spiking)  # type: ignore[arg-type]
            assert write(again) == (lines, leaving)
            assert again == program


def test_states_that_change_places_are_written_by_way_of_another_name() -> None:
    starts = {"v": 0.0, "w": 1.0}
    swap = spiking(["x = v", "v = w", "w = x", "s = current > 1"], starts)
    lines, leaving = write(swap)
    assert read(starts, lines, leaving, spiking=True) == swap


def test_threads_that_make_the_same_expression_make_one() -> None:
    names, together, interval = [f"name{n}" for n in range(20_000)], threading.Barrier(4), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            first, *others = pool.map(lambda _: (together.wait(), [leaf(name) for name in names])[1], range(4))
    finally:
        sys.setswitchinterval(interval)
    for other in others:
        assert all(one is another for one, another in zip(first, other, strict=True))


def neuron(**fields: Any) -> dict[str, Any]:
    program = {"states": {"v": 0.0}, "step": LIF, "spikes": "s"}
    return {"type": "Neuron", "name": "n", "program": program, "parameters": {"decay": 0.5, "threshold": 1.0}} | fields


def spec_of(node: dict[str, Any]) -> Spec:
    return Spec.read({"input": {"shape": [2]}, "time_steps": 4, "labels": ["a", "b"], "nodes": [node]})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"parameters": {"decay": 0.5}}, "parameters lacks 'threshold', which no line of the program sets"),
        ({"parameters": {"decay": 0.5, "threshold": 1.0, "tau": 2.0}}, "parameters has 'tau', which the program does"),
        ({"recurrent": {}}, "it is recurrent, but its program never asks for feedback"),
        ({"program": {"states": {"v": "spikes"}, "step": LIF, "spikes": "s"}}, "'v' starts at 'spikes'"),
        ({"program": {"states": {"v": 0.0}, "step": [], "spikes": "s"}}, "should have at least 1 item"),
        ({"program": {"states": {"v": 0.0}, "step": LIF, "output": "s"}}, "program.spikes"),
    ],
)
def test_a_node_that_does_not_fit_its_program_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        spec_of(neuron(**fields))
    assert sentence in str(error.value)


def test_a_node_holds_its_program_as_readable_lines() -> None:
    spec = spec_of(neuron())
    (node,) = Spec.read(spec.model_dump_json()).nodes
    assert isinstance(node, ProgramBase)
    assert node.program.step == tuple(LIF)
    assert node.read_program == program_of(node)
