"""Every kernel compiled, or fetched from its cache, before the first request."""

from __future__ import annotations

from functools import cache

import numpy as np

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Record
from spikeserve.models.engines.event.call import Call
from spikeserve.models.engines.event.compiled import Addressed, engine_kernels
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.node_kernels import go_on
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.table import NODE, RUN
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network

SMALL = {
    "input": {"shape": [1]},
    "time_steps": 2,
    "labels": ["only"],
    "nodes": [
        {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1},
        {"type": "IF", "name": "out"},
    ],
}


@cache
def compile_kernels() -> None:
    """Make every kernel ready; it takes ten seconds the first time on a machine, and then some tenths of one."""
    for kernel in engine_kernels:
        if isinstance(kernel, Addressed):
            assert kernel.address  # noqa: S101  (which compiles it)
    spec = Spec.read(SMALL)
    network = Network(spec, {name: np.ones(shape, np.float32) for name, shape in spec.tensor_shapes.items()})
    inputs = DenseInputs(np.ones((1, 1, 1), np.float32), spec.time_steps)
    Call(Plan(network), Cores(1), inputs, record=Record.RASTER).run()
    go_on.code_for((np.zeros(1, NODE), np.zeros(1, RUN)))


def are_cached() -> bool:
    """Return whether every kernel has been compiled for this machine's processor."""
    return all(kernel.is_cached for kernel in engine_kernels)
