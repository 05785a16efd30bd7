"""Draw the picture of the tutorial on events, from its running server and in its folder.

    PYTHONPATH=<the project's root> python -m docs.events http://localhost:8000 turn.raw

It needs the extras `client`, `events` and `train`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from spikeserve import Client, Events, Window, read_events

PICTURE = Path(__file__).parent / "images" / "events.png"
STEP_MS, STEPS = 10, 40
MODEL = "motion"
CLASSES = {"down": "C4", "left": "C5", "right": "C2", "up": "C3"}  # each with its colour
ON = 2**15  # the bit of a record's row that is the polarity


def draw(url: str, recording: str, picture: Path = PICTURE) -> None:
    """Save a picture of a recording's events, of the spikes that they cause, and of the scores window by window."""
    mpl.use("Agg")
    events = read_events(recording)
    with Client(url, model=MODEL) as client:
        (whole,) = client.predict(recording, time_steps=STEPS, returns=["raster"])
        windows = list(client.stream(events, window_steps=5, scores="decay", decay=0.5))
    figure, panels = plt.subplots(4, 1, figsize=(9, 7), sharex=True, layout="constrained")
    _draw_events(panels[0], events, events.records["x"], "column")
    _draw_events(panels[1], events, events.records["y"] % ON, "row")
    panels[1].invert_yaxis()
    spikes = (whole.raster or {})["neuron3"]
    start = events.t[0] / 1000
    panels[2].scatter(start + STEP_MS * (np.array(spikes["t"]) + 0.5), spikes["unit"], s=4, color="black")
    panels[2].set_ylabel("recurrent neuron")
    _draw_scores(panels[3], windows)
    panels[0].set_title("a bar that moves to the right for 200 ms, and then up", fontsize=10)
    panels[3].set_xlabel("milliseconds")
    for panel in panels:
        panel.axvline(200, color="grey", linewidth=0.8, linestyle=":")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _draw_events(panel: Any, events: Events, place: Any, name: str) -> None:
    brighter = events.records["y"] >= ON
    for chosen, color, label in ((brighter, "C1", "brighter"), (~brighter, "C0", "darker")):
        panel.scatter(events.t[chosen] / 1000, place[chosen], s=3, color=color, label=label)
    panel.set_ylabel(name)
    panel.legend(loc="upper right", fontsize=8, markerscale=3)


def _draw_scores(panel: Any, windows: list[Window]) -> None:
    ends = [window.t / 1000 for window in windows]
    for index, (name, color) in enumerate(CLASSES.items()):
        scores = [(window.scores or [])[index] for window in windows]
        panel.plot(ends, scores, marker="o", markersize=4, color=color, label=name)
    panel.set_ylabel("score of the class")
    panel.legend(loc="upper center", ncols=4, fontsize=8)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m docs.events http://localhost:8000 turn.raw")
    draw(sys.argv[1], sys.argv[2])
