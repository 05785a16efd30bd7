"""The gRPC server: the Open Inference Protocol's service, beside the HTTP server, with the same batcher."""

from spikeserve.models.door import Plugin

PLUGINS = (Plugin("protocol", "grpc", ".protocol:PROTOCOL", "gRPC", needs=("grpc", "google.protobuf"), extra="grpc"),)
