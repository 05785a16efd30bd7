"""The `onnx` engine, and the export of a spec as an ONNX graph."""

from spikeserve.models.door import Plugin

_NEEDS = ("onnx", "onnxruntime")

PLUGINS = (
    Plugin("engine", "onnx", ".engine:OnnxEngine", "runs a network as an ONNX graph, in ONNX Runtime", _NEEDS, "onnx"),
    Plugin("target", "onnx", ".target", "an ONNX model of standard operators", _NEEDS[:1], "onnx"),
)
