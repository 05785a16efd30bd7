"""The protocol's messages, as messages.proto says; their types are in messages.pyi."""

from spikeserve.plugins.grpc.descriptors import message_classes

globals().update(message_classes("messages"))
