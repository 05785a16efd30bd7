"""A bundle as one C99 file, or as WebAssembly."""

from spikeserve.models.door import Plugin

PLUGINS = (
    Plugin("target", "c", ".target", "one C99 file and its header", ("typer",), "export"),
    Plugin("target", "wasm", ".wasm", "WebAssembly, for a static page", ("typer",), "export"),
)
