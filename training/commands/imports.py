"""The groups `import` and `check`, with a command for each importer, which is loaded once its flags are asked for.

Without the importer's name, the one that is surest of the file takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from spikeserve.models.bundle.repository import require_name
from spikeserve.models.door import Plugin, guessed, of_kind
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Input, OutOfRange
from spikeserve.models.spec.parameters import show
from spikeserve.training.commands.flags import Flag, flags_of, with_parameters
from spikeserve.training.commands.groups import ModelNameOption, RepositoryOption, console
from spikeserve.training.errors import ExportRefused
from spikeserve.training.importers.options import Imported


class ImportCommand(TyperCommand):
    """`import NAME`: makes its flags of the importer's options, which it imports for that, and for nothing before."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        super().__init__(plugin.name, help=f"{plugin.says}.")

    @cached_property
    def made(self) -> TyperCommand:
        """The command with its flags."""
        importer = self.plugin.load()
        flags = flags_of(importer.options, checked=True)

        def run(source: str, name: str, repository: str, **typed: Any) -> None:
            require_name(name)
            publish(importer.convert(source, read(importer.options, typed)), repository, name)

        own = {"name": (ModelNameOption, Parameter.empty), "repository": (RepositoryOption, "repository")}
        return _command(importer, run, own, flags)

    @property
    def params(self) -> list[Any]:
        """The parameters of the command."""
        return self.made.params

    @params.setter
    def params(self, _: Any) -> None:
        pass

    @override
    def invoke(self, ctx: Any) -> Any:
        return self.made.invoke(ctx)


class CheckCommand(ImportCommand):
    """`check` of a file that an importer takes."""

    @cached_property
    @override
    def made(self) -> TyperCommand:
        importer = self.plugin.load()
        if not importer.checked:
            raise InvalidInput(f"check: importer '{self.name}' checks no file, expected one that does, such as nir")
        flags = [flag for flag in flags_of(importer.options, checked=True) if flag.name in importer.checked]

        def run(source: str, **typed: Any) -> None:
            raise typer.Exit(importer.check(source, read(importer.options, typed)))

        return _command(importer, run, {}, flags)


class Importers(TyperGroup):
    """A group with a command for each importer."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: ImportCommand(plugin) for name, plugin in of_kind("importer").items()}

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in of_kind("importer") and args[0] != "--help":
            args = [self.unnamed(args), *args]
        return super().parse_args(ctx, args)

    def unnamed(self, args: Sequence[str]) -> str:
        """Return the name of the importer that takes the file among these words; raises InvalidInput."""
        files = [each for each in args if Path(each).is_file()] if args[0].startswith("-") else []
        return guessed("importer", Path([*files, args[0]][0])).name


class Checks(Importers):
    """The same for the check of a file; it lists no importer, since not each of them checks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {}

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> CheckCommand:
        return CheckCommand(of_kind("importer")[cmd_name])


imports = typer.Typer(cls=Importers, help="Make a bundle of a network from elsewhere.", no_args_is_help=True)
checks = typer.Typer(cls=Checks, help="Verify a file from elsewhere without importing it.", no_args_is_help=True)


def read(options: type[Any], typed: dict[str, Any]) -> Any:
    """Return the options of an importer that were typed; None and an empty text are not."""
    flags = {flag.name: flag for flag in flags_of(options, checked=True)}
    return options.read({name: flags[name].value(text) for name, text in typed.items() if text not in (None, "")})


def _command(importer: Any, run: Callable[..., None], own: dict[str, Any], flags: Sequence[Flag]) -> TyperCommand:
    """Return a command that takes a source, and these parameters and flags."""
    source = Annotated[str, typer.Argument(help=importer.source, show_default=False)]
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in {"source": (source, Parameter.empty), **own}.items()
    ]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(with_parameters(run, [*parameters, *(flag.parameter() for flag in flags)]))
    return typer.main.get_command(app)  # type: ignore[return-value]


def publish(imported: Imported, repository: str, name: str) -> None:
    """Publish what an importer took in as the next version of a model, and show all that is said of it.

    Raises ExportRefused where the importer refuses it, or engines do.
    """
    from spikeserve.models.bundle.copies import repository_at  # which the help and a refusal do without
    from spikeserve.training.publish.publish import publish_imported
    from spikeserve.training.report.card import imported_card

    network = imported.network
    if imported.refusal:
        raise ExportRefused(f"'{name}' is not published: {imported.refusal}")
    published = publish_imported(
        network,
        repository_at(repository),
        name,
        lambda parity: imported_card(name, imported.origin, network.spec, imported.facts, imported.sections, parity),
    )
    for sentence in imported.warnings:
        typer.echo(f"warning: {sentence}", err=True)
    for note in imported.notes:
        console.print(note)
    show_input(network.spec.input)
    published.show(console)


def show_input(declared: Input) -> None:
    """Print what a client may send, what the network sees of it, and which flags say otherwise where none was used."""
    low, high = declared.normalised_range
    normalises = any(factor != neutral for factor, neutral in ((declared.scale, 1.0), (declared.offset, 0.0)))
    sees = f"; the network sees {low:g} to {high:g}" if normalises or declared.resolution is not None else ""
    clips = "clipped" if declared.out_of_range is OutOfRange.CLIP else "refused"
    said = f"Input: {show(declared.shape)} values from {declared.described_range}{sees}; others are {clips}"
    if declared == Input(shape=declared.shape):
        said += (
            ". For other data give --low and --high, and --mean and --std where the network was trained on normalised "
            "values"
        )
    console.print(said)
