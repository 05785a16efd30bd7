"""NIR files in and out: read and repaired, put under a named dialect, published, written back."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
