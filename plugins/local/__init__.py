"""The command `spikeserve run`: samples on standard input are answered in this process, without a server."""

from spikeserve.models.door import Plugin

NEEDS = (("numba", "pydantic_settings"), "serve")
PLUGINS = (Plugin("command", "run", ".__main__:main", "answer samples on standard input, without a server", *NEEDS),)
