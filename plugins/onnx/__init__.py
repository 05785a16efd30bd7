"""The `onnx` engine, and the export of a spec as an ONNX graph."""

from spikeserve.models.door import Plugin

PLUGINS = (
    Plugin(
        "engine",
        "onnx",
        ".engine:OnnxEngine",
        "runs a network as an ONNX graph in ONNX Runtime",
        needs=("onnx", "onnxruntime"),
        extra="onnx",
    ),
)
