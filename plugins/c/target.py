"""The target `c`: a network as one C99 file and its header, and what the compiled file answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.coding import Inputs
from spikeserve.models.engines.base import RunResult
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.source import write as source_of

Folder = Annotated[Path, typer.Argument(help="Where the two files are written.", metavar="FOLDER")]


def write(network: Network, name: str, version: int, path: Folder = Path()) -> list[str]:
    """Write a bundle as one C99 file and its header: no heap, no library, the same bits as the service."""
    title = f"{name} version {version}, written by spikeserve. Compile as C99."
    written = source_of(network, name, title)
    path.mkdir(parents=True, exist_ok=True)
    files = {path / f"{written.prefix}.c": written.code, path / f"{written.prefix}.h": written.header}
    for file, text in files.items():
        file.write_text(text)
    return [*(f"Wrote {file}" for file in files), f"Try: cc -std=c99 -O2 -c {next(iter(files))}"]


def run(network: Network, inputs: Inputs) -> RunResult:
    """Run the file, compiled by cc or what the environment's CC names, as `CompiledC` does."""
    from spikeserve.plugins.c.compiled import CompiledC  # which `export` does without

    return CompiledC(network).run(inputs)
