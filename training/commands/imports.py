"""The groups `import` and `check`, with a command for each importer, which is loaded once its flags are asked for.

Without the importer's name, the one that is surest of the file takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand
from typing_extensions import override

from spikeserve.models.bundle.repository import require_name
from spikeserve.models.door import Plugin, guessed, of_kind
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Input, OutOfRange
from spikeserve.models.spec.parameters import show
from spikeserve.training.commands.flags import flags_of, with_flags
from spikeserve.training.commands.groups import FlagsCommand, ModelNameOption, RepositoryOption, console, group, made
from spikeserve.training.errors import ExportRefused
from spikeserve.training.importers.options import ImportedNetwork


class Lazy(FlagsCommand):
    """A command for a plugin, which is imported once its parameters are asked for; `make` returns the whole command."""

    def __init__(self, plugin: Plugin, make: Callable[[Any], TyperCommand]) -> None:
        self.made = cache(lambda: make(plugin.load()))
        super().__init__(plugin.name, help=f"{plugin.says}.")

    @property
    def params(self) -> list[Any]:
        """The parameters of the command."""
        return self.made().params

    @params.setter
    def params(self, _: Any) -> None:
        pass

    @override
    def invoke(self, ctx: Any) -> Any:
        return self.made().invoke(ctx)


def importing(importer: Any) -> TyperCommand:
    """Return the command that publishes what an importer takes in."""

    def command(source: str, name: ModelNameOption, repository: RepositoryOption = "repository", **typed: Any) -> None:
        require_name(name)
        publish(importer.convert(source, read(importer.options, typed)), repository, name)

    return _made(command, importer, importer.options.model_fields)


def checking(importer: Any) -> TyperCommand:
    """Return the command that shows what stands in a file which an importer takes."""
    if not importer.checked:
        raise InvalidInput("check: this importer checks no file, expected one that does, such as nir")

    def command(source: str, **typed: Any) -> None:
        raise typer.Exit(importer.check(source, read(importer.options, typed)))

    return _made(command, importer, importer.checked)


def _made(command: Callable[..., None], importer: Any, names: Iterable[str]) -> TyperCommand:
    """Return a command that takes a source, and the options of these names as flags."""
    command.__annotations__["source"] = Annotated[str, typer.Argument(help=importer.source, show_default=False)]
    flags = [flag for flag in flags_of(importer.options, checked=True) if flag.name in names]
    return cast(TyperCommand, made(with_flags(command, flags)))


def unnamed(args: Sequence[str]) -> str:
    """Return the name of the importer that takes the file among these words; raises InvalidInput."""
    files = [each for each in args if Path(each).is_file()] if args[0].startswith("-") else []
    return guessed("importer", Path([*files, args[0]][0]), {}).name


def _of_importers(make: Callable[[Any], TyperCommand], said: str) -> typer.Typer:
    return group(lambda: of_kind("importer"), lambda name: Lazy(of_kind("importer")[name], make), said, unnamed)


imports = _of_importers(importing, "Make a bundle of a network from elsewhere.")
checks = _of_importers(checking, "Verify a file from elsewhere without importing it.")


def read(options: type[Any], typed: dict[str, Any]) -> Any:
    """Return the options of an importer that were typed; None and an empty text are not."""
    flags = {flag.name: flag for flag in flags_of(options, checked=True)}
    return options.read({name: flags[name].value(text) for name, text in typed.items() if text not in (None, "")})


def publish(imported: ImportedNetwork, repository: str, name: str) -> None:
    """Publish what an importer took in as the next version of a model, and show all that is said of it.

    Raises ExportRefused where the importer refuses it, or engines do.
    """
    from spikeserve.models.bundle.copies import repository_at  # which the help and a refusal do without
    from spikeserve.training.publish.publish import publish_imported
    from spikeserve.training.report.card import imported_card

    if imported.refusal:
        raise ExportRefused(f"'{name}' is not published: {imported.refusal}")
    published = publish_imported(
        imported.network, repository_at(repository), name, partial(imported_card, name, imported)
    )
    for sentence in imported.warnings:
        typer.echo(f"warning: {sentence}", err=True)
    for note in imported.notes:
        console.print(note)
    show_input(imported.network.spec.input)
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
