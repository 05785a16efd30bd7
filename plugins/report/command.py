"""The command `report`: NeuroBench's metrics of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from spikeserve.models.bundle import Bundle
from spikeserve.models.engines import available, create
from spikeserve.plugins.report.complexity import Complexity
from spikeserve.plugins.report.neurobench import NeuroBenchMetrics, measure
from spikeserve.training.commands.groups import BundleArgument, console, program
from spikeserve.training.commands.runs import DataOption, data_of_model
from spikeserve.training.errors import InvalidData
from spikeserve.training.report.evaluate import ACCURACY_VARIES


def report(
    context: typer.Context,
    bundle: BundleArgument,
    output: Annotated[
        Path | None, typer.Option(help="Write all of it to this file, as JSON.", show_default="only print it")
    ] = None,
    data: DataOption = None,
) -> None:
    """Print NeuroBench's metrics of a bundle on the test samples of its data.

    Give the same --data as its training had, by default that named like the model, so that it was not trained on the
    test samples.
    """
    read = Bundle.read(bundle)
    name, spec = read.manifest.name, read.network.spec
    samples = data_of_model(context, spec, name, data)
    if not len(samples.test):
        raise InvalidData(f"dataset '{samples.name}': has no test samples, expected at least one")
    measured = measure(Complexity(read.network), create(available()[0], read.network), samples.test)
    document = measured.document(name, read.manifest.version, samples.name)
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n")
    console.print(_metrics(measured, f"{name} version {read.manifest.version}, {samples.name}"))
    if spec.scores.has_classes:
        console.print(ACCURACY_VARIES)


def _metrics(measured: NeuroBenchMetrics, title: str) -> Table:
    table = Table("metric", "value", title=f"{title}: {measured.samples} test samples", title_justify="left")
    for name, value in measured.metrics.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:,.4f}")
            continue
        for part, own in value.items():
            table.add_row(f"{name} {part}", f"{own:,.4f}" if "Sparsity" in name else f"{own:,.2f}")
    return table


main = program("report", report)
