"""`python -m spikeserve.training`: fit a network, evaluate it, export it as a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from spikeserve.plugins.c import __main__ as targets  # noqa: F401  (adds `export c` and `export wasm`)
from spikeserve.plugins.frameworks.commands import verify
from spikeserve.plugins.frameworks.conversion.commands import convert_command
from spikeserve.plugins.nir import commands as nir  # noqa: F401  (adds `export nir`)
from spikeserve.training.commands.bundles import calibrate_model, quantise, report
from spikeserve.training.commands.fit import fit
from spikeserve.training.commands.groups import RUN, exports
from spikeserve.training.commands.imports import checks, imports
from spikeserve.training.commands.runs import evaluate_run, export_run
from spikeserve.training.commands.sentences import run

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(fit)
app.command("evaluate")(evaluate_run)
app.command("calibrate")(calibrate_model)
app.command()(quantise)
app.add_typer(exports, name="export")
app.add_typer(imports, name="import")
app.add_typer(checks, name="check")
app.command("convert")(convert_command)
app.command()(verify)
app.command()(report)
exports.command(RUN)(export_run)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of this process, and exit; a user's mistake is one sentence."""
    run(app, arguments)


if __name__ == "__main__":
    main()
