"""A network with every kind of state, and a stream of events for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.spec.network import Network
from tests.networks import network_of, task

UNITS, STEPS, WINDOW = 12, 96, 4  # inputs, time steps and steps of a window


def recurrent() -> Network:
    """Recurrent neurons with a current, a leak and a delay, on dyadic weights: every kind of state that there is."""
    rng = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return rng.integers(-6, 9, shape) / 8

    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": UNITS, "out_features": 16, "bias": False},
            {"type": "CubaLIF", "name": "hidden", "syn_decay": 0.5, "decay": 0.75, "recurrent": {"bias": True}},
            {"type": "Delay", "name": "delay", "delay": 3},
            {"type": "Linear", "name": "out", "in_features": 16, "out_features": 4, "bias": False},
            {"type": "LIF", "name": "classes", "decay": 0.875},
        ],
        {
            "fc.weight": weights(16, UNITS),
            "hidden.recurrent.weight": weights(16, 16) / 8,
            "hidden.recurrent.bias": weights(16),
            "out.weight": weights(4, 16),
        },
        **task(
            [UNITS],
            STEPS,
            "abcd",
            "spikes",
            events={"step_us": 1000, "window_steps": WINDOW, "sensor": [UNITS], "polarity": "merged"},
        ),
    )


def events() -> tuple[Records, np.ndarray[Any, Any]]:
    """Return a stream of records, and the raster of them."""
    raster = (np.random.default_rng(8).random((STEPS, UNITS)) < 0.3).astype(int)
    raster[0, 0] = 1  # so that the stream begins with step 0
    t, unit = raster.nonzero()
    return make_records(t * 1000, unit), raster


def by_steps(records: Records) -> Iterator[Records]:
    """Yield the events of each step, as a sensor would send them."""
    yield from np.split(records, np.flatnonzero(np.diff(records["t"])) + 1)
