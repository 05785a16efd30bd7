"""The commands for NIR files: `import nir`, `check` and `export nir`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import ModelRepository, bundle_folder, require_name
from spikeserve.models.errors import InvalidInput, SpikeserveError
from spikeserve.models.spec import Coding
from spikeserve.models.spec.nodes import ResetTiming
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.plugins.nir.convert import Conversion, convert_file
from spikeserve.plugins.nir.dialects import DialectName, GivenRules, GraphReset, Rules
from spikeserve.plugins.nir.export import named_rules, to_graph
from spikeserve.plugins.nir.file import NirFile, read, write
from spikeserve.plugins.nir.graph import Graph, GraphNode, flatten
from spikeserve.plugins.nir.topology import cycles
from spikeserve.training.commands.groups import (
    BUNDLE,
    ModelNameOption,
    RepositoryOption,
    console,
    exports,
    imports,
    shape_of,
)
from spikeserve.training.commands.input_flags import show_input, with_input_flags
from spikeserve.training.importers.builder import Options
from spikeserve.training.publish.publish import Published, publish_imported
from spikeserve.training.report.card import imported_card
from spikeserve.training.report.parity import Parity

# Stand in for rules that are missing, to find what is wrong with the graph under any.
ANY_RULES = Rules(DialectName.NIR, 1e-4, GraphReset.SUBTRACT)


def _say(sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False)


def _show_graph(graph: Graph, version: str) -> None:
    table = Table("node", "type", "parameter", "shape", "range", title=f"NIR {version}")
    for node in graph.nodes.values():
        for row in _rows(node):
            table.add_row(*row)
    console.print(table)
    for before, after in graph.edges:
        _say(f"  {before} → {after}")
    _say(f"Cycles: {', '.join(' → '.join(cycle) for cycle in cycles(graph)) or 'none'}")


def _show_missing(missing: list[str]) -> None:
    if missing:
        _say(
            f"Missing rules: {', '.join(missing)}; the file does not name them: give "
            f"{' '.join('--' + name for name in missing)} (dialects: {', '.join(DialectName)}; resets: "
            f"{', '.join(GraphReset)})"
        )


def _rows(node: GraphNode) -> Iterator[tuple[str, str, str, str, str]]:
    rows = [(key, *_described(value)) for key, value in sorted(node.parameters.items())] or [("", "", "")]
    for index, row in enumerate(rows):
        yield (node.name, node.type, *row) if index == 0 else ("", "", *row)


def _described(value: object) -> tuple[str, str]:
    """Return the shape of a value, and its range or what it is."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not array.size:
        return "", str(value)[:40]
    shape = show(array.shape) if array.ndim else ""
    if array.size <= 3:
        return shape, ", ".join(f"{number:g}" for number in array.ravel().tolist())
    return shape, f"{array.min():g} to {array.max():g}"


CANNOT_BE_SERVED = 1
RULES_ARE_MISSING = 3  # 2 is a command line that is wrong

OF_FILE = "what the file says"

FileArgument = Annotated[Path, typer.Argument(help="The NIR file.", show_default=False)]
DialectOption = Annotated[
    DialectName | None, typer.Option(help="Whose equations its neurons follow.", show_default=OF_FILE)
]
DtOption = Annotated[float | None, typer.Option(help="Seconds per step.", show_default=OF_FILE)]
ResetOption = Annotated[
    GraphReset | None, typer.Option(help="What a spike does to the membrane; value: v_reset.", show_default=OF_FILE)
]
TimingOption = Annotated[
    ResetTiming | None, typer.Option(help="When it does.", show_default="the file's, or the dialect's own")
]
InputShapeOption = Annotated[str | None, typer.Option(help="Such as 2,34,34.", show_default=OF_FILE)]


@imports.command("nir")
@with_input_flags
def import_command(
    file: FileArgument,
    name: ModelNameOption,
    dialect: DialectOption = None,
    dt: DtOption = None,
    reset: ResetOption = None,
    reset_timing: TimingOption = None,
    repository: RepositoryOption = "repository",
    time_steps: Annotated[int | None, typer.Option(help="Steps per sample.", show_default="100")] = None,
    coding: Annotated[Coding | None, typer.Option(help="How a sample becomes steps.", show_default="spikes")] = None,
    input_shape: InputShapeOption = None,
    *,
    declared: dict[str, Any],
) -> None:
    """Publish a NIR file as the next version of a model, under a named dialect."""
    options = Options(_shape(input_shape), time_steps, coding, **declared)
    rules = GivenRules(dialect, dt, reset, reset_timing)
    published, conversion = import_nir(file, rules, options, repository_at(repository), name)
    for sentence in conversion.warnings:
        typer.echo(f"warning: {sentence}", err=True)
    show_input(conversion.network.spec.input)
    published.show(console)


