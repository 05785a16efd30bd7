"""The command `export c`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.bundle import Bundle
from spikeserve.training.commands.groups import console
from spikeserve.training.targets.c.source import write


def export_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where the two files are written.")] = Path(),
) -> None:
    """Write a bundle as one C99 file and its header: no heap, no library, the same bits as the service."""
    read = Bundle.read(bundle)
    name = read.manifest.name
    title = f"{name} version {read.manifest.version}, written by spikeserve. Compile as C99."
    source = write(read.network, name, read.digest, title)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("c", source.code), ("h", source.header)):
        (folder / f"{source.prefix}.{suffix}").write_text(text)
        console.print(f"Wrote {folder / source.prefix}.{suffix}")
    console.print(f"Try: cc -std=c99 -O2 -c {folder / source.prefix}.c")
