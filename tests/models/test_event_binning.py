"""The spec's `input.events`: the shape that a sensor, crop, bin and polarity make, and what does not fit together."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Coding, EventBinning, Input, Spec
from tests.networks import task, toy


def spec(shape: list[int], coding: str = "spikes", dt: float | None = None, **events: Any) -> Spec:
    """Return a network of one neuron for each input, whose input has `events`."""
    nodes = [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}]
    around = task(shape, 3, math.prod(shape), coding, events={"step_us": 1000, **events}, dt=dt)
    return Spec.read(around | {"nodes": nodes})


@pytest.mark.parametrize(
    ("events", "shape"),
    [
        # Both polarities of 34×30 pixels are 2 channels of 30 rows; bins of 4 make ceil(30 / 4) = 8 rows and 9 columns.
        ({"sensor": (34, 30)}, (2, 30, 34)),
        ({"sensor": (34, 30), "bin": 4}, (2, 8, 9)),
        ({"sensor": (34, 30), "crop": (4, 2, 30, 28), "bin": 4, "polarity": "merged"}, (1, 7, 8)),
        ({"sensor": (34, 30), "polarity": "on"}, (1, 30, 34)),
        ({"sensor": (700,), "polarity": "merged"}, (1, 700)),
        ({"sensor": (700,), "bin": 3}, (2, 234)),
    ],
)
def test_the_shape_follows_from_sensor_crop_bin_and_polarity(events: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert EventBinning(step_us=1, **events).shape == shape
    assert Input(shape=shape, events=EventBinning(step_us=1, **events)).shape == shape


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4), (12,)])
def test_an_only_channel_may_be_absent_and_the_input_may_be_flat(shape: tuple[int, ...]) -> None:
    assert spec(list(shape), sensor=(4, 3), polarity="off").input.events is not None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"shape": [2, 4, 3], "sensor": (4, 3)}, "input: the shape is 2×4×3, but events of a sensor of 4×3, bin 1 and"),
        ({"shape": [4, 3], "sensor": (4, 3), "polarity": "on", "crop": (0, 0, 2, 3)}, "with crop [0, 0, 2, 3], bin 1"),
        ({"shape": [3], "sensor": (3,)}, "the shape is 3, but events of a sensor of 3, bin 1 and polarity 'channels'"),
        ({"shape": [2, 3, 4], "sensor": (4, 3), "crop": (1, 0, 4, 3)}, "crop is [1, 0, 4, 3], expected x, y, width an"),
        ({"shape": [2, 4], "sensor": (4,), "crop": (0, 0, 4, 1)}, "but the sensor has 4 units and no height"),
        ({"shape": [2, 4], "sensor": (65537,)}, "sensor is 65537, expected at most 65536, as a record has no more"),
        ({"shape": [2, 4], "sensor": (4, 32769)}, "sensor is 4×32769, expected at most 65536×32768"),
        ({"shape": [2, 4], "sensor": (4, 1, 1)}, "at most 2 items"),
        ({"shape": [2, 3, 4], "sensor": (4, 3), "step_us": 0}, "greater than or equal to 1"),
        ({"shape": [2, 3, 4], "sensor": (4, 3), "rule": "sum"}, "'clip' or 'count'"),
        ({"shape": [2, 3, 4], "sensor": (4, 3), "coding": "direct"}, "input: has events, but coding is 'direct', expe"),
        ({"shape": [2, 3, 4], "sensor": (4, 3), "dt": 0.002}, "dt is 0.002 s, but input.events.step_us is 1000, expec"),
    ],
)
def test_what_does_not_fit_together_gets_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec(**given)
    assert sentence in str(caught.value)


def test_dt_may_be_the_float32_nearest_to_a_step() -> None:
    assert spec([2, 3, 4], dt=float.fromhex("0x1.0624dep-10"), sensor=(4, 3)).dt is not None  # 0.001 as float32


def test_a_spec_is_read_as_it_was_written_and_one_without_events_is_written_as_before() -> None:
    one = spec([2, 3, 4], sensor=(4, 3), crop=None, window_steps=5, rule="count", origin="zero")
    assert Spec.read(one.model_dump_json()) == one
    assert "events" not in toy(Coding.SPIKES).spec.model_dump(mode="json")["input"]


def test_an_unknown_field_of_events_is_refused() -> None:
    with pytest.raises(ValidationError, match="window_us"):
        EventBinning.model_validate({"step_us": 1, "sensor": [2], "window_us": 4})
