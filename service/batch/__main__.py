"""`spikeserve batch`: predict files of samples with a bundle, in parts, on Ray Data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.bundle.gallery import bundle_folder
from spikeserve.models.engines import EngineName
from spikeserve.models.errors import InvalidBundle, SpikeserveError
from spikeserve.models.folders import made
from spikeserve.service.batch.job import READERS, connected, run
from spikeserve.service.batch.plan import UNFINISHED, inputs, parts, unfinished
from spikeserve.service.batch.predict import Options
from spikeserve.service.errors import Misconfigured
from spikeserve.service.local.model import read_bundle
from spikeserve.service.settings import Settings, available_cores

REFUSED, MAX_TOLD = 1, 10

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def batch(
    bundle: Annotated[Path, typer.Argument(help="A folder or model's name.", parser=bundle_folder, show_default=False)],
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of samples (.npz, .npy, .parquet), recordings, or folders.", show_default=False),
    ],
    output: Annotated[Path, typer.Option(help="The folder of the predictions.", show_default=False)],
    engine: Annotated[EngineName | None, typer.Option(help="The engine.", show_default="the fastest here")] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="How many processes run the network.", show_default="one for each core"),
    ] = None,
    part_samples: Annotated[int, typer.Option(min=1, help="The most samples of one file of predictions.")] = 8192,
    time_steps: Annotated[
        int | None, typer.Option(min=1, help="The time steps of each sample.", show_default="the model's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="What rate coding draws its spikes by.")] = 0,
    address: Annotated[
        str | None, typer.Option(help="The address of a Ray cluster.", show_default="RAY_ADDRESS, or this machine")
    ] = None,
) -> None:
    """Write the predictions of every sample as Parquet files; what was done by an earlier run is not done again."""
    settings = Settings(threads=1) if engine is None else Settings(threads=1, engine=engine.value)
    try:
        found = read_bundle(bundle.resolve(), settings)
    except InvalidBundle as error:
        raise Misconfigured(f"bundle: '{bundle}' cannot be used: {error}") from error
    job = json.dumps([found.digest, time_steps, seed])
    planned = list(parts(inputs(files), part_samples, job))
    waiting = unfinished(planned, output)
    print(f"{len(planned)} parts, {len(planned) - len(waiting)} of them done before", flush=True)
    if not waiting:
        return
    actors = actors or available_cores()
    written, samples, refused = 0, 0, []
    with made(output), connected(actors + READERS, address):
        for left_behind in output.glob(f"{UNFINISHED}*"):  # by a run that was killed
            left_behind.unlink(missing_ok=True)
        options = Options(bundle.resolve(), found.digest, output.resolve(), settings, time_steps, seed)
        for done in run(waiting, options, actors):
            if done.refused:
                refused.append(done.refused)
                continue
            written += 1
            samples += done.samples
            print(f"{written}/{len(waiting)} {done.output}: {done.samples} samples", flush=True)
    print(f"{samples} samples predicted, {written} of {len(waiting)} parts", flush=True)
    for sentence in refused[:MAX_TOLD]:
        print(f"refused: {sentence}", file=sys.stderr)
    if missing := len(waiting) - written:
        raise Misconfigured(f"{missing} of {len(waiting)} parts were refused, expected none; run the command again")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return its exit status."""
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else REFUSED
    except SpikeserveError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"error: '{error.filename}': {error.strerror}" if error.filename else f"error: {error}", file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
