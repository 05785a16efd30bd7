"""The target `onnx`: a network as the ONNX model that a bundle may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.spec.network import Network
from spikeserve.models.version import VERSION
from spikeserve.plugins.onnx.graph import build


def write(
    network: Network, name: str, version: int, path: Annotated[Path, typer.Argument(help="The file to write.")]
) -> list[str]:
    """Write a bundle as an ONNX model of standard operators, for ONNX Runtime and others."""
    path.write_bytes(build(network, name, version, VERSION).SerializeToString())
    return [f"Wrote {path}"]
