"""Each target gives, for each node and rule, what is worked out by hand, and the reference's bits on drawn networks."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, RunResult
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.neurons import OPERATIONS
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.expressions import ARITY
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.sums import Summation, sums_of
from spikeserve.training.errors import ExportRefused, InvalidConfig
from tests.contracts.nodes import (
    ALIKE,
    GROUPS,
    ONCE,
    READOUTS,
    ROWS,
    TOGETHER,
    operations,
    reading,
    roots_and_exponentials,
)
from tests.contracts.targets import ALONE, JOINED
from tests.networks import CONNECTIONS, FIRING, INTEGRATING, JOINS, NODES, Case, dyadic_cases
from tests.same import EVERYTHING

# What is compiled, and the exported file, have each row once: neurons as other kinds are the engines' affair.
OF = {"wasm": ["each step"], "sanitized c": []} | {n: [*TOGETHER.keys() - {"alike"}] for n in ("c", "onnx file")}


@pytest.mark.parametrize(
    ("target", "group"), [(name, group) for group in TOGETHER for name in JOINED if group in OF.get(name, TOGETHER)]
)
def test_each_node_gives_what_is_worked_out_by_hand(target: str, group: str) -> None:
    """The answer after so many steps is what leaves each row at the last of them, in a batch of any size."""
    rows, steps = TOGETHER[group], len(TOGETHER[group].steps)
    first, *others = JOINED[target].ways(rows.network)

    def inputs(batch: int, time_steps: int) -> DenseInputs:  # in which the first sample is the rows' own
        samples = np.stack([np.roll(rows.steps, place, 0) for place in range(7)], 1)[:time_steps, :batch]
        return DenseInputs(samples[:1] if rows.network.spec.coding is Coding.DIRECT else samples, time_steps)

    for time_steps in range(1, steps + 1):
        result = first(inputs(1, time_steps))
        assert rows.wrong(result.readout[0], time_steps - 1) == {}
    assert not result.membranes or rows.wrong_membranes(result.membranes) == {}
    for run in (first, *others):
        many, none = run(inputs(7, steps)), run(inputs(0, steps))
        assert none.readout.shape == (0, *result.readout.shape[1:])
        assert_same_spikes(many[:1], result)
        assert_same_spikes(many, first(inputs(7, steps)))


@pytest.mark.parametrize("target", ALONE)
def test_each_node_alone_gives_what_is_worked_out_by_hand_or_is_refused_by_a_sentence(target: str) -> None:
    held = 0
    for name, row in (ROWS | ONCE | GROUPS["rounding"]).items():
        steps = row.steps[:, np.newaxis]
        if sentence := ALONE[target].refuses(row.network):
            with pytest.raises(Exception, match=re.escape(sentence)):
                ALONE[target].ways(row.network)
            continue
        (run,) = ALONE[target].ways(row.network)
        for time_steps in range(1, len(steps) + 1):
            samples = steps[:1] if row.network.spec.coding is Coding.DIRECT else steps[:time_steps]
            answer = run(DenseInputs(np.repeat(samples, 7, 1), time_steps)).readout
            assert answer.tolist() == [row.leaves[time_steps - 1].tolist()] * 7, name
        held += 1
    assert held > len(ROWS) / 4


def assert_same_spikes(result: RunResult, expected: RunResult) -> None:
    """Check what both have, and no more: not all targets record membranes, or count operations."""
    np.testing.assert_array_equal(result.readout, expected.readout)
    np.testing.assert_array_equal(result.spike_counts, expected.spike_counts)
    for kind in ("rasters", "membranes"):
        found, wanted = getattr(result, kind), getattr(expected, kind)
        for name in found.keys() & wanted.keys():
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


@pytest.mark.parametrize(("readout", "nodes", "steps", "expected", "counts"), READOUTS)
@pytest.mark.parametrize("target", [name for name in JOINED if name != "sanitized c"])
def test_a_readout_is_what_is_worked_out_by_hand(
    target: str, readout: str, nodes: list[Any], steps: Any, expected: Sequence[float], counts: list[int]
) -> None:
    network, inputs = reading(readout, nodes, steps)
    for run in JOINED[target].ways(network):
        result = run(inputs)
        assert (result.readout[0].tolist(), result.spike_counts[0].tolist()) == (
            np.array(expected, np.float32).tolist(),
            counts,
        )


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 7.25, -0.75, 88.7, -103.0]
SPECIAL += [8388607.5, 8388608.0, -8388609.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("target", [*ENGINES, "c", "onnx file"])
def test_an_operation_gives_the_bits_of_its_definition(target: str) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, (2, 1000), np.uint32).view(np.float32)
    pairs = (grid.ravel() for grid in np.meshgrid(*[np.array(SPECIAL, np.float32)] * 2))
    x, y = (np.concatenate([each, others]) for each, others in zip(pairs, bits, strict=True))
    network, inputs = operations(x, y)
    c = network.tensors[f"n{sorted(ARITY).index('select')}.c"]
    for run in JOINED[target].ways(network):
        found = run(inputs).readout.reshape(len(ARITY), -1)
        for (operation, arity), values in zip(sorted(ARITY.items()), found, strict=True):
            with np.errstate(all="ignore"):
                expected = np.asarray(OPERATIONS[operation](*[x, y, c][:arity]), np.float32)
            np.testing.assert_array_equal(values, expected, err_msg=operation)
            numbers = ~np.isnan(expected)
            np.testing.assert_array_equal(np.signbit(values[numbers]), np.signbit(expected[numbers]), operation)


LARGEST = 88.72283  # e to the power of the next float32, 88.72284, is above the largest float32
LEAST = -103.972076  # -150 ln 2 is -103.9720771: e to the power of the next float32 is below half the least one


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
@pytest.mark.parametrize("target", [*ENGINES, "c", "onnx file"])
def test_a_root_and_an_exponential_are_the_nearest_float32_of_a_hundred_thousand(target: str) -> None:
    rng = np.random.default_rng(0)
    small = rng.choice([-1.0, 1.0], 50_000) * 2.0 ** rng.uniform(-30, 6, 50_000)
    special = [0, 1e30, -1e30, LARGEST, np.nextafter(np.float32(LARGEST), np.inf), LEAST]
    special += [np.nextafter(np.float32(LEAST), -np.inf), 2**-149]
    values = np.concatenate([special, rng.uniform(-105, 90, 49_992), small]).astype(np.float32)
    with np.errstate(all="ignore"):
        wide = values.astype(np.longdouble)
        expected = np.stack([np.sqrt(wide), np.exp(wide)], 1).astype(np.float32)
    assert expected[:2, 1].tolist() == [1, np.inf]
    assert expected[3, 1] < np.inf == expected[4, 1]
    assert expected[5, 1] == 2**-149 > expected[6, 1] == 0
    run, *_ = JOINED[target].ways(roots_and_exponentials(1000))
    found = run(DenseInputs(values.reshape(1, -1, 1000), 1)).readout.reshape(-1, 2, 1000).swapaxes(1, 2).reshape(-1, 2)
    np.testing.assert_array_equal(found, expected)


# Nearly the same cases each time (Hypothesis also draws numbers that stand in the modules that are imported): of
# real-valued inputs a sum in float64 may still round, once in some hundred million sums.
drawn = settings(suppress_health_check=[HealthCheck.too_slow], derandomize=True)
any_case = given(case=st.one_of(dyadic_cases(), dyadic_cases(dyadic=False)))


@pytest.mark.parametrize("target", [*ENGINES, "onnx file", *ALONE])
@drawn
@any_case
def test_drawn_networks_have_the_references_bits_or_are_refused(target: str, case: Case) -> None:
    assert_references_bits(target, case)


@pytest.mark.parametrize("target", ["c", "sanitized c"])
@settings(drawn, max_examples=min(10, drawn.max_examples))
@any_case
def test_drawn_networks_that_are_compiled_have_the_references_bits(target: str, case: Case) -> None:
    assert_references_bits(target, case)


def assert_references_bits(target: str, case: Case) -> None:
    runner, network = (JOINED | ALONE)[target], case.network
    if target == "training":  # which reads sums in float32, and the spikes of neurons that fire
        network = Network(network.spec.model_copy(update={"readout": Readout.LAST}), network.tensors)
        if not all(each.by is Summation.FLOAT32 for each in sums_of(network).by_name.values()):
            return
    try:
        ways = runner.ways(network)
    except (ExportRefused, InvalidConfig):  # by the sentences that the rows ask for
        assert target in ALONE
        return
    expected, _ = ReferenceEngine(network).run(case.inputs, record=EVERYTHING)
    for run in ways:
        assert_same_spikes(run(case.inputs), expected)


def test_rows_and_cases_have_every_node_that_there_is() -> None:
    drawn_kinds = {*FIRING, *INTEGRATING, *JOINS, *(kind for kinds in CONNECTIONS.values() for kind in kinds)}
    assert drawn_kinds == NODES.keys()
    assert {node.type for row in (ROWS | ALIKE).values() for node in row.network.spec.nodes} == NODES.keys()
