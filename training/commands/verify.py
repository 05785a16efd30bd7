"""The command `verify`: a bundle beside its source's own module, or beside what a target makes of it."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

import typer
from typing_extensions import override

from spikeserve.models import door
from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.errors import InvalidInput
from spikeserve.training.commands.flags import flags_of, with_flags
from spikeserve.training.commands.groups import BundleArgument, FlagsCommand, console, made
from spikeserve.training.data.datasets import random_samples
from spikeserve.training.report.parity import COMPARED, against_reference


class Verify(FlagsCommand):
    """`verify`, with flags for the options of the importer that --against names."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        against = re.search(r"--against=([\w-]+)", "=".join(args))
        whole = command(against[1] if against else "")
        self.params, self.callback = whole.params, whole.callback
        return super().parse_args(ctx, args)


def command(name: str) -> Any:
    """Return the command with the flags of an importer, if there is one of that name."""
    plugin = door.of_kind("importer").get(name)
    importer: Any = plugin and plugin.load()
    names = getattr(importer, "compared", ())
    flags = [flag for flag in flags_of(importer.options, checked=True) if flag.name in names] if names else []

    def verify(
        bundle: BundleArgument,
        against: Annotated[str, typer.Option(help="The framework and your own code, snntorch:nets:make; or c.")],
        **typed: Any,
    ) -> None:
        name, _, source = against.partition(":")
        network = Bundle.read(bundle).network
        if names:
            raise typer.Exit(int(importer.compare(network, source, typed)))
        target = None if source else door.of_kind("target").get(name)
        run = getattr(target.load(), "run", None) if target else None
        if run is None:
            raise InvalidInput(
                f"--against is '{against}', expected c, or a framework and your code: snntorch:nets:make"
            )
        inputs = encode(random_samples(network.spec, COMPARED), network.spec)
        spikes, values, steps = against_reference(network, partial(run, network), inputs)
        console.print(f"{spikes} of {steps} neuron-steps and {values} values of the answers differ")
        raise typer.Exit(int(max(spikes, values) > 0))

    verify.__doc__ = SAID
    return made(with_flags(verify, flags), "verify")


SAID = """Run a bundle and its source's own module on the same inputs; exit with 1 if a spike differs.

Against c, it runs what `export c` writes, compiled by cc or what the environment's CC names.

`verify --against snntorch --help` lists the flags for a framework's code.
"""
app = typer.Typer(add_completion=False)
app.command("verify", cls=Verify, help=SAID)(lambda: None)
