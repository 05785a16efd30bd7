"""The messages of gRPC's health checks, as health.proto says; their types are in health.pyi."""

from spikeserve.plugins.grpc.descriptors import message_classes

globals().update(message_classes("health"))
