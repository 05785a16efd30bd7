"""How the metrics of several workers become one text: each worker's labels on its own, then every family once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric


class Labelled(CollectorRegistry):
    """What another registry tells, with more labels."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.registry = registry
        self.labels = labels

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, which are made anew each time, with the labels."""
        for metric in self.registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self.labels}) for sample in metric.samples]
            yield metric


def merged(texts: Sequence[str]) -> str:
    """Return metrics in Prometheus' text format, of several workers, as one: a family and what is said of it once."""
    if len(texts) == 1:
        return texts[0]
    families: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        # A line begins so where a family does, and nowhere else: in names, labels and help a new line is escaped.
        for family in f"\n{text}".split("\n# HELP ")[1:]:
            about, kind, *samples = family.rstrip("\n").split("\n")
            families.setdefault((about, kind), []).extend(samples)
    return "".join("\n".join((f"# HELP {about}", kind, *samples, "")) for (about, kind), samples in families.items())
