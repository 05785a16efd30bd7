"""`spikeserve batch`: predict files of samples with a bundle, in parts, on Ray Data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pyarrow import ArrowInvalid
from pyarrow.fs import FileSelector

from spikeserve.models.bundle.repository import bundle_folder
from spikeserve.models.engines import EngineName
from spikeserve.models.errors import SpikeserveError
from spikeserve.plugins.local.model import read_bundle
from spikeserve.plugins.ray.job import UNFINISHED, Job, connected
from spikeserve.plugins.ray.parts import LAST, OUTPUT, inputs, place
from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import Settings, available_cores

REFUSED = 1

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def batch(
    bundle: Annotated[Path, typer.Argument(help="A folder or model's name.", parser=bundle_folder, show_default=False)],
    files: Annotated[list[str], typer.Argument(help="Samples, recordings, folders or URLs.", show_default=False)],
    output: Annotated[str, typer.Option(help="The folder of the predictions, or a URL.", show_default=False)],
    engine: Annotated[EngineName | None, typer.Option(help="By default the fastest here.")] = None,
    actors: Annotated[int, typer.Option(min=1, max=1024, help="How many processes.")] = available_cores(),
    part_samples: Annotated[int, typer.Option(min=1, help="The most samples of one file of predictions.")] = 8192,
    time_steps: Annotated[int | None, typer.Option(min=1, help="By default the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="What rate coding draws its spikes by.")] = 0,
    address: Annotated[str | None, typer.Option(help="Of Ray; by default RAY_ADDRESS, or this machine.")] = None,
) -> None:
    """Write the predictions of every sample as Parquet files; what was done by an earlier run is not done again."""
    settings = Settings(threads=1) if engine is None else Settings(threads=1, engine=engine)
    loaded = read_bundle(bundle.resolve(), settings)
    sources = inputs(files, json.dumps([loaded.digest, part_samples, time_steps, seed]))
    system, root = place(output)
    there = {each.base_name for each in system.get_file_info(FileSelector(root, allow_not_found=True))}
    done = Counter(name[1] for name in map(OUTPUT.fullmatch, there) if name)  # the parts of each file
    if others := done.keys() - {each.stem for each in sources}:
        raise Misconfigured(
            f"output: '{output}' holds '{min(others)}-…', of other inputs, another bundle or other settings, "
            "expected an empty folder, or one in which the same command was run before"
        )
    # All parts of a file are there if its last one is, by the number of those that are.
    waiting = [each for each in sources if each.output(done[each.stem] - 1, LAST) not in there]
    print(f"{len(sources)} files, {len(sources) - len(waiting)} of them done before", flush=True)
    if not waiting:
        return
    job = Job(bundle.resolve(), loaded.digest, loaded.task, system, root, settings, part_samples, time_steps, seed)
    written = samples = refused = 0
    with connected(actors + 1, address):  # which reads
        system.create_dir(root, recursive=True)
        for name in there:
            if name.startswith(UNFINISHED):  # by a run that was killed
                system.delete_file(f"{root}/{name}")
        for part in job.run(waiting, actors, there):
            if part["refused"]:
                refused += 1
                print(f"refused: {part['refused']}", file=sys.stderr)
                continue
            written += 1
            samples += part["samples"]
            print(f"{part['output']}: {part['samples']} samples", flush=True)
    print(f"{samples} samples predicted, {written} parts", flush=True)
    if refused:
        raise Misconfigured(f"{refused} parts were refused, expected none; run the command again")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return its exit status."""
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else REFUSED
    except (SpikeserveError, OSError, ArrowInvalid) as error:
        print(f"error: {error}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
