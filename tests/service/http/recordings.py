"""A camera of 10×12 pixels as a model, four events that it saw, and the bodies that hold them."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeserve.models.coding.records import make_records
from spikeserve.models.spec.network import Network
from tests.networks import network_of, task

STEP_US = 10_000

# t, x, y, p. After the first, at 1000: 0, 500 and 11,000 microseconds are the steps 0, 0 and 1; 39,000 is step 3.
EVENTS = [(1000, 3, 2, 1), (1500, 0, 7, 0), (12_000, 5, 1, 1), (40_000, 9, 9, 0)]

# By unit, (p * 12 + y) * 10 + x, its spikes. The model runs three steps, so the last event, 99, is dropped.
COUNTS = {143: 1, 70: 1, 135: 1}

FORM = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl --data-binary says of anything


def camera(shape: Sequence[int] = (2, 12, 10), high: float = 1, **events: Any) -> Network:
    """Return a network that spikes wherever its input does: IF neurons of threshold 1, one for each input."""
    return network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        **task(
            shape, 3, math.prod(shape), "spikes", high=high, events={"step_us": STEP_US, "sensor": [10, 12]} | events
        ),
    )


def records(events: list[tuple[int, int, int, int]] = EVENTS) -> bytes:
    """Return events as records."""
    return make_records(*zip(*events, strict=True)).tobytes()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as an .npy."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def structured(names: str = "txyp") -> bytes:
    """Return the events as a structured array."""
    return npy(np.array(EVENTS, list(zip(names, ("<i8", ">u2", "<i4", "?"), strict=True))))


def csv() -> bytes:
    """Return the events as text."""
    return "\n".join(["t,x,y,p", *(",".join(map(str, event)) for event in EVENTS), ""]).encode()
