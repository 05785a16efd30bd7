"""The command `calibrate`: give a bundle what `confident` needs, measured on validation samples."""

from __future__ import annotations

from typing import Annotated

import typer

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.engines import available, create
from spikeserve.training.commands.groups import RepositoryOption, console
from spikeserve.training.commands.new_run import DataOption, data_of_model
from spikeserve.training.publish.calibrate import TARGET, calibrate
from spikeserve.training.publish.publish import publish_calibrated
from spikeserve.training.report.card import EARLY, calibration_text, with_section

NameArgument = Annotated[str, typer.Argument(help="The model's name; its newest version is read.", show_default=False)]
TargetOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="The share of samples that an early end may answer wrong.")
]


def calibrate_model(
    context: typer.Context,
    name: NameArgument,
    repository: RepositoryOption = "repository",
    target: TargetOption = TARGET,
    data: DataOption = None,
) -> None:
    """Calibrate a model for `confident` on the validation and training samples of its data; publish the next version.

    Give the same --data as its training had, by default that named like the model, so that no sample of its test split
    is looked at.
    """
    models = repository_at(repository)
    bundle = models.read(name)
    samples = data_of_model(context, bundle.network.spec, name, data)
    calibration = calibrate(create(available()[0], bundle.network), samples.validation, samples.training, target)
    text = calibration_text(calibration)
    console.print(text)
    card = with_section(bundle.card, EARLY, text)
    publish_calibrated(bundle, models, calibration, card).show(console)
