"""The commands `export c` and `export wasm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.bundle import Bundle
from spikeserve.training.commands.groups import console
from spikeserve.training.targets.c.source import write
from spikeserve.training.targets.wasm import compiled

BundleArgument = Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)]


def export_c(
    bundle: BundleArgument,
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


def export_wasm(
    bundle: BundleArgument,
    file: Annotated[Path, typer.Argument(help="The file to write, such as digits.wasm.", show_default=False)],
) -> None:
    """Write a bundle as WebAssembly, which a static page runs without a server; clang makes it."""
    content = compiled(Bundle.read(bundle))
    file.write_bytes(content)
    console.print(f"Wrote {file}, {len(content) / 1000:.0f} kB")
