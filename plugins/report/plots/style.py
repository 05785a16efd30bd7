"""What all plots of a run have in common: colours that colour-blind people tell apart, sizes, and the axis of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler  # matplotlib brings it along
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from spikeserve.models.spec.parameters import Shape, show

# Okabe and Ito, "Color Universal Design", 2008, in the order in which lines take them.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#000000")
GREY = "#8A8A8A"
INTENSITY = "viridis"  # even steps of lightness, also in grey
SAME = "the same at every step"  # of an input that is a constant current

WIDTH = 10.0  # of a plot, in inches
STYLE = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "figure.titlesize": 11,
    "savefig.dpi": 130,
}


@contextmanager
def drawn(path: Path, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """Yield an empty figure of this size in inches, in the style of all plots; it is written to `path` at the end."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path)


@dataclass(frozen=True)
class TimeAxis:
    """The axis of time: steps from 1, or milliseconds where the length of a step is known."""

    steps: int
    dt: float | None = None

    def at(self, steps: Any) -> Any:
        """Return where steps, counted from 0, stand on the axis: step 0 is the first, or ends after dt."""
        return (np.asarray(steps) + 1) * (1.0 if self.dt is None else self.dt * 1000)

    @property
    def limits(self) -> tuple[float, float]:
        """Where the axis begins and ends: half a step beside the first and the last."""
        return float(self.at(-0.5)), float(self.at(self.steps - 0.5))

    def apply(self, axes: Any, *, named: bool = True) -> None:
        """Set the limits of a panel, ticks at whole numbers, and its name if `named`."""
        axes.set_xlim(*self.limits)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=self.dt is None))
        if named:
            axes.set_xlabel("step" if self.dt is None else "time (ms)")
        else:
            axes.tick_params(labelbottom=False)


def apply_log(axes: Any, values: Any) -> None:
    """Make the y-axis logarithmic for these values, with ticks as plain numbers: 0.2, 0.5, 1; powers of 10 if many."""
    positive = np.asarray([value for value in values if np.isfinite(value) and value > 0])
    axes.set_yscale("log")
    wide = len(positive) > 0 and positive.max() / positive.min() > 300
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def heading(axes: Any, left: str, right: str = "") -> None:
    """Write a panel's title: what it shows on the left, its figures in plain on the right."""
    axes.set_title(left, loc="left")
    axes.set_title(right, loc="right", fontweight="normal", fontsize=8.5, color="#444444")


def counted(spikes: int) -> str:
    """Return a number of spikes in words."""
    return "1 spike" if spikes == 1 else f"{spikes} spikes"


def size_of(name: str, shape: Shape, unit: str = "neurons") -> str:
    """Return a layer's name and size, such as `neuron1: 32×8×8 neurons`."""
    return f"{name}: {show(shape)} {unit}"


def shortened(text: str, length: int = 16) -> str:
    """Return a label that fits beside an axis."""
    return text if len(text) <= length else text[: length - 1] + "…"
