"""Answers in this process, without a server: the command `spikeserve run`, and the functions that `batch` shares."""

from spikeserve.models.door import Plugin

NEEDS = (("numba", "pydantic_settings"), "serve")
PLUGINS = (Plugin("command", "run", ".__main__:main", "answer samples on standard input, without a server", *NEEDS),)
