"""The gallery: the commands that list models, and copy them here or elsewhere."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
