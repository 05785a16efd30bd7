"""The command `report`: NeuroBench's metrics of a bundle on its test samples, and estimates of its energy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from spikeserve.models.bundle import Bundle
from spikeserve.models.complexity import ESTIMATES, Complexity
from spikeserve.models.engines import EngineName, available, create
from spikeserve.training.commands.groups import console
from spikeserve.training.commands.new_run import DatasetOption, FileOption, RunOption, data_of_model
from spikeserve.training.errors import InvalidData
from spikeserve.training.report.evaluate import ACCURACY_VARIES
from spikeserve.training.report.neurobench import Measured, measure


def report(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    engine: Annotated[
        EngineName | None, typer.Option(help="The engine that runs the samples.", show_default="the fastest here")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write all of it to this file, as JSON.", show_default="only print it")
    ] = None,
    run: RunOption = None,
    dataset: DatasetOption = None,
    file: FileOption = None,
) -> None:
    """Print NeuroBench's metrics of a bundle on the test samples of its data, and estimates of its energy.

    Give its --run, or the same data as its training had, so that it was not trained on the test samples.
    """
    read = Bundle.read(bundle)
    name, spec = read.manifest.name, read.network.spec
    data = data_of_model(context, spec, name, run, dataset, file)
    if not len(data.test):
        raise InvalidData(f"dataset '{data.name}': has no test samples, expected at least one")
    runner = create(engine or available()[0], read.network)
    measured = measure(Complexity(read.network), runner, data.test)
    document = measured.document(name, read.manifest.version, data.name)
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n")
    console.print(_metrics(measured, f"{name} version {read.manifest.version}, {data.name}"))
    if spec.scores.has_classes:
        console.print(ACCURACY_VARIES)
    console.print(_energy(measured))


def _metrics(measured: Measured, title: str) -> Table:
    table = Table("metric", "value", title=f"{title}: {measured.samples} test samples", title_justify="left")
    for name, value in measured.metrics.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:,.4f}")
            continue
        for part, own in value.items():
            table.add_row(f"{name} {part}", f"{own:,.4f}" if "Sparsity" in name else f"{own:,.2f}")
    return table


def _energy(measured: Measured) -> Table:
    table = Table("estimate of energy", "nJ per sample", title="Not measured: docs/report.md", title_justify="left")
    for name, value in measured.energy.items():
        table.add_row(ESTIMATES[name], f"{value / 1000:,.3f}")
    return table
