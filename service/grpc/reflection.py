"""The messages of gRPC's server reflection, as reflection.proto says; their types are in reflection.pyi."""

from spikeserve.service.grpc.descriptors import message_classes

globals().update(message_classes("reflection"))
