"""The operations of a bundle, as NeuroBench defines them."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
