"""The last step of whatever ends in a bundle: golden samples chosen, the ONNX model built, the next version written."""

from __future__ import annotations

from collections.abc import Mapping

from models.bundle import Contents
from models.bundle.repository import ModelRepository
from models.engines.onnx import graph as onnx_graph
from models.spec.network import Network
from models.version import VERSION
from training.data.datasets import Split
from training.publish.golden import choose_golden


def publish(
    network: Network, repository: ModelRepository, name: str, samples: Split, card: str, metrics: Mapping[str, float]
) -> int:
    """Publish a network as the next version of `name` and return that; golden samples are chosen from `samples`."""
    contents = Contents(
        name=name, network=network, golden=choose_golden(network, samples), metrics=dict(metrics), card=card
    )
    return repository.publish(
        contents, lambda version: onnx_graph.build(network, name, version, VERSION).SerializeToString()
    )
