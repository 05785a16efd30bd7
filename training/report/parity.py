"""Parity: whether all installed engines give the same answers on a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from spikeserve.models.bundle import close
from spikeserve.models.coding import Inputs, encode
from spikeserve.models.engines import Engine, Record, RunResult, available, create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.training.data.datasets import Split
from spikeserve.training.errors import ExportRefused
from spikeserve.training.report.evaluate import at_once

COMPARED = 16  # random samples on which networks are compared


@dataclass(frozen=True)
class Parity:
    """How one engine compares with the reference: samples with another answer, and differing spikes of all spikes."""

    engine: str
    other_predictions: int = 0
    differing_spikes: int = 0
    spikes: int = 0

    @property
    def share(self) -> float:
        """The share of differing spikes."""
        return self.differing_spikes / max(1, self.spikes)

    @property
    def per_million(self) -> float:
        """How many of a million spikes differ."""
        return 1e6 * self.share


def engines_of(network: Network) -> dict[str, Engine]:
    """Return every installed engine for a network; making them can take longer than some samples do."""
    return {name: create(name, network) for name in available()}


def compare_engines(network: Network, engines: Mapping[str, Engine], split: Split) -> list[Parity]:
    """Compare every other engine of a network with the reference on each sample and each spike of a split."""
    reference = engines["reference"]
    totals = {name: np.zeros(3, np.int64) for name in engines if name != "reference"}
    for _, part in split.batches(at_once(network.spec)):
        inputs = encode(part.samples, network.spec)
        expected, _ = reference.run(inputs, record=Record.RASTER)
        for name, total in totals.items():
            result, _ = engines[name].run(inputs, record=Record.RASTER)
            for layer, raster in expected.rasters.items():
                total[1:] += np.count_nonzero(result.rasters[layer] != raster), raster.sum()
            total[0] += _others(network.spec, result, expected)
    return [Parity(name, *map(int, total)) for name, total in totals.items()]


def against_reference(network: Network, run: Callable[[Inputs], RunResult], inputs: Inputs) -> tuple[int, int, int]:
    """Run a network by the reference engine and elsewhere by `run`, and compare with no tolerance.

    Returns how many neuron-steps differ, and how many values of the answers, and of how many neuron-steps.
    """
    expected, _ = ReferenceEngine(network).run(inputs, record=Record.RASTER)
    result = run(inputs)
    spikes = sum(np.count_nonzero(raster != result.rasters[name]) for name, raster in expected.rasters.items())
    answers = ((expected.spike_counts, result.spike_counts), (expected.readout, result.readout))
    values = sum(np.count_nonzero(one != other) for one, other in answers)
    return int(spikes), int(values), sum(raster.size for raster in expected.rasters.values())


def require_parity(comparisons: list[Parity], samples: int) -> None:
    """Raise ExportRefused if an engine predicts another class than the reference."""
    for parity in comparisons:
        if parity.other_predictions:
            raise ExportRefused(
                f"engine '{parity.engine}' predicts another class than 'reference' for {parity.other_predictions} "
                f"of {samples} test samples ({parity.share:.2%} of spikes differ), so the network is not exported"
            )


def _others(spec: Spec, result: RunResult, expected: RunResult) -> int:
    """Return how many samples have another class; of a model without classes, values that are not within rounding."""
    if spec.scores.has_classes:
        return int((result.class_index != expected.class_index).sum())
    return int((~close(result.readout, expected.readout).all(axis=1)).sum())
