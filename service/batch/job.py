"""A batch job on Ray Data: the files are read in parts, and actors that hold the bundle write their predictions.

Parts that were read wait in Ray's object store, and no more are read while the actors are behind: memory does not grow
with the number of samples. An actor that dies is started again, and so is its part, whose file has the same name then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from spikeserve.models.errors import SpikeserveError
from spikeserve.service.batch.plan import Part
from spikeserve.service.batch.predict import Options, Predictor

READERS = 1  # CPUs that read, beside the actors: reading takes a small part of the time


@dataclass(frozen=True)
class Done:
    """A part that was written, or refused: `refused` is then a sentence that says why, and else empty."""

    output: str
    samples: int
    refused: str


def run(parts: Sequence[Part], options: Options, actors: int) -> Iterator[Done]:
    """Yield each part once it is done, in any order; Ray is connected."""
    import ray.data  # here, since it sets up its logging when it is imported

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = context.target_min_block_size = 1  # byte: each part is a block of its own
    context.execution_options.verbose_progress = False
    jobs = [{"parts": list(group)} for _, group in groupby(parts, key=lambda part: part.sources[0].path)]
    data = (
        ray.data.from_items(jobs, override_num_blocks=min(len(jobs), 1000))
        .map_batches(read, batch_size=1, num_cpus=READERS, compute=ray.data.TaskPoolStrategy(READERS))
        .map_batches(
            Predictor,
            fn_constructor_args=(options,),
            batch_size=1,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(parts))),
        )
    )
    for row in data.iter_rows():
        yield Done(row["output"], row["samples"], row["refused"])


def read(batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """Yield the parts of files, each with the contents of its sources, or why it cannot be read."""
    for parts in batch["parts"]:
        done = 0
        try:
            for part, contents in zip(parts, _contents(parts), strict=True):
                yield {"part": [part], "contents": [contents], "refused": [""]}
                done += 1
        except SpikeserveError as error:
            for part in parts[done:]:
                yield {"part": [part], "contents": [[]], "refused": [str(error)]}


def _contents(parts: Sequence[Part]) -> Iterator[list[bytes]]:
    """Yield what each part reads of each of its sources; several parts are all of one file, which is opened once."""
    if len(parts) > 1:
        for content in parts[0].sources[0].contents([(part.start, part.stop) for part in parts]):
            yield [content]
    else:
        (part,) = parts
        yield [next(source.contents([(part.start, part.stop)])) for source in part.sources]
