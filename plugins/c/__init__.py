"""A bundle as one C99 file."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
