"""Networks from elsewhere: other frameworks, NIR files and ONNX models."""
