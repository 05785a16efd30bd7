"""The commands for a bundle: `calibrate` and `quantise`."""

from __future__ import annotations

from typing import Annotated

import typer

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import bundle_folder
from spikeserve.models.engines import available, create
from spikeserve.models.spec.narrow import BITS
from spikeserve.training.commands.groups import BundleArgument, NameArgument, RepositoryOption, console
from spikeserve.training.commands.runs import DATA, DataOption, data_of_model
from spikeserve.training.errors import InvalidConfig, InvalidData
from spikeserve.training.fit.gptq import input_products, quantised
from spikeserve.training.publish.calibrate import TARGET, calibrate
from spikeserve.training.publish.publish import publish_calibrated
from spikeserve.training.publish.quantise import publish_quantised
from spikeserve.training.report.card import EARLY, calibration_text, with_section

TargetOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="The share of samples that an early end may answer wrong.")
]


def calibrate_model(
    context: typer.Context,
    bundle: NameArgument,
    repository: RepositoryOption = "repository",
    target: TargetOption = TARGET,
    data: DataOption = None,
) -> None:
    """Calibrate a model for `confident` on the validation and training samples of its data; publish the next version.

    Give the same --data as its training had, by default that named like the model, so that no sample of its test split
    is looked at.
    """
    models = repository_at(repository)
    read = models.read(bundle) if models.versions(bundle) else Bundle.read(bundle_folder(bundle))
    samples = data_of_model(context, read.network.spec, read.manifest.name, data)
    calibration = calibrate(create(available()[0], read.network), samples.validation, samples.training, target)
    text = calibration_text(calibration)
    console.print(text)
    card = with_section(read.card, EARLY, text)
    publish_calibrated(read, models, calibration, card).show(console)


def quantise(
    context: typer.Context,
    bundle: BundleArgument,
    bits: Annotated[int, typer.Option(help="The bits of each weight, its sign included: 8, 7, 6 or 4.")] = 8,
    repository: RepositoryOption = "repository",
    data: Annotated[str | None, typer.Option(help=DATA, show_default="measure nothing")] = None,
) -> None:
    """Round a bundle's weights to few bits, times a power of two for each output; publish the next version.

    With its --data the weights make up for each other's rounding on training samples, and it says what that changes on
    the test samples.
    """
    chosen = next((each for each in BITS if each == bits), None)
    if chosen is None:
        raise InvalidConfig(f"--bits is {bits}, expected {', '.join(map(str, BITS[:-1]))} or {BITS[-1]}")
    read, models = Bundle.read(bundle), repository_at(repository)
    name, network = read.manifest.name, read.network
    samples = None if data is None else data_of_model(context, network.spec, name, data)
    if samples is not None and not len(samples.test):
        raise InvalidData(f"dataset '{samples.name}': has no test samples, expected at least one")
    products = {} if samples is None else input_products(network, samples.training)
    narrow = quantised(network, dict.fromkeys(network.spec.weight_bits, chosen), products)
    published, text = publish_quantised(read, narrow, models, samples)
    console.print(text)
    published.show(console)
