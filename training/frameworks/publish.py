"""From a converted network to a bundle: golden samples, an ONNX model, and a card that says where it came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models import onnx_graph
from models.bundle import Contents
from models.parameters import show
from models.repository import ModelRepository
from models.version import VERSION
from training.datasets import Split
from training.frameworks.compare import LayerParity, draw
from training.frameworks.convert import Converted
from training.frameworks.framework import Framework
from training.golden import CANDIDATES, choose_golden


def publish(
    converted: Converted, framework: Framework, repository: ModelRepository, name: str, parity: Sequence[LayerParity]
) -> int:
    """Publish a network as the next version of `name` and return that version; its golden samples are random ones."""
    network = converted.network
    split = Split(draw(network.spec, CANDIDATES), np.zeros(CANDIDATES, np.int64))
    contents = Contents(
        name=name,
        network=network,
        golden=choose_golden(network, split),
        metrics={},
        card=_card(converted, framework, name, parity),
    )
    return repository.publish(
        contents, lambda version: onnx_graph.build(network, name, version, VERSION).SerializeToString()
    )


def _card(converted: Converted, framework: Framework, name: str, parity: Sequence[LayerParity]) -> str:
    spec = converted.network.spec
    weights = sum(tensor.size for tensor in converted.network.tensors.values())
    rows = "\n".join(f"| {row.node} | `{row.module}` | {row.differing} of {row.neuron_steps} |" for row in parity)
    notes = "".join(f"\n{note}\n" for note in converted.notes)
    return f"""# {name}

A spiking network from {framework.name} {framework.version}: {len(spec.nodes)} nodes, {weights} parameters,
{spec.time_steps} time steps, {spec.coding} coding.

- **Input**: {show(spec.input.shape)} values from {spec.input.low:g} to {spec.input.high:g}
- **Classes**: {", ".join(spec.labels)}
- **Rule**: {framework.name} {framework.rule}; each node of the spec says its own
- **Accuracy**: not measured here, for no data came with the network
{notes}
## Agreement with {framework.name}

Neuron-steps in which the reference engine and {framework.name}'s own modules differ, on random inputs. Sums may round
in another order, so that a membrane within rounding of its threshold may fall otherwise.

| node | module | differing |
|---|---|---|
{rows}

## Limits

It knows only what it was trained on, and nothing here says what that was.
"""
