"""The gRPC server: the Open Inference Protocol's service, beside the HTTP server and on the same pipeline."""

from spikeserve.models.door import Plugin

PLUGINS = (Plugin("protocol", "grpc", ".protocol:PROTOCOL", "gRPC", needs=("grpc", "google.protobuf"), extra="grpc"),)
