"""Event records: which step and input each event belongs to, worked out by hand and by a plain loop."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models.coding import EventInputs
from spikeserve.models.coding import records as module
from spikeserve.models.coding.records import EventBinner, StepEvents, make_records, records_of, times_of, unwrapped
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, EventBinning, EventRule, Input, Origin, OutOfRange, Polarity
from tests.networks import toy

CAMERA = EventBinning(step_us=1000, sensor=(4, 3))  # 2×3×4: unit = polarity * 12 + row * 4 + column


def listed(found: StepEvents) -> list[tuple[int, int, int]]:
    return list(zip(found.t.tolist(), found.unit.tolist(), found.count.tolist(), strict=True))


def recording(events: EventBinning, *of: tuple[int, int, int, int], steps: int = 3, **keywords: Any) -> Any:
    """Bin events (t, x, y, p) and list what is found."""
    records = make_records(*zip(*of, strict=True))
    return listed(EventBinner(events).recording(records, times_of(records), steps, **keywords))


def test_a_record_is_eight_bytes_with_the_polarity_above_the_row() -> None:
    # t = 0x01020304, x = 0x0506, y = 0x0708 and on, which sets the highest of 16 bits: 0x8708; least bytes first.
    content = bytes([4, 3, 2, 1, 6, 5, 8, 0x87])
    assert make_records([0x01020304], [0x0506], [0x0708], [1]).tobytes() == content
    assert content == struct.pack("<IHH", 0x01020304, 0x0506, 0x0708 | 0x8000)
    assert records_of(content).tolist() == [(0x01020304, 0x0506, 0x8708)]
    with pytest.raises(InvalidInput, match=r"^the body has 9 bytes, expected 8 for each event$"):
        records_of(content + b"\0")


def test_a_step_is_the_time_since_the_first_event_and_a_unit_is_polarity_row_and_column() -> None:
    # 5000 is step 0, as is 5999; 6000 is step 1. (x 3, y 2, on) is 12 + 2 * 4 + 3 = 23, (x 1, y 0, off) is 1.
    events = (5000, 3, 2, 1), (5999, 1, 0, 0), (6000, 1, 0, 0)
    assert recording(CAMERA, *events) == [(0, 1, 1), (0, 23, 1), (1, 1, 1)]
    assert recording(CAMERA, *events, start=4001) == [(0, 23, 1), (1, 1, 1)]  # 5000 is 999 after it, 6000 is 1999


def test_a_crop_comes_before_the_bins_and_what_is_outside_of_it_is_dropped() -> None:
    # Columns 1 to 3 of 0 to 3 and rows 1, 2: bins of 2 make 2 columns (1 and 2; 3) and one row, so 4 units.
    cropped = EventBinning(step_us=1000, sensor=(4, 3), crop=(1, 1, 3, 2), bin=2)
    assert cropped.shape == (2, 1, 2)
    events = (0, 1, 1, 0), (0, 2, 2, 0), (0, 3, 1, 1), (0, 0, 1, 0), (0, 1, 0, 1)
    assert recording(cropped, *events) == [(0, 0, 1), (0, 3, 1)]
    # Where all are outside, the recording is silent, and is not refused: it has events in its time.
    assert recording(cropped, (0, 0, 0, 0)) == []


def test_units_have_a_column_and_no_row() -> None:
    units = EventBinning(step_us=1000, sensor=(700,), bin=7, polarity=Polarity.MERGED)
    assert recording(units, (0, 699, 0, 0), (1000, 6, 0, 1)) == [(0, 99, 1), (1, 0, 1)]
    with pytest.raises(InvalidInput, match=r"event 0 is at x 3, y 1, expected x 0 to 699 and y 0 to 0, the sensor of"):
        recording(units, (0, 3, 1, 0))


@pytest.mark.parametrize(("x", "y", "p"), [(4, 0, 0), (0, 3, 0), (0, 3, 1), (65535, 32767, 1)])
def test_an_event_outside_of_the_sensor_is_named_wherever_its_time_is(x: int, y: int, p: int) -> None:
    sentence = rf"^inputs\[0\]: event 2 is at x {x}, y {y}, expected x 0 to 3 and y 0 to 2, the sensor of 4×3 that"
    with pytest.raises(InvalidInput, match=sentence):
        recording(CAMERA, (0, 3, 2, 1), (0, 0, 0, 0), (10**9, x, y, p), where="inputs[0]")


def test_the_origin_may_be_time_zero_and_a_recording_that_has_nothing_in_its_steps_is_refused() -> None:
    zero = CAMERA.model_copy(update={"origin": Origin.ZERO})
    assert recording(zero, (2500, 0, 0, 0)) == [(2, 0, 1)]
    sentence = r"has 1 events, but none in the 3 steps of 1000 microseconds that begin at time 0: the first is at 3000$"
    with pytest.raises(InvalidInput, match=sentence):
        recording(zero, (3000, 0, 0, 0))
    nothing = records_of(b"")
    with pytest.raises(InvalidInput, match="has 0 events, but none in the 3 steps of 1000 microseconds that begin at"):
        EventBinner(CAMERA).recording(nothing, times_of(nothing), 3)


def test_the_clock_starts_again_and_each_time_is_the_nearest_to_the_one_before() -> None:
    most = 2**32
    times = unwrapped(np.array([most - 2, 1, 0, 5], np.uint32), 3 * most - 5)
    assert times.tolist() == [3 * most - 2, 3 * most + 1, 3 * most, 3 * most + 5]
    assert unwrapped(np.array([0, 2**31 - 1, 2**31 - 2 + 2**31], np.uint32), 0).tolist() == [0, 2**31 - 1, most - 2]
    assert unwrapped(np.zeros(0, np.uint32), 7).tolist() == []
    # A recording over the start of a clock: 1500 microseconds after the first event is step 1.
    assert recording(CAMERA, (most - 1000, 0, 0, 0), (500, 1, 0, 0)) == [(0, 0, 1), (1, 1, 1)]


def test_a_stream_gives_its_chunk_and_the_start_of_a_window() -> None:
    # Two steps from 10,000 on: 9,999 is too early, 12,000 too late; steps are counted from the window's.
    binning = EventBinner(CAMERA)
    records = make_records([9_999, 10_000, 11_999, 12_000], [0, 1, 2, 3])
    times = unwrapped(records["t"], 0)
    assert listed(binning.between(records, times, 10_000, 2)) == [(0, 1, 1), (1, 2, 1)]
    assert listed(binning.between(records, times + 2**40, 2**40 + 12_000, 2)) == [(0, 3, 1)]


@pytest.mark.parametrize(
    ("rule", "steps"), [(EventRule.CLIP, [[2.5, 0], [0, 0], [0, 3.5]]), (EventRule.COUNT, [[0.5, 0], [0, 0], [0, 1.5]])]
)
def test_inputs_are_the_largest_of_the_range_or_the_count_both_normalised(rule: EventRule, steps: Any) -> None:
    # One event of unit 0 at step 0 and three of unit 1 at step 2; ranges end at 5 and 7, and the scale is 0.5.
    binning = EventBinning(step_us=1, sensor=(2,), polarity=Polarity.ON, rule=rule)
    declared = Input(shape=(2,), high=(5, 7), scale=0.5, events=binning)
    task = toy(Coding.SPIKES).spec.model_copy(update={"input": declared})
    events = StepEvents(np.array([0, 2]), np.array([0, 1]), np.array([1, 3]))
    inputs = events.inputs(task, 3)
    assert isinstance(inputs, EventInputs)
    assert inputs.dense().steps[:, 0].tolist() == steps
    many = StepEvents(np.array([1]), np.array([0]), np.array([6]))
    if rule is EventRule.COUNT:
        with pytest.raises(InvalidInput, match=r"^inputs\[0\]\[1\]\[0\] is 6, expected 0 to 5$"):
            many.inputs(task, 3)
        clips = task.model_copy(update={"input": declared.model_copy(update={"out_of_range": OutOfRange.CLIP})})
        assert many.inputs(clips, 3).dense().steps[1, 0].tolist() == [2.5, 0]


def plainly(events: EventBinning, of: list[tuple[int, int, int, int]], start: int, steps: int) -> dict[Any, int]:
    """Count events by step, channel, row and column, one at a time."""
    x0, y0, width, height = events.area
    counts: dict[Any, int] = {}
    for t, x, y, p in of:
        if not (x0 <= x < x0 + width and y0 <= y < y0 + height and 0 <= t - start < steps * events.step_us):
            continue
        if (events.polarity, p) in ((Polarity.ON, 0), (Polarity.OFF, 1)):
            continue
        channel = p if events.polarity is Polarity.CHANNELS else 0
        place = ((t - start) // events.step_us, channel, (y - y0) // events.bin, (x - x0) // events.bin)
        counts[place] = counts.get(place, 0) + 1
    return counts


@given(data=st.data())
def test_every_way_to_bin_is_that_of_a_plain_loop(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    crop = (x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    events = EventBinning(
        step_us=data.draw(st.integers(1, 50)),
        sensor=(width, height),
        crop=data.draw(st.sampled_from([None, crop])),
        bin=data.draw(st.integers(1, 4)),
        polarity=data.draw(st.sampled_from(Polarity)),
        rule=data.draw(st.sampled_from(EventRule)),
    )
    event = st.tuples(st.integers(0, 999), st.integers(0, width - 1), st.integers(0, height - 1), st.integers(0, 1))
    of = data.draw(st.lists(event, max_size=60))
    if data.draw(st.booleans()):
        of.sort()
    start, steps = data.draw(st.integers(-200, 900)), data.draw(st.integers(1, 40))
    counts = plainly(events, of, start, steps)
    expected = [
        (step, int(np.ravel_multi_index(place, events.shape)), counts[step, *place]) for step, *place in sorted(counts)
    ]
    if events.rule is EventRule.CLIP:
        expected = [(step, unit, 1) for step, unit, _ in expected]
    records = make_records(*(zip(*of, strict=True) if of else ([], [], [], [])))
    times = records["t"].astype(np.int64)
    for block, sparse in ((module.BLOCK, module.SPARSE), (7, 10**9), (7, 0)):  # blocks of a step or few, both ways
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BLOCK", block)
            patch.setattr(module, "SPARSE", sparse)
            assert listed(EventBinner(events).between(records, times, start, steps)) == expected
