"""All commands that typer makes, the core's and those of plugins, in one app: what a test calls in its process."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer

from spikeserve.training.__main__ import COMMANDS
from spikeserve.training.commands import verify
from spikeserve.training.commands.groups import at, group

OF_PLUGINS = {
    "convert": "frameworks.conversion.commands:convert_command",
    "report": "report.command:report",
    "plot": "report.plots:plot",
}


def _load(name: str) -> Any:
    if name in COMMANDS:
        return at(COMMANDS[name])
    module, _, function = OF_PLUGINS[name].partition(":")
    return getattr(import_module(f"spikeserve.plugins.{module}"), function)


app = group(lambda: [*COMMANDS, *OF_PLUGINS], _load, __doc__)


def commands(*path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the command of each that is not a group, below those words: ("export", "c")."""
    command = command_of(*path)
    if not hasattr(command, "commands"):
        yield path, command
    for name in getattr(command, "commands", ()) if path != ("check",) else ("nir",):  # other importers check no file
        yield from commands(*path, name)


def command_of(*path: str) -> Any:
    """Return the command or the group of those words."""
    if path == ("verify",):
        return verify.command("torch")  # with the flags for a framework's code
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.get_command(None, name)
    return command
