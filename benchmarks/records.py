"""The cost of an event record: `python -m benchmarks.records`, from its bytes to steps and inputs, on one thread.

Records are drawn at random, in order of time. The time is that of the thread, the least of several calls, so that other
programs on the machine show less.
"""

from __future__ import annotations

import time

import numpy as np
from rich.console import Console
from rich.table import Table

from spikeserve.models.coding.records import Records, binner, make_records, records_of, unwrapped
from spikeserve.models.spec import EventBinning, EventRule, Polarity

CALLS = 15
CASES = {  # what: how it is binned, events and steps
    "a digit of N-MNIST": (EventBinning(step_us=10_000, sensor=(34, 34)), 5_000, 30),
    "a gesture, 128×128": (EventBinning(step_us=25_000, sensor=(128, 128)), 300_000, 60),
    "a gesture, bin 4": (EventBinning(step_us=25_000, sensor=(128, 128), bin=4), 300_000, 60),
    "346×260, counted": (EventBinning(step_us=10_000, sensor=(346, 260), rule=EventRule.COUNT), 1_000_000, 100),
    "1280×720, bin 4": (EventBinning(step_us=10_000, sensor=(1280, 720), bin=4), 2_000_000, 20),
    "a word of SHD": (EventBinning(step_us=14_000, sensor=(700,), polarity=Polarity.MERGED), 8_000, 100),
    "a live step, 128×128": (EventBinning(step_us=1_000, sensor=(128, 128)), 2_000, 1),
}


def drawn(events: EventBinning, count: int, steps: int) -> Records:
    """Return random records over so many steps."""
    rng = np.random.default_rng(0)
    width, height = (*events.sensor, 1)[:2]
    t = np.sort(rng.integers(0, steps * events.step_us, count))
    return make_records(t, rng.integers(0, width, count), rng.integers(0, height, count), rng.integers(0, 2, count))


def main() -> None:
    """Print the cost of each case."""
    table = Table("case", "events", "ns for each event", "MB/s")
    for what, (events, count, steps) in CASES.items():
        content, seconds = drawn(events, count, steps).tobytes(), float("inf")
        for _ in range(CALLS):
            began = time.thread_time()
            records = records_of(content)
            binner(events).between(records, unwrapped(records["t"], 0), 0, steps)
            seconds = min(seconds, time.thread_time() - began)
        table.add_row(what, f"{count:,}", f"{1e9 * seconds / count:.1f}", f"{len(content) / seconds / 1e6:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
