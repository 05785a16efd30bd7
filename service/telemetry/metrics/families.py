"""Families of metrics in plain numbers, which become Prometheus' on each scrape.

Only the event loop counts, so that no number needs a lock: counting takes a tenth of the time that it would with one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Set
from functools import partial
from itertools import accumulate
from typing import Any, Generic, TypeAlias, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHORT_SECONDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, *SECONDS)  # for what may take microseconds


class Value:
    """The value of a counter or of a gauge."""

    def __init__(self) -> None:
        self.value: float = 0
        self.function: Callable[[], float] | None = None

    def inc(self, by: float = 1) -> None:
        """Add to it."""
        self.value += by

    def set(self, value: float) -> None:
        """Set it."""
        self.value = value

    def told(self) -> tuple[float]:
        """Return the value, as a family of Prometheus takes it."""
        return (self.value if self.function is None else self.function(),)


class Distribution:
    """A histogram: counts of values by bucket, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count values."""
        for value in values:
            self.observe(value)

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Return each bound with the count of values up to it, and the sum, as a family of Prometheus takes them."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True)), self.sum


Count = TypeVar("Count", Value, Distribution)


class Family(Generic[Count]):
    """One metric, with a count for each combination of its labels' values."""

    def __init__(self, metric: Callable[..., Any], make: Callable[[], Count], labels: tuple[str, ...]) -> None:
        self.metric = metric
        self.labels = labels
        self.make: Callable[[], Count] = make
        self.counts: dict[tuple[str, ...], Count] = {}

    def of(self, *labels: object) -> Count:
        """Return the count for these values of the labels, made when it is missing."""
        key = tuple(map(str, labels))
        return self.counts.get(key) or self.counts.setdefault(key, self.make())

    def keep(self, listed: Set[tuple[str, ...]]) -> None:
        """Drop the counts whose first labels are not listed: they would add up as models come and go."""
        length = len(next(iter(listed), ()))
        self.counts = {key: count for key, count in self.counts.items() if key[:length] in listed}

    def drop(self, *labels: str) -> None:
        """Drop the counts whose first labels are these."""
        self.counts = {key: count for key, count in self.counts.items() if key[: len(labels)] != labels}

    def collect(self) -> Metric:
        """Return it as Prometheus' client has it."""
        metric: Metric = self.metric(labels=self.labels)
        for labels, count in self.counts.items():
            metric.add_metric(labels, *count.told())  # type: ignore[attr-defined]  # of each kind of family
        return metric


Values: TypeAlias = Family[Value]
Distributions: TypeAlias = Family[Distribution]


class Families:
    """Some families of metrics."""

    def __init__(self) -> None:
        self.families: list[Values | Distributions] = []

    def counter(self, name: str, about: str, *labels: str) -> Values:
        """Make a family of counters."""
        return self._add(CounterMetricFamily, Value, name, about, labels)

    def gauge(self, name: str, about: str, *labels: str) -> Values:
        """Make a family of gauges."""
        return self._add(GaugeMetricFamily, Value, name, about, labels)

    def histogram(self, name: str, about: str, *labels: str, bounds: tuple[float, ...] = SECONDS) -> Distributions:
        """Make a family of histograms."""
        return self._add(HistogramMetricFamily, partial(Distribution, bounds), name, about, labels)

    def _add(
        self, kind: Callable[..., Any], make: Callable[[], Count], name: str, about: str, labels: tuple[str, ...]
    ) -> Family[Count]:
        family = Family(partial(kind, f"spikeserve_{name}", about), make, labels)
        self.families.append(family)
        return family

    def keep(self, listed: Set[tuple[str, ...]]) -> None:
        """Drop the counts whose first labels are not listed."""
        for family in self.families:
            family.keep(listed)

    def collect(self) -> Iterator[Metric]:
        """Return all of them as Prometheus' client has them."""
        return (family.collect() for family in self.families)
