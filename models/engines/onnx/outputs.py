"""The name of the output of model.onnx that the answer is read from, for what builds the graph and what runs it."""

from __future__ import annotations

from spikeserve.models.spec import Spec
from spikeserve.models.spec.nodes import Integrating, Spiking


def read_at_each_step(spec: Spec) -> str:
    """Return the name of the output with what the answer is read from at each step, (time_steps, batch, *shape)."""
    node = spec.readout_node
    if spec.readout.of_membrane or isinstance(node, Integrating):
        return f"{node.name}.membrane"
    return f"{node.name}.raster" if isinstance(node, Spiking) else f"{node.name}.output"
