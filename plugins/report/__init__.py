"""The operations of a bundle, as NeuroBench defines them, and the plots of a run."""

from spikeserve.models.door import Plugin

PLUGINS = (
    Plugin("command", "report", ".command:main", "count a bundle's operations", ("torch", "typer"), "train"),
    Plugin("command", "plot", ".plots:main", "draw a run that has ended", ("matplotlib", "typer"), "train"),
)
