"""The protocols beside HTTP: plugins, each of which works if the setting of its port is not 0."""

from __future__ import annotations

from spikeserve.models.door import of_kind
from spikeserve.models.errors import install
from spikeserve.models.kinds import ServiceProtocol
from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import Settings


def protocols_of(settings: Settings) -> dict[str, tuple[ServiceProtocol, int]]:
    """Return each protocol that has a port, and that, by the port's setting.

    Raises Misconfigured for one without its libraries, and InvalidInput for a bad plugin.
    """
    protocols: dict[str, tuple[ServiceProtocol, int]] = {}
    for name, plugin in of_kind("protocol").items():
        setting = f"{name}_port"
        if port := getattr(settings, setting, 0):
            if plugin.missing and plugin.extra:
                sentence = f"'{plugin.missing[0]}' is not installed: {install(plugin.extra)}"
                raise Misconfigured(f"{setting}: is set, but {sentence}")
            protocols[setting] = plugin.load(), port
    return protocols
