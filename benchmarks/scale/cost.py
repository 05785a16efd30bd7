"""What so many requests a day take, reckoned from the processor time of one: `python -m benchmarks.scale.cost FILE`.

FILE is what `./scripts/bench-scale --json FILE` wrote. Measured are the microseconds of one request; all else follows
from the constants below, and is extrapolated: no load of that size was run.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

DAY = 86_400  # seconds
PEAK = 4  # times the mean rate of a day
BUSY = 0.6  # the share of a core that is used at the peak, so that a queue stays short
CORES = 2  # of a replica
LEAST = 2  # replicas, so that one may be away
RATES = (10**3, 10**6, 10**9)  # requests a day


@dataclass(frozen=True)
class Need:
    """What a number of requests a day takes: at the peak, in requests a second, cores and replicas; and in a day."""

    peak: float
    cores: float
    replicas: int
    core_hours: float


def need(per_day: int, microseconds: float) -> Need:
    """Return the cost of so many requests, each of so much processor time in servers and proxy."""
    peak = PEAK * per_day / DAY
    cores = peak * microseconds / 1e6 / BUSY
    replicas = max(LEAST, math.ceil(cores / CORES))
    return Need(peak, cores, replicas, per_day * microseconds / 1e6 / 3600)


def page(measured: list[dict[str, Any]]) -> str:
    """Return the table, in Markdown: for each load that was measured behind HAProxy with two replicas."""
    rows = []
    for row in measured:
        if row["layout"] != "HAProxy, 2 replicas" or not row["load"].startswith("16"):
            continue
        used = row["server_us"] + row["between_us"]
        what = f"{row['load'].partition(', ')[2]}, {used:.0f} µs"
        for per_day in RATES:
            found = need(per_day, used)
            figures = (_short(found.peak) + "/s", _short(found.cores * BUSY), found.replicas, _short(found.core_hours))
            rows.append([what, f"10^{round(math.log10(per_day))}", *map(str, figures)])
    headings = ["a request", "requests a day", "at the peak", "cores busy then", "replicas of two cores"]
    return markdown([*headings, "core-hours a day"], rows)


def _short(value: float) -> str:
    """Return a number with two digits that count."""
    return f"{value:.2g}" if value < 100 else f"{round(value, 1 - math.floor(math.log10(value))):,.0f}"


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text())))
