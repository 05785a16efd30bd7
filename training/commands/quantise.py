"""The command `quantise`: round the weights of a bundle to few bits, and publish it as the next version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.spec.narrow import BITS
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.training.commands.groups import RepositoryOption, console
from spikeserve.training.commands.new_run import DATA, data_of_model
from spikeserve.training.errors import InvalidConfig, InvalidData
from spikeserve.training.publish.quantise import fewest_bits, publish_quantised, quantised


def quantise(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    bits: Annotated[int, typer.Option(help="The bits of each weight, its sign included: 8, 7, 6 or 4.")] = 8,
    loss: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=100.0,
            help="Choose fewer bits for each layer: at most so many percentage points of accuracy may be lost.",
            show_default="--bits for all",
        ),
    ] = None,
    repository: RepositoryOption = "repository",
    data: Annotated[str | None, typer.Option(help=DATA, show_default="measure nothing")] = None,
) -> None:
    """Round a bundle's weights to few bits, times a power of two for each output; publish the next version.

    With its --data it says what that changes on the test samples. --loss asks the validation samples.
    """
    chosen = next((each for each in BITS if each == bits), None)
    if chosen is None:
        raise InvalidConfig(f"--bits is {bits}, expected {', '.join(map(str, BITS[:-1]))} or {BITS[-1]}")
    read, models = Bundle.read(bundle), repository_at(repository)
    name, network = read.manifest.name, read.network
    samples = None if data is None else data_of_model(context, network.spec, name, data)
    if samples is not None and not len(samples.test):
        raise InvalidData(f"dataset '{samples.name}': has no test samples, expected at least one")
    wanted: dict[str, WeightBits] = dict.fromkeys(network.spec.weight_bits, chosen)
    if loss is not None:
        if samples is None or not len(samples.validation):
            raise InvalidConfig(f"--loss is {loss:g}, but there are no validation samples; give --data")
        wanted = fewest_bits(network, samples.validation, loss, chosen)
    result = publish_quantised(read, quantised(network, wanted), models, samples)
    console.print(result.text)
    result.published.show(console)
