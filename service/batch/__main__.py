"""`spikeserve batch`: predict files of samples with a bundle, in parts, on Ray Data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pyarrow.fs import FileSelector

from spikeserve.models.bundle.gallery import bundle_folder
from spikeserve.models.engines import EngineName
from spikeserve.models.errors import InvalidBundle, SpikeserveError
from spikeserve.service.batch.job import READERS, connected, run
from spikeserve.service.batch.parts import OUTPUT, UNFINISHED, inputs, place
from spikeserve.service.batch.predict import Options
from spikeserve.service.catalog.limits import ModelLimits
from spikeserve.service.errors import Misconfigured
from spikeserve.service.local.model import read_bundle, samples_at_once
from spikeserve.service.settings import Settings, available_cores

REFUSED, MAX_TOLD = 1, 10

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def batch(
    bundle: Annotated[Path, typer.Argument(help="A folder or model's name.", parser=bundle_folder, show_default=False)],
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files of samples (.npz, .npy, .parquet), recordings, or folders; also URLs such as s3://bucket/data.",
            show_default=False,
        ),
    ],
    output: Annotated[str, typer.Option(help="The folder of the predictions, or a URL.", show_default=False)],
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
        loaded = read_bundle(bundle.resolve(), settings)
    except InvalidBundle as error:
        raise Misconfigured(f"bundle: '{bundle}' cannot be used: {error}") from error
    sources = inputs(files, json.dumps([loaded.digest, part_samples, time_steps, seed]))
    output = output if "://" in output else str(Path(output).resolve())
    system, folder = place(output)
    there = {each.base_name for each in system.get_file_info(FileSelector(folder, allow_not_found=True))}
    keys = {each.key for each in sources}
    if others := [each for each in there if (name := OUTPUT.fullmatch(each)) and name["key"] not in keys]:
        raise Misconfigured(
            f"output: '{output}' holds '{min(others)}', of other inputs, another bundle or other settings, expected an "
            "empty folder, or one in which the same command was run before"
        )
    waiting = [each for each in sources if not each.is_done(there)]
    print(f"{len(sources)} files, {len(sources) - len(waiting)} of them done before", flush=True)
    if not waiting:
        return
    actors = actors or available_cores()
    most = samples_at_once(ModelLimits(loaded.task, settings), time_steps or 1)
    options = Options(
        bundle.resolve(), loaded.digest, loaded.task, output, settings, most, part_samples, time_steps, seed
    )
    written, samples, refused = 0, 0, []
    with connected(actors + READERS, address):
        system.create_dir(folder, recursive=True)
        for each in there:
            if each.startswith(UNFINISHED):  # by a run that was killed
                system.delete_file(f"{folder}/{each}")
        for done in run(waiting, options, actors, there):
            if done["refused"]:
                refused.append(done["refused"])
                continue
            written += 1
            samples += done["samples"]
            print(f"{done['output']}: {done['samples']} samples", flush=True)
    print(f"{samples} samples predicted, {written} parts", flush=True)
    for sentence in refused[:MAX_TOLD]:
        print(f"refused: {sentence}", file=sys.stderr)
    if refused:
        raise Misconfigured(f"{len(refused)} parts were refused, expected none; run the command again")


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
