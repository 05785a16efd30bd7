"""Stream a letter's touches to a server, as if they happened now, and print what it reads in each window.

pip install '.[client]'      # and in another shell: spikeserve serve
python examples/stream_events.py http://localhost:8000
"""

from __future__ import annotations

import sys

if len(sys.argv) != 2:
    sys.exit(__doc__)  # before what may not be installed

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from spikeserve import Client

STEP_US, STEPS = 5000, 256  # of the model that ships: a letter is 256 steps of 5 ms

url = sys.argv[1]
letter = httpx.get(f"{url}/models/braille/examples").json()["inputs"][0]
time, sensor = STEP_US * np.array(letter["t"]), np.array(letter["unit"])


def packets() -> Iterator[dict[str, NDArray[Any]] | int]:
    """Yield the time, before which no event comes any more, and the events of the tenth of a second after it."""
    for begin in range(0, STEP_US * STEPS, 100_000):
        now = (begin <= time) & (time < begin + 100_000)
        yield begin
        yield {"t": time[now], "unit": sensor[now]}
    yield STEP_US * STEPS  # which closes the last window


with Client(url, model="braille") as client:
    for window in client.stream(packets(), step_us=STEP_US, window_steps=64):
        print(f"{window.t / 1e6:.2f} s: {window.events} touches, {window.label}")
