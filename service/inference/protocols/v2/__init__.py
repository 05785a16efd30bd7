"""The codec of the Open Inference Protocol v2."""
