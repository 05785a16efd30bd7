"""Samples of events reach the engine as events, and no raster of them is made on the way."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np

from spikeserve.models.coding import DenseInputs, EventInputs, encode
from spikeserve.models.spec import Coding, Spec
from spikeserve.service.inference.protocols.native.codec import to_samples
from spikeserve.service.inference.protocols.native.schemas import request_type
from tests.networks import toy


def camera(side: int = 3, time_steps: int = 4, **declared: Any) -> Spec:
    """Return the task of a camera of 2 × side × side."""
    plain = toy(Coding.SPIKES, time_steps).spec
    shape = {"shape": (2, side, side)} | declared
    return plain.model_copy(update={"input": plain.input.model_copy(update=shape)})


def sent(task: Spec, *samples: Any) -> Any:
    """Return samples as a request holds them, as `to_samples` makes them."""
    request = request_type(task).model_validate({"inputs": list(samples)})
    return to_samples(request.inputs, task, task.time_steps)


def test_a_raster_among_events_makes_all_of_them_rasters() -> None:
    task, raster = camera(), np.zeros((4, 2, 3, 3), np.float32)
    raster[1, 0, 2, 1] = 0.5
    values = sent(task, raster.tolist(), {"t": [3], "unit": [11]})
    assert isinstance(values, np.ndarray)
    np.testing.assert_array_equal(values[0], raster)
    assert np.argwhere(values[1]).tolist() == [[3, 1, 0, 2]]


def test_events_of_an_input_with_an_offset_come_as_the_currents_of_their_raster() -> None:
    inputs = sent(camera(offset=0.25), {"t": [3], "unit": [11]})
    assert isinstance(inputs, DenseInputs)
    raster = np.zeros((1, 4, 2, 3, 3), np.float32)
    raster[0, 3, 1, 0, 2] = 1
    np.testing.assert_array_equal(inputs.steps, encode(raster, camera(offset=0.25)).steps)


def test_the_memory_of_events_follows_their_number_and_steps_not_the_sensor() -> None:
    # 1000 events: 4 bytes of units, the lists' integers and some copies of them, beside a raster of 52 MB.
    task, rng = camera(256, 100), np.random.default_rng(0)
    columns = {
        name: rng.integers(0, most, 1000).tolist() for name, most in zip("txyp", (100, 256, 256, 2), strict=True)
    }
    request = request_type(task).model_validate({"inputs": [columns]})
    tracemalloc.start()
    try:
        inputs = to_samples(request.inputs, task, 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(inputs, EventInputs)
    assert inputs.nbytes <= 1000 * 4 + 101 * 8
    assert peak < 200_000
