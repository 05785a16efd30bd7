"""The command `lr-range`: find a learning rate for the configuration that `fit` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikeserve.training.commands.flags import given, typed, with_flags
from spikeserve.training.commands.groups import console
from spikeserve.training.commands.new_run import start_run
from spikeserve.training.config import TrainingConfig
from spikeserve.training.fit.devices import launch
from spikeserve.training.fit.rate_range import find_learning_rate
from spikeserve.training.report.plots.curves import save_rate_range

OF_A_RUN = {
    **dict.fromkeys(("learning_rate", "schedule"), "the test itself raises the rate"),
    **dict.fromkeys(("epochs", "patience"), "the test ends after --steps batches, or where the loss has risen"),
    "bits": "the test is of the first epochs, which train weights before rounding",
    "average": "the test looks at the loss of training, which no average changes",
}
PLOT = Path("learning_rate.png")


@with_flags
def lr_range(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A TOML file; flags win over it.", show_default="none")] = None,
    steps: Annotated[int, typer.Option(help="Batches to train on.")] = 300,
    **_flags: Any,
) -> None:
    """Suggest a learning rate, and draw learning_rate.png: train with one that rises until the loss does (Smith, 2017).

    Each panel below is a section of the TOML file that --config reads, as for `fit`.
    """
    read = TrainingConfig.read(config, given(context))
    settings, data, architecture = start_run(
        context, read, {name: reason for name, reason in OF_A_RUN.items() if typed(context, name)}
    )
    with launch(settings) as devices:
        found = find_learning_rate(architecture, data, settings, devices, steps=steps)
        devices.leave()
    save_rate_range(found.rates, found.losses, found.smoothed, found.suggestion, PLOT)
    console.print(f"Suggested learning rate {found.suggestion:.2g} (the loss is least at {found.best:.2g})")
    console.print(
        f"The rate of the configuration is {settings.optimisation.learning_rate:g}; the defaults were chosen by the "
        "accuracy of whole runs, and the suggestion is no more than where to begin a search."
    )
    console.print(f"Plot: {PLOT}")
