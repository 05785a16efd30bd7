"""ONNX models of others as bundles: a file of one's own exporter, and the contract that it keeps."""
