"""The target `nir`: a network as a NIR file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.network import Network
from spikeserve.plugins.nir.export import named_rules, to_graph
from spikeserve.plugins.nir.file import write as write_file


def write(
    network: Network,
    name: str,  # noqa: ARG001  (the file says none)
    version: int,  # noqa: ARG001
    path: Annotated[Path, typer.Argument(help="The NIR file to write.", metavar="FILE")],
    dt: Annotated[float | None, typer.Option(help="Seconds per step.", show_default="the bundle's, or 1e-4")] = None,
) -> list[str]:
    """Write a bundle as a NIR file, which `import nir` reads back bit for bit."""
    if dt is not None and not 0 < dt < math.inf:
        raise InvalidInput(f"--dt is {dt:g}, expected a finite number of seconds above 0")
    write_file(path, to_graph(network, dt))
    rules = named_rules(network, dt)
    lines = [f"Wrote {path}: dialect {rules.dialect}, dt {rules.dt:g} s, reset {rules.reset} ({rules.reset_timing})"]
    if any(network.spec.weight_bits.values()):
        lines += ["Its weights of few bits have the same values there, as float32: four times the bytes, or eight."]
    return lines
