"""Bundles of small networks for tests, published as a training job would."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.bundle import Contents, GoldenSamples
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.version import VERSION
from spikeserve.plugins.onnx.graph import build
from tests.networks import network_of, task


def contents(network: Network, name: str = "toy", samples: FloatArray | None = None) -> Contents:
    """Return the contents of a bundle of `network`; golden samples are drawn from its range unless given."""
    if samples is None:
        steps = (network.spec.time_steps,) if network.spec.coding.per_step else ()
        drawn = np.random.default_rng(0).integers(0, 2, (3, *steps, *network.spec.input.shape))
        samples = drawn.astype(np.float32)
    inputs = encode(samples, network.spec)
    result, _ = ReferenceEngine(network).run(inputs)
    golden = GoldenSamples(inputs, result.spike_counts, result.readout)
    return Contents(name, network, golden, {"test_accuracy": 0.5}, f"# {name}\n\nA network for tests.\n")


def publish(root: Path, network: Network, name: str = "toy") -> int:
    """Publish `network` with its ONNX model as the next version of `name` and return that version."""

    def onnx_model(version: int, path: Path) -> None:
        path.write_bytes(build(network, name, version, VERSION).SerializeToString())

    return ModelRepository(root).publish(replace(contents(network, name), onnx_model=onnx_model))


def published(factory: pytest.TempPathFactory, **networks: Network) -> Path:
    """Return a repository of these networks, by name, for the tests of a file."""
    root = factory.mktemp("repository")
    for name, network in networks.items():
        publish(root, network, name)
    return root


def publish_slow(root: Path, name: str) -> None:
    """Publish a network whose golden samples take engine `reference` many minutes, and no other one much longer."""
    wide, samples, steps = 256, 16_384, 1_000
    layers = [
        {"type": "Linear", "name": f"fc{layer}", "in_features": wide, "out_features": wide, "bias": False}
        for layer in "ab"
    ]
    nodes = [node for layer in layers for node in (layer, {"type": "IF", "name": f"if_{layer['name']}"})]
    weight = np.full((wide, wide), 0.5, np.float32)
    network = network_of(nodes, {"fca.weight": weight, "fcb.weight": weight}, **task(wide, steps, wide))
    nothing = np.zeros((samples, wide), np.float32)  # in which nothing fires
    golden = GoldenSamples(encode(nothing, network.spec), nothing.astype(np.int64), nothing)
    ModelRepository(root).publish(Contents(name, network, golden, {}, ""))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a bundle's manifest says."""
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def rehash(folder: Path, name: str, content: bytes) -> None:
    """Put another file in with a right hash, as somebody who means harm would."""
    (folder / name).write_bytes(content)
    rewrite(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))
