"""What every command is made with, and the groups whose commands the door knows: `import` takes in, `export` gives out.

A group imports a command only when one asks for it. `export RUN` came first, and goes on without the name of a command:
what names no command of `export` is a run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from spikeserve.models import door
from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import bundle_folder
from spikeserve.training.commands.flags import Command, with_parameters
from spikeserve.training.commands.sentences import run

RUN = "run"

console = Console(soft_wrap=True, highlight=False, markup=False)  # a path or a sentence stays on one line as it is

RepositoryOption = Annotated[
    str, typer.Option(help="The model repository to publish to: a folder, or a URL such as s3://bucket/models.")
]
BUNDLE = "A bundle's folder, or a model's name: its newest version in ./repository, or of those that ship."
BundleArgument = Annotated[Path, typer.Argument(help=BUNDLE, parser=bundle_folder, show_default=False)]
ModelNameOption = Annotated[str, typer.Option(help="The model's name.", show_default=False)]
NameArgument = Annotated[str, typer.Argument(help=f"{BUNDLE} With --repository its own.", show_default=False)]
OfRepository = Annotated[
    str | None, typer.Option("--repository", help="The repository of the model, if it is a name.", show_default="none")
]


class FlagsCommand(TyperCommand):
    """A command that suggests a flag for a misspelt one alone, so that a removed flag is not taken for another."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            unknown: Any = error  # Typer exports no NoSuchOption
            if near := getattr(error, "possibilities", None):
                unknown.possibilities = get_close_matches(unknown.option_name, near, cutoff=0.8)
            raise


PLAIN: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False}


def made(command: Command, name: str | None = None) -> Any:
    """Return the command that a function is."""
    app = typer.Typer(**PLAIN)
    app.command(name, cls=FlagsCommand)(command)
    return typer.main.get_command(app)


def group(
    names: Callable[[], Iterable[str]],
    load: Callable[[str], Command | TyperCommand | typer.Typer],
    said: str,
    unnamed: Callable[[Sequence[str]], str] | None = None,
) -> typer.Typer:
    """Return a group of commands, of which `load` imports one by name; `unnamed` names that of words without one."""

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes | {"commands": dict.fromkeys(names())})

        @override
        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in self.commands:
                return None
            command = load(cmd_name)
            if isinstance(command, typer.Typer):
                return typer.main.get_command(command)
            return command if isinstance(command, TyperCommand) else made(command, cmd_name)

        @override
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if unnamed and args and args[0] not in (*self.commands, "--help"):
                args = [unnamed(args), *args]
            return super().parse_args(ctx, args)

    return typer.Typer(cls=Group, callback=lambda: None, help=said, no_args_is_help=True, **PLAIN)


def program(name: str, command: Command) -> Callable[[Sequence[str]], None]:
    """Return the `main` of one command, which exits; a user's mistake is one sentence."""
    return lambda words: run(group(lambda: [name], lambda _: command, ""), [name, *words])


def at(place: str) -> Any:
    """Import `module:attribute` of this package."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


def _export(name: str) -> Command:
    """Return the command that writes a bundle for a target, with what its `write` takes as options."""
    if name == RUN:
        return at("runs:export_run")
    target = door.named("target", name)

    def command(bundle: NameArgument, repository: OfRepository = None, **own: Any) -> None:
        if repository is None:
            read = Bundle.read(bundle_folder(bundle))
        else:
            read = import_module("spikeserve.models.bundle.copies").repository_at(repository).read(bundle)
        for line in target.write(read.network, read.manifest.name, read.manifest.version, **own):
            console.print(line)

    command.__doc__ = target.write.__doc__
    bundle, repository, _ = inspect.signature(command, eval_str=True).parameters.values()
    _, _, _, *own = inspect.signature(target.write, eval_str=True).parameters.values()
    return with_parameters(command, [bundle, *own, repository])


exports = group(
    lambda: (RUN, *door.of_kind("target", [RUN])),
    _export,
    "Publish a run (`export RUN`), or write a bundle as NIR, ONNX, C or WebAssembly.",
    unnamed=lambda _: RUN,
)
