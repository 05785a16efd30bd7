"""Stream a recorded file of events at its own pace, and print a line for each window.

    python examples/live/replay.py recording.csv --model gestures
    python examples/live/replay.py recording.aedat4 --model gestures --speed 0      # as fast as the server answers

It reads .npy, .npz and .csv, and with the package faery what cameras write: AEDAT, EVT (.raw), DAT and ES.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

from spikeserve import Client, Events, SpikeserveError, read_events


def paced(events: Events, chunk_us: int, speed: float) -> Iterator[Events | int]:
    """Yield the events of each `chunk_us` microseconds when they would have come; a speed of 0 does not wait."""
    begun, first = time.monotonic(), int(events.t[0])
    edges = np.arange(first, int(events.t[-1]) + chunk_us, chunk_us)
    for until, end in zip(edges[1:], np.searchsorted(events.t, edges[1:]), strict=True):
        start = int(np.searchsorted(events.t, until - chunk_us))
        if speed:
            time.sleep(max(0.0, begun + (int(until) - first) / 1e6 / speed - time.monotonic()))
        yield events[start : int(end)]
        yield int(until)  # no more events before this time: its windows close, even where nothing happens for long
    yield events[int(np.searchsorted(events.t, edges[-1])) :]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--key", help="the server's API key, where it has any")
    parser.add_argument("--model", help="by default the server's own")
    parser.add_argument("--step-us", type=int, help="microseconds of a step, where the model does not say it")
    parser.add_argument("--chunk-ms", type=float, default=10, help="milliseconds of events that are sent at once")
    parser.add_argument("--speed", type=float, default=1, help="2 is twice as fast, 0 as fast as the server answers")
    chosen = parser.parse_args()
    try:
        events = read_events(chosen.file)
        if not len(events):
            parser.error(f"'{chosen.file}' holds no events")
        with Client(chosen.url, chosen.key, chosen.model) as client:
            source = paced(events, round(chosen.chunk_ms * 1000), chosen.speed)
            for window in client.stream(source, step_us=chosen.step_us):
                print(f"{window.t / 1e6:.3f} s: {window.events} events, {window.label}, counts {window.spike_counts}")
    except SpikeserveError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
