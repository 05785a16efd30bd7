"""The commands `export c` and `export wasm`, which need no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.bundle import Bundle
from spikeserve.plugins.c.source import write
from spikeserve.plugins.c.wasm import compiled
from spikeserve.training.commands.groups import BundleArgument, console, exports
from spikeserve.training.commands.sentences import run


@exports.command("c")
def export_c(
    bundle: BundleArgument,
    folder: Annotated[Path, typer.Argument(help="Where the two files are written.")] = Path(),
) -> None:
    """Write a bundle as one C99 file and its header: no heap, no library, the same bits as the service."""
    read = Bundle.read(bundle)
    name = read.manifest.name
    title = f"{name} version {read.manifest.version}, written by spikeserve. Compile as C99."
    source = write(read.network, name, title)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("c", source.code), ("h", source.header)):
        (folder / f"{source.prefix}.{suffix}").write_text(text)
        console.print(f"Wrote {folder / source.prefix}.{suffix}")
    console.print(f"Try: cc -std=c99 -O2 -c {folder / source.prefix}.c")


@exports.command("wasm")
def export_wasm(
    bundle: BundleArgument,
    file: Annotated[Path, typer.Argument(help="The file to write, such as digits.wasm.", show_default=False)],
) -> None:
    """Write a bundle as WebAssembly, which a static page runs without a server; clang makes it."""
    content = compiled(Bundle.read(bundle))
    file.write_bytes(content)
    console.print(f"Wrote {file}, {len(content) / 1000:.0f} kB")


def main(arguments: Sequence[str]) -> None:
    """Run one of these commands alone, and exit; a user's mistake is one sentence."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.add_typer(exports, name="export")
    run(app, arguments)
