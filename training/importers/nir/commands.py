"""The commands for NIR files: `import nir`, `check` and `export nir`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.bundle import Bundle
from models.bundle.repository import ModelRepository
from models.errors import InvalidInput
from models.spec import Coding, Readout
from models.spec.nodes import ResetTiming
from models.spec.parameters import Shape
from training.commands import exports, imports, labels_of, shape_of
from training.importers.nir.convert import Options
from training.importers.nir.exported import named_rules, to_graph
from training.importers.nir.file import write
from training.importers.nir.publish import import_nir
from training.importers.nir.report import examine, show_report
from training.importers.nir.rules import DialectName, GivenRules, GraphReset

CANNOT_BE_SERVED = 1
RULES_ARE_MISSING = 3  # 2 is a command line that is wrong

console = Console(soft_wrap=True)

FileArgument = Annotated[Path, typer.Argument(help="The NIR file.", show_default=False)]
DialectOption = Annotated[DialectName | None, typer.Option(help="Whose equations its neurons follow.")]
DtOption = Annotated[float | None, typer.Option(help="Seconds per step.")]
ResetOption = Annotated[GraphReset | None, typer.Option(help="What a spike does to the membrane; value: v_reset.")]
TimingOption = Annotated[ResetTiming | None, typer.Option(help="When it does; the dialect's own if absent.")]
InputShapeOption = Annotated[str | None, typer.Option(help="Such as 2,34,34, where the file does not say it.")]


@imports.command("nir")
def import_command(
    file: FileArgument,
    name: Annotated[str, typer.Option(help="The model's name.", show_default=False)],
    dialect: DialectOption = None,
    dt: DtOption = None,
    reset: ResetOption = None,
    reset_timing: TimingOption = None,
    repository: Annotated[Path, typer.Option(help="The model repository to publish to.")] = Path("repository"),
    time_steps: Annotated[int | None, typer.Option(help="Steps per sample; 100 if absent.")] = None,
    coding: Annotated[Coding | None, typer.Option(help="How a sample becomes steps; spikes if absent.")] = None,
    readout: Annotated[Readout | None, typer.Option(help="What the class is read from.")] = None,
    labels: Annotated[str | None, typer.Option(help="The classes' names, with commas between them.")] = None,
    low: Annotated[float | None, typer.Option(help="The least value of an input; 0 if absent.")] = None,
    high: Annotated[float | None, typer.Option(help="The greatest value of an input; 1 if absent.")] = None,
    input_shape: InputShapeOption = None,
) -> None:
    """Publish a NIR file as the next version of a model, under a named dialect."""
    options = Options(
        time_steps,
        coding,
        readout,
        labels_of(labels) or None,
        low,
        high,
        _shape(input_shape),
    )
    given = GivenRules(dialect, dt, reset, reset_timing)
    imported = import_nir(file, given, options, ModelRepository(repository), name)
    for sentence in imported.warnings:
        typer.echo(f"warning: {sentence}", err=True)
    for parity in imported.parity:
        console.print(
            f"Engine {parity.engine} against reference: {parity.differing_spikes} of {parity.spikes} spikes differ",
            highlight=False,
        )
    console.print(f"Published {name} version {imported.version}: {imported.folder}", highlight=False)


def check_command(
    file: FileArgument,
    dialect: DialectOption = None,
    dt: DtOption = None,
    reset: ResetOption = None,
    reset_timing: TimingOption = None,
    input_shape: InputShapeOption = None,
) -> None:
    """Show what stands in a NIR file; exit with 1 if it cannot be served, with 3 if only rules are missing."""
    report = examine(file, GivenRules(dialect, dt, reset, reset_timing), Options(input_shape=_shape(input_shape)))
    show_report(report, console)
    if report.fault:
        raise typer.Exit(CANNOT_BE_SERVED)
    if report.missing:
        raise typer.Exit(RULES_ARE_MISSING)


@exports.command("nir")
def export_command(
    model: Annotated[str, typer.Argument(help="A model's name, or a bundle's folder.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The NIR file to write.", show_default=False)],
    repository: Annotated[Path | None, typer.Option(help="The repository of the model, if it is a name.")] = None,
    version: Annotated[int | None, typer.Option(help="The model's version; its newest if absent.")] = None,
    dt: Annotated[float | None, typer.Option(help="Seconds per step; the bundle's, or 1e-4, if absent.")] = None,
) -> None:
    """Write a bundle as a NIR file, which `import nir` reads back bit for bit."""
    bundle = _bundle(model, repository, version)
    write(file, to_graph(bundle.network, dt))
    rules = named_rules(bundle.network, dt)
    console.print(
        f"Wrote {file}: dialect {rules.dialect}, dt {rules.dt:g} s, reset {rules.reset} ({rules.reset_timing})",
        highlight=False,
    )


def _bundle(model: str, repository: Path | None, version: int | None) -> Bundle:
    if repository is not None:
        return ModelRepository(repository).read(model, version)
    if not Path(model).is_dir():
        raise InvalidInput(f"'{model}' is not a bundle's folder; a model's name needs --repository")
    if version is not None:
        raise InvalidInput(f"version is {version}, but '{model}' is a bundle's folder; a version needs --repository")
    return Bundle.read(Path(model))


def _shape(text: str | None) -> Shape | None:
    return None if text is None else shape_of(text)
