"""Draw the picture of the tutorial on gradients: `python -m docs.surrogate`. It needs the extra `train`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

PICTURE = Path(__file__).parent / "images" / "surrogate.png"
SLOPE = 10.0


def draw(picture: Path = PICTURE) -> None:
    """Save a picture of the threshold, its derivative and a surrogate."""
    mpl.use("Agg")
    membrane = np.linspace(0, 2, 801)
    distance = membrane - 1
    figure, panels = plt.subplots(1, 3, figsize=(9, 2.6), sharex=True, layout="constrained")
    panels[0].plot(membrane, distance >= 0)
    panels[1].plot(membrane, np.zeros_like(membrane))
    panels[1].annotate("", (1, 1), (1, 0), arrowprops={"arrowstyle": "->", "color": "C3", "linewidth": 1.5})
    panels[1].text(1.06, 0.85, "only here not 0,\nand infinite", color="C3", fontsize=9, va="top")
    panels[2].plot(membrane, 1 / (1 + SLOPE * np.abs(distance)) ** 2)
    for panel, title in zip(
        panels, ("forward: the spike", "its derivative", "backward: the surrogate in its place"), strict=True
    ):
        panel.set(title=title, xlabel="membrane", ylim=(-0.05, 1.1))
        panel.title.set_fontsize(10)
        panel.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].text(1.02, 0.03, "threshold", color="grey", fontsize=9)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    draw()
