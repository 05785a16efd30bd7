"""Merge the metrics of several workers into one text: label each worker's metrics, then write every family once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric


class LabelledRegistry(CollectorRegistry):
    """The metrics of another registry, with more labels."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.registry = registry
        self.labels = labels

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, which are new objects on each call, with the labels added."""
        for metric in self.registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self.labels}) for sample in metric.samples]
            yield metric


def merged(texts: Sequence[str]) -> str:
    """Merge several workers' metrics in Prometheus' text format; each family and its help appear once."""
    if len(texts) == 1:
        return texts[0]
    families: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        # Only a family's first line begins with "# HELP": line breaks in names, labels and help are escaped.
        for family in f"\n{text}".split("\n# HELP ")[1:]:
            about, kind, *samples = family.rstrip("\n").split("\n")
            families.setdefault((about, kind), []).extend(samples)
    return "".join("\n".join((f"# HELP {about}", kind, *samples, "")) for (about, kind), samples in families.items())
