"""Inputs as events: sliced, joined and cut like dense ones, and run to the same bits by every engine."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models import coding
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, EventBinning, EventRule, OutOfRange, Spec
from tests.models.test_wide import image
from tests.networks import toy
from tests.same import assert_same


@st.composite
def dense_inputs(draw: st.DrawFn, batch: int | None = None, time_steps: int | None = None) -> coding.DenseInputs:
    """Draw inputs of shape 2×3 with few values, of which many are 0."""
    time_steps = time_steps or draw(st.integers(1, 5))
    batch = draw(st.integers(0, 4)) if batch is None else batch
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    among = np.array(draw(st.sampled_from([[0, 1], [0, 0, 0.5, -1, 3]])))
    values = rng.choice(among, (time_steps, batch, 2, 3))
    return coding.DenseInputs(values.astype(np.float32), time_steps)


def assert_dense(inputs: coding.Inputs, expected: coding.DenseInputs) -> None:
    assert inputs.time_steps == expected.time_steps
    assert inputs.batch == expected.batch
    np.testing.assert_array_equal(inputs.dense().steps, expected.steps)
    if isinstance(inputs, coding.EventInputs):
        assert inputs.offset.size == inputs.batch * inputs.time_steps + 1
        for row in range(inputs.offset.size - 1):
            assert (np.diff(inputs.unit[inputs.offset[row] : inputs.offset[row + 1]]) > 0).all()
        assert (inputs.value != 0).all()
        types = [array.dtype for array in (inputs.unit, inputs.value, inputs.offset)]
        assert types == [np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.int64)]


@given(inputs=dense_inputs(), data=st.data())
def test_events_are_sliced_and_cut_as_a_dense_array_is(inputs: coding.DenseInputs, data: st.DataObject) -> None:
    events = coding.EventInputs.of(inputs)
    assert_dense(events, inputs)
    first = data.draw(st.integers(0, inputs.batch))
    samples = slice(first, data.draw(st.integers(first, inputs.batch)), data.draw(st.sampled_from([None, 1, 2])))
    assert_dense(events[samples], inputs[samples])
    kept = data.draw(st.lists(st.integers(0, inputs.batch - 1), max_size=6) if inputs.batch else st.just(list[int]()))
    assert_dense(events[np.array(kept, np.intp)], inputs[np.array(kept, np.intp)])
    start = data.draw(st.integers(0, inputs.time_steps - 1))
    end = data.draw(st.integers(start + 1, inputs.time_steps))
    assert_dense(events.between(start, end), inputs.between(start, end))
    assert_dense(events.between(start, end)[samples], inputs[samples].between(start, end))


@given(data=st.data(), time_steps=st.integers(1, 4))
def test_events_and_dense_inputs_are_joined_in_their_order(data: st.DataObject, time_steps: int) -> None:
    parts = data.draw(st.lists(dense_inputs(time_steps=time_steps), min_size=1, max_size=4))
    mixed = [coding.EventInputs.of(part) if data.draw(st.booleans()) else part for part in parts]
    joined = coding.join_inputs(mixed)
    assert isinstance(joined, coding.EventInputs) == any(isinstance(part, coding.EventInputs) for part in mixed)
    assert_dense(joined, coding.DenseInputs.joined(parts))


def test_inputs_of_another_number_of_rows_are_refused() -> None:
    none = np.empty(0, np.float32)
    with pytest.raises(InvalidInput, match=r"^event inputs: there are 3 rows, expected 2 for each sample$"):
        coding.EventInputs(np.empty(0, np.int32), none, np.zeros(4, np.int64), 2, (3,))


def spec(high: Any = 1.0, low: Any = 0.0, **declared: Any) -> Spec:
    plain = toy(Coding.SPIKES, 4).spec
    return plain.model_copy(update={"input": plain.input.model_copy(update={"high": high, "low": low} | declared)})


@given(
    sent=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=12), max_size=3),
    high=st.sampled_from([1.0, 3.0, (1.0, 3.0), 0.0]),
    scale=st.sampled_from([1.0, 0.5, (2.0, 0.0), -1.0]),
    arrays=st.booleans(),
)
def test_events_encode_to_what_their_raster_does(
    sent: list[list[tuple[int, int]]], high: Any, scale: Any, arrays: bool
) -> None:
    task = spec(high, -1.0, scale=scale)
    make: Any = (lambda values: np.array(values, np.uint16)) if arrays else list
    events = [coding.Events(make([t for t, _ in one]), make([unit for _, unit in one])) for one in sent]
    inputs = coding.encode_events(events, task)
    assert isinstance(inputs, coding.EventInputs)
    assert_dense(inputs, coding.encode(coding.rasterise(events, task), task))


@pytest.mark.parametrize("rule", EventRule)
def test_what_a_sensor_sees_at_a_unit_whose_scale_is_0_is_no_event(rule: EventRule) -> None:
    binned = EventBinning(step_us=1000, sensor=(2,), polarity="merged", rule=rule)
    task = spec(scale=(2.0, 0.0), events=binned)
    t, unit = np.array([[0, 0, 2, 3], [0, 1, 1, 0]])
    inputs = coding.EventCoder(task).encode(t, unit, np.ones(4, np.int64), 4)
    assert isinstance(inputs, coding.EventInputs)
    assert_dense(inputs, coding.encode(coding.rasterise([coding.Events(t, unit)], task), task))
    assert (inputs.unit.tolist(), inputs.value.tolist(), inputs.offset.tolist()) == ([0, 0], [2, 2], [0, 1, 1, 1, 2])


@pytest.mark.parametrize(
    "declared", [{"offset": 0.5}, {"offset": (0.0, -0.25)}, {"low": 0.5, "out_of_range": OutOfRange.CLIP}]
)
def test_events_stay_a_dense_raster_where_no_event_is_a_current_too(declared: dict[str, Any]) -> None:
    # An offset of 0.5 makes a current of 0.5 of the 0 at every place without an event; a least value of 0.5 that is
    # clipped to does as well.
    task, events = spec(**declared), [coding.Events([0, 3], [1, 0])]
    inputs = coding.encode_events(events, task)
    assert isinstance(inputs, coding.DenseInputs)
    np.testing.assert_array_equal(inputs.steps, coding.encode(coding.rasterise(events, task), task).steps)
    assert (inputs.steps != 0).sum() > 2


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (coding.Events([0, 1], [0]), r"inputs\[1\]: 2 t for 1 unit, expected as many of both"),
        (coding.Events([0, 4, -1], [0, 0, 0]), r"inputs\[1\].t\[1\] is 4, expected 0 to 3"),
        (coding.Events([0, -1], [0, 5]), r"inputs\[1\].t\[1\] is -1, expected 0 to 3"),
        (coding.Events([0, 0], [1, 2]), r"inputs\[1\].unit\[1\] is 2, expected 0 to 1"),
        (coding.Events([0], [2**64]), r"inputs\[1\].unit\[0\] is 18446744073709551616, expected 0 to 1"),
        (
            coding.Events(np.array([2**64 - 1], np.uint64), [0]),
            r"inputs\[1\].t\[0\] is 18446744073709551615, expected 0 to 3",
        ),
    ],
)
def test_events_out_of_range_are_refused_with_their_place(events: coding.Events, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{sentence}$"):
        coding.encode_events([coding.Events([], []), events], spec())


def test_a_number_of_steps_that_the_model_cannot_run_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^time_steps is 0, expected at least 1$"):
        coding.encode_events([coding.Events([], [])], spec(), 0)


SIDE, STEPS = 32, 250
RASTER_BYTES = 4 * STEPS * 2 * SIDE * SIDE  # 2 MB
FIRST: list[list[dict[str, Any]]] = [
    *([{"type": f"{kind}Pool2d", "kernel_size": 8}] for kind in ("Sum", "Avg", "Max")),
    [{"type": "AvgPool2d", "kernel_size": 9, "overhang": True}],
    [{"type": "Scale", "scale": 0.5}],
    [{"type": "Scale", "scale": "per_channel", "steps": STEPS}],
    [{"type": "Delay", "delay": 2}],
    [{"type": "Permute", "order": [0, 2, 1]}],
    # two of them, which are added
    [{"type": "Scale", "scale": 0.5}, {"type": "SumPool2d", "kernel_size": 8, "inputs": ["n0", "input"]}],
    [],  # a convolution
]


@pytest.mark.parametrize("high", [1.0, 3.0])
@pytest.mark.parametrize("first", FIRST)
def test_the_event_engine_makes_no_raster_of_events(first: list[dict[str, Any]], high: float) -> None:
    # 300 events in 512,000 values: all that a run allocates, one block of a step included, is less than a fifth of the
    # raster.
    kernel = {"kernel_size": 8, "stride": 8} if not any("Pool" in node["type"] for node in first) else {}
    named = [node | {"name": f"n{place}"} for place, node in enumerate(first)]
    network = image("9 bits", (2, SIDE, SIDE), *named, **{"out_channels": 1} | kernel)
    engine, rng = EventEngine(network), np.random.default_rng(0)
    sent = coding.Events(rng.integers(0, STEPS, 300), rng.integers(0, 2 * SIDE * SIDE, 300))
    task = network.spec.model_copy(update={"input": network.spec.input.model_copy(update={"high": high})})
    inputs = coding.encode_events([sent], task, STEPS)
    expected, _ = engine.run(inputs.dense())
    tracemalloc.start()
    try:
        result, _ = engine.run(inputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_same(result, expected)
    assert peak < RASTER_BYTES / 5