def import_nir(
    path: Path, asked: GivenRules, options: Options, repository: ModelRepository, name: str
) -> tuple[Published, Conversion]:
    """Publish a NIR file as the next version of `name`.

    Raises InvalidGraph, InvalidRules, InvalidSpec or InvalidInput with one sentence, before anything is written.
    """
    require_name(name)
    file = read(path)
    rules = asked.over(GivenRules.of(file.graph.metadata)).complete()
    conversion = convert_file(file, rules, options)
    published = publish_imported(
        conversion.network, repository, name, lambda parity: _card(name, path.name, file, rules, conversion, parity)
    )
    return published, conversion


def _card(name: str, file_name: str, file: NirFile, rules: Rules, conversion: Conversion, parity: list[Parity]) -> str:
    network = conversion.network
    facts = {
        "File": f"{file_name}, NIR {file.version}, SHA-256 `{file.sha256}`",
        "Dialect": str(rules.dialect),
        "dt": f"{rules.dt:g} s",
        "Reset": str(rules.reset),
        **({"Reset timing": str(rules.reset_timing)} if rules.reset_timing else {}),
    }
    repairs = "\n".join(f"- {sentence}" for sentence in conversion.warnings) or "Nothing."
    origin = f"A spiking network from a NIR file: {network.spec.classes} outputs, {network.parameter_count} parameters"
    return imported_card(name, origin, network.spec, facts, {"What was repaired or looks wrong": repairs}, parity)


def check_command(
    file: FileArgument,
    dialect: DialectOption = None,
    dt: DtOption = None,
    reset: ResetOption = None,
    reset_timing: TimingOption = None,
    input_shape: InputShapeOption = None,
) -> None:
    """Show what stands in a NIR file; exit with 1 if it cannot be served, with 3 if only rules are missing."""
    asked, opened, missing = GivenRules(dialect, dt, reset, reset_timing), read(file), list[str]()
    try:
        _show_graph(flatten(opened.graph), opened.version)
        named = asked.over(GivenRules.of(opened.graph.metadata))
        missing = named.missing
        options = Options(input_shape=_shape(input_shape))
        conversion = convert_file(opened, ANY_RULES if missing else named.complete(), options)
    except SpikeserveError as error:
        _show_missing(missing)
        _say(f"Cannot be served: {error}")
        raise typer.Exit(CANNOT_BE_SERVED) from None
    for sentence in () if missing else conversion.warnings:
        _say(f"Warning: {sentence}")
    _show_missing(missing)
    _say("Can be served once these are named." if missing else "Can be served.")
    if missing:
        raise typer.Exit(RULES_ARE_MISSING)


@exports.command("nir")
def export_command(
    model: Annotated[str, typer.Argument(help=BUNDLE, show_default=False)],
    file: Annotated[Path, typer.Argument(help="The NIR file to write.", show_default=False)],
    repository: Annotated[
        str | None, typer.Option(help="The repository of the model, if it is a name.", show_default="none")
    ] = None,
    dt: Annotated[float | None, typer.Option(help="Seconds per step.", show_default="the bundle's, or 1e-4")] = None,
) -> None:
    """Write a bundle as a NIR file, which `import nir` reads back bit for bit."""
    if dt is not None and not 0 < dt < math.inf:
        raise InvalidInput(f"--dt is {dt:g}, expected a finite number of seconds above 0")
    bundle = Bundle.read(bundle_folder(model)) if repository is None else repository_at(repository).read(model)
    write(file, to_graph(bundle.network, dt))
    rules = named_rules(bundle.network, dt)
    console.print(
        f"Wrote {file}: dialect {rules.dialect}, dt {rules.dt:g} s, reset {rules.reset} ({rules.reset_timing})",
        highlight=False,
    )
    if any(bundle.network.spec.weight_bits.values()):
        console.print("Its weights of few bits have the same values there, as float32: four times the bytes, or eight.")


def _shape(text: str | None) -> Shape | None:
    return None if text is None else shape_of(text)
