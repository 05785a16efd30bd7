"""Windows of events, read and binned by kernels: to what the definition in NumPy gives, or left to it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models.coding import EventCoder, EventInputs
from spikeserve.models.coding.records import EventBinner, make_records, unwrapped
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, EventBinning, EventRule, Input, Polarity
from spikeserve.service.inference.decoding.binning import WindowBinner, read
from spikeserve.service.inference.sessions.windows import WAITING
from tests.networks import toy

STEP_US = 1000


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(0, 2**40))
def test_times_that_never_start_again_are_those_of_the_definition(clock: list[int], last: int) -> None:
    records = make_records(clock, range(len(clock)), 3, 1)
    times = unwrapped(records["t"], last)
    waiting, bounds, end = read(records, last)
    assert waiting.view(WAITING)["time"].tolist() == times.tolist()
    assert waiting.view(WAITING)["record"].tolist() == records.tolist()
    assert (bounds, end) == ([times.min(), times.max(), len(clock) - 1, 3], times[-1])


@st.composite
def binnings(draw: st.DrawFn) -> EventBinning:
    sensor = draw(st.sampled_from([(4, 3), (30, 21), (130,)]))
    crop = (1, 1, 2, 2) if len(sensor) == 2 and draw(st.booleans()) else None
    rule = draw(st.sampled_from(list(EventRule)))
    polarity = draw(st.sampled_from(list(Polarity)))
    return EventBinning(
        step_us=STEP_US, sensor=sensor, crop=crop, bin=draw(st.integers(1, 3)), polarity=polarity, rule=rule
    )


@given(st.data(), binnings(), st.integers(1, 4), st.sampled_from([0, 2**35]), st.booleans())
def test_a_window_is_binned_as_by_the_definition_or_left_to_it(
    data: st.DataObject, events: EventBinning, steps: int, start: int, in_order: bool
) -> None:
    width, height = (*events.sensor, 1)[:2]
    places = st.tuples(
        st.integers(0, steps * STEP_US - 1), st.integers(0, width), st.integers(0, height - 1), st.integers(0, 1)
    )
    drawn = data.draw(st.lists(places, min_size=1, max_size=40))
    t, x, y, p = zip(*(sorted(drawn) if in_order else drawn), strict=True)
    records = make_records(np.array(t) + start, x, y, p)
    task = toy(Coding.SPIKES).spec.model_copy(update={"input": Input(shape=events.shape, events=events)})
    definition, coder = EventBinner(events), EventCoder(task)
    binner = WindowBinner(definition)
    waiting, *_ = read(records, int(t[0]) + start)

    for _ in range(2):  # it keeps nothing of what it has binned
        found = binner.inputs(coder, [waiting.tobytes()], [start], steps)
        if events.rule is EventRule.COUNT or list(t) != sorted(t):
            assert found is None
            continue
        try:
            binned = definition.between(records, waiting.view(WAITING)["time"], start, steps)
        except InvalidInput:
            assert found is None
            continue
        expected = coder.encode(binned.t, binned.unit, binned.count, steps)
        assert found is not None
        assert isinstance(expected, EventInputs)
        assert found.unit.tolist() == expected.unit.tolist()
        assert found.offset.tolist() == expected.offset.tolist()
        assert found.value.tolist() == expected.value.tolist()
