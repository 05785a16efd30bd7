"""The command `spikeserve batch`: predictions of many files of samples, on Ray Data."""

from spikeserve.models.door import Plugin

NEEDS = (("pyarrow", "ray", "typer", "spikeserve.plugins.local"), "ray")
PLUGINS = (
    Plugin("command", "batch", ".__main__:main", "predict files of samples, in parts, on a Ray cluster", *NEEDS),
)
