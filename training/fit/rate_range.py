"""The learning-rate range test: some hundred steps with a rate that rises until the loss does (Smith, 2017).

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3. The loss falls where the
rate is large enough to learn, and rises where it is too large. The suggestion is a tenth of the rate at which the
smoothed loss is least: there it still falls fast, at a safe distance from where it rises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.devices import Devices
from spikeserve.training.fit.loop import start, train_epoch
from spikeserve.training.report.epochs import Watcher

SMOOTHING = 0.9  # what the smoothed loss keeps of itself per step
DIVERGED = 3.0  # times the least smoothed loss: there the test ends
MARGIN = 10.0  # the suggestion is the rate of the least smoothed loss divided by this


@dataclass(frozen=True)
class RateRange:
    """The steps of a test, in order: their learning rates and losses, and the losses smoothed over the steps before."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def best(self) -> float:
        """The learning rate at which the smoothed loss is least."""
        return self.rates[self.smoothed.index(min(self.smoothed))]

    @property
    def suggestion(self) -> float:
        """The learning rate to train with."""
        return self.best / MARGIN


class _EndOfTest(Exception):
    """The test has seen enough."""


def find_learning_rate(
    architecture: Architecture,
    data: Dataset,
    config: TrainingConfig,
    devices: Devices,
    *,
    steps: int = 300,
    lowest: float = 1e-6,
    highest: float = 1.0,
) -> RateRange:
    """Train fresh weights for `steps` batches, with a rate that rises by equal factors from `lowest` to `highest`.

    It ends before where the loss is not finite, or DIVERGED times the least. Raises InvalidConfig for fewer than 2
    steps, rates that do not rise, and a loss that is not finite at the first step.
    """
    if steps < 2:
        raise InvalidConfig(f"steps: is {steps}, expected at least 2")
    if not 0 < lowest < highest < math.inf:
        raise InvalidConfig(
            f"lowest: is {lowest:g}, expected more than 0 and less than highest, {highest:g}, which is to be finite"
        )
    module, _, optimiser, _ = start(architecture, data, config, devices)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0

    def rate_at(_: float) -> float:
        return lowest * float(highest / lowest) ** (len(rates) / (steps - 1))

    def after(rate: float, loss: float) -> None:
        nonlocal average
        if not math.isfinite(loss):
            raise _EndOfTest
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(loss)
        smoothed.append(average / (1 - SMOOTHING ** len(rates)))
        if len(rates) == steps or smoothed[-1] > DIVERGED * min(smoothed):
            raise _EndOfTest

    epoch = 0
    try:
        while True:
            train_epoch(module, optimiser, data, config, epoch, rate_at, Watcher(step=after), devices)
            epoch += 1
    except _EndOfTest:
        pass
    if not rates:
        raise InvalidConfig(f"lowest: the loss is not finite at the first step, whose learning rate is {lowest:g}")
    return RateRange(tuple(rates), tuple(losses), tuple(smoothed))
