"""The command `spikeserve run`: samples on standard input are answered in this process, without a server."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
