"""The `onnx` engine, the graph that it runs, and external ONNX models."""
