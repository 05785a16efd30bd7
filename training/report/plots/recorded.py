"""One recorded sample: its input, and every layer's spikes and membranes over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import Engine, Record
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.training.report.plots.style import TimeAxis


@dataclass(frozen=True)
class RecordedSample:
    """A sample's run: `inputs` (1 or time_steps, *shape), and what each layer did.

    `rasters` and `membranes` name to (time_steps, *shape); a readout that does not spike has a membrane alone.
    """

    network: Network
    inputs: FloatArray
    rasters: Mapping[str, NDArray[np.int32]]
    membranes: Mapping[str, FloatArray]
    time: TimeAxis
    predicted: int

    @property
    def spec(self) -> Spec:
        """The network's spec."""
        return self.network.spec

    @classmethod
    def of(cls, engine: Engine, network: Network, sample: FloatArray) -> RecordedSample:
        """Run one raw sample and record it."""
        encoded: DenseInputs = encode(sample[np.newaxis], network.spec)
        result, _ = engine.run(encoded, record=Record.RASTER | Record.MEMBRANE)
        return cls(
            network=network,
            inputs=encoded.steps[:, 0],
            rasters={name: raster[:, 0] for name, raster in result.rasters.items()},
            membranes={name: membrane[:, 0] for name, membrane in result.membranes.items()},
            time=TimeAxis.of(network.spec, encoded.time_steps),
            predicted=int(result.class_index[0]),
        )
