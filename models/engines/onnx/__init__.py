"""The `onnx` engine, and the export of a spec as an ONNX graph."""
