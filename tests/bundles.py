"""Bundles of small networks for tests, published as a training job would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Contents, Golden
from models.bundle.repository import ModelRepository
from models.coding import encode
from models.engines.onnx import graph as onnx_graph
from models.engines.reference import ReferenceEngine
from models.spec.network import FloatArray, Network


def contents(network: Network, name: str = "toy", samples: FloatArray | None = None) -> Contents:
    """Return what a bundle of `network` holds; golden samples are drawn from its range unless given."""
    if samples is None:
        steps = (network.spec.time_steps,) if network.spec.coding.per_step else ()
        drawn = np.random.default_rng(0).integers(0, 2, (3, *steps, *network.spec.input.shape))
        samples = drawn.astype(np.float32)
    inputs = encode(samples, network.spec)
    result, _ = ReferenceEngine(network).run(inputs)
    golden = Golden(inputs, result.spike_counts, result.readout)
    return Contents(name, network, golden, {"test_accuracy": 0.5}, f"# {name}\n\nA network for tests.\n")


def publish(root: Path, network: Network, name: str = "toy") -> int:
    """Publish `network` with its ONNX model as the next version of `name` and return that version."""
    return ModelRepository(root).publish(
        contents(network, name),
        lambda version: bytes(onnx_graph.build(network, name, version).SerializeToString()),
    )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a bundle's manifest says."""
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def rehash(folder: Path, name: str, content: bytes) -> None:
    """Put another file in with a right hash, as somebody who means harm would."""
    (folder / name).write_bytes(content)
    rewrite(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))


Attack = tuple[str, dict[str, Any], str]  # its name, its spec, and what is said of it


def huge() -> list[Attack]:
    """Return small specs that call for more than any machine has."""

    def spec(nodes: list[dict[str, Any]], shape: list[int], time_steps: int = 1, **fields: Any) -> dict[str, Any]:
        return {"input": {"shape": shape}, "time_steps": time_steps, "labels": ["only"], "nodes": nodes, **fields}

    def conv(**fields: Any) -> dict[str, Any]:
        return {"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 1, "kernel_size": 1} | fields

    flat, out = {"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}
    pool = {"type": "AvgPool2d", "name": "pool", "kernel_size": 40001}
    sums: list[dict[str, Any]] = [{"type": "IF", "name": "n0"}]
    sums += [{"type": "IF", "name": f"n{k}", "inputs": [f"n{each}" for each in range(k)]} for k in range(1, 999)]
    wide = {"type": "Linear", "name": "wide", "in_features": 1, "out_features": 2**31 - 1}
    narrow = {"type": "Linear", "name": "narrow", "in_features": 2**31 - 1, "out_features": 1}
    steps = {"type": "Conv1d", "name": "steps", "in_channels": 1, "out_channels": 1, "kernel_size": 2**20}
    return [
        (
            "padding",
            spec([conv(padding=20000), pool, flat, out], [1, 1, 1]),
            "node 'pool': with its input of 1×40001×40001 and output of 1×1×1 it takes 128",
        ),
        ("dilation", spec([conv(padding=10**9), pool, flat, out], [1, 1, 1]), "node 'conv': its output has shape 1×20"),
        (
            "padded",
            spec([conv(padding=30000, stride=60001), {**pool, "kernel_size": 1}, flat, out], [1, 1, 1]),
            "node 'conv': with its input of 1×1×1 and output of 1×1×1 ",
        ),
        ("wide", spec([wide, narrow, out], [1]), "and its 4294967294 parameters it takes"),
        ("input", spec([{**pool, "kernel_size": 30000}, flat, out], [1, 30000, 30000]), "its input of 1×30000×30000"),
        (
            "edges",
            spec([{**out, "inputs": ["input"] * 1_500_000}], [1]),
            "inputs: tuple should have at most 1000 items",
        ),
        ("sums", spec(sums, [1]), "has more than 20000 edges"),
        (
            "delay",
            spec(
                [{"type": "Delay", "name": "late", "delay": 100_000}, {**pool, "kernel_size": 256}, flat, out],
                [1, 256, 256],
            ),
            "node 'late': with its input of 1×256×256 and output of 1×256×256 it takes 26",
        ),
        ("steps", spec([{**pool, "kernel_size": 200}, flat, out], [1, 200, 200], 100_000), "its input of 1×200×200"),
        (
            "taps",
            spec(
                [
                    {**steps, "padding": 2**20},
                    {"type": "MaxPool1d", "name": "most", "kernel_size": 2**20 + 2},
                    flat,
                    out,
                ],
                [1, 1],
            ),
            "operations that loading the model takes",
        ),
        (
            "windows",
            spec(
                [{**pool, "kernel_size": 4000, "stride": 1}, {**pool, "name": "all", "kernel_size": 4001}, flat, out],
                [1, 8000, 8000],
            ),
            "its input of 1×8000×8000 and output of 1×4001×4001",
        ),
    ]
