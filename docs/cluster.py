"""Draw the picture of the tutorial on clusters from the answers that it wrote: `python -m docs.cluster answers.csv`.

It needs the extra `train`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

PICTURE = Path(__file__).parent / "images" / "cluster.png"
BIN = 0.5  # seconds


def draw(answers: Path, picture: Path = PICTURE) -> None:
    """Save a picture of the answers per second by replica and by version, with those that were lost."""
    mpl.use("Agg")
    lines = [line.split(",") for line in answers.read_text().split("\n")[:-1]]  # the last may be cut off
    t = np.array([float(line[0]) for line in lines])
    lost = np.array([line[1] != "200" for line in lines])
    edges = np.arange(t.min(), t.max(), BIN)
    figure, panels = plt.subplots(2, 1, figsize=(9, 4.5), sharex=True, layout="constrained")
    for panel, column, name in ((panels[0], 2, "replica"), (panels[1], 3, "version")):
        values = np.array([line[column] for line in lines])
        for value in sorted(set(values[~lost])):
            counts, _ = np.histogram(t[(values == value) & ~lost], edges)
            panel.step(edges[:-1] - edges[0], counts / BIN, where="post", label=f"{name} {value}")
        counts, _ = np.histogram(t[lost], edges)
        panel.step(edges[:-1] - edges[0], counts / BIN, where="post", color="C3", label="lost")
        panel.set(ylabel="answers per second", ylim=(-20, None))
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False)
    panels[0].set_title(f"{len(t):,} requests, {lost.sum()} lost", fontsize=10)
    panels[1].set_xlabel("seconds")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m docs.cluster answers.csv")
    draw(Path(sys.argv[1]))
