"""The `onnx` engine, and the export of a spec as an ONNX graph."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
