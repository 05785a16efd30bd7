"""Parity: whether all installed engines give the same answers on a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.bundle import close_readouts
from models.engines import EngineName, Record, RunResult, available, create
from models.spec import Spec
from models.spec.network import Network
from training.data.datasets import Split
from training.errors import ExportRefused
from training.report.evaluate import run_batches


@dataclass(frozen=True)
class Parity:
    """How one engine compares with the reference: samples with another answer, and differing spikes of all spikes."""

    engine: EngineName
    other_predictions: int
    differing_spikes: int
    spikes: int

    @property
    def share(self) -> float:
        """The share of differing spikes."""
        return self.differing_spikes / max(1, self.spikes)

    @property
    def per_million(self) -> float:
        """How many of a million spikes differ."""
        return 1e6 * self.share


def compare_engines(network: Network, split: Split) -> list[Parity]:
    """Compare every other installed engine with the reference on each sample and each spike of a split."""
    expected = run_batches(create(EngineName.REFERENCE, network), split, Record.RASTER)
    others = [engine for engine in available() if engine is not EngineName.REFERENCE]
    return [
        _compare(network.spec, engine, run_batches(create(engine, network), split, Record.RASTER), expected)
        for engine in others
    ]


def require_parity(comparisons: list[Parity], samples: int) -> None:
    """Raise ExportRefused if an engine predicts another class than the reference."""
    for parity in comparisons:
        if parity.other_predictions:
            raise ExportRefused(
                f"engine '{parity.engine}' predicts another class than 'reference' for {parity.other_predictions} "
                f"of {samples} test samples ({parity.share:.2%} of spikes differ), so the network is not exported"
            )


def _others(spec: Spec, found: RunResult, expected: RunResult) -> int:
    """Return how many samples have another class; of a model without classes, values that are not within rounding."""
    if spec.scores.has_classes:
        return int((found.class_index != expected.class_index).sum())
    close = close_readouts(found.readout, expected.readout, spec, spec.time_steps)
    return int((~close.all(axis=1)).sum())


def _compare(spec: Spec, engine: EngineName, found: list[RunResult], expected: list[RunResult]) -> Parity:
    pairs = list(zip(found, expected, strict=True))
    return Parity(
        engine=engine,
        other_predictions=sum(_others(spec, mine, theirs) for mine, theirs in pairs),
        differing_spikes=sum(
            int(np.count_nonzero(mine.rasters[name] != raster))
            for mine, theirs in pairs
            for name, raster in theirs.rasters.items()
        ),
        spikes=sum(int(raster.sum()) for theirs in expected for raster in theirs.rasters.values()),
    )
