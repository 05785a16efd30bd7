"""The command `spikeserve batch`: predictions of many files of samples, on Ray Data."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
