"""The `onnx` engine, the export of a spec as an ONNX graph, and the engine of external ONNX models."""
