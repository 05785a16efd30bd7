"""The operations of a bundle, as NeuroBench defines them."""

from spikeserve.models.door import Plugin

PLUGINS = (Plugin("command", "report", ".command:main", "count a bundle's operations", ("torch", "typer"), "train"),)
