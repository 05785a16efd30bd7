"""The gRPC server: the Open Inference Protocol's service, beside the HTTP server and on the same pipeline."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
