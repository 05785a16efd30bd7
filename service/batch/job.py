"""A batch job on Ray Data: the files are read in parts, and actors that hold the bundle write their predictions.

Parts that were read wait in Ray's object store, and no more are read while the actors are behind: memory does not grow
with the number of samples. An actor that dies is started again, and so is its part, whose file has the same name then.

The Ray cluster is one that is there already, or one of this machine that ends with the command.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from spikeserve.models.errors import SpikeserveError
from spikeserve.service.batch.plan import Part
from spikeserve.service.batch.predict import Options, Predictor
from spikeserve.service.errors import Misconfigured

STORE_BYTES = 2**27  # of a local cluster's object store, which holds the parts on their way between two processes
MIN_STORE_BYTES = 75 * 2**20  # the least that Ray takes
ADDRESS = "RAY_ADDRESS"
CONNECT_SECONDS = 10.0  # for a cluster to accept a connection; Ray itself would try for minutes

LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: every address is that of the loopback
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else each process writes to this terminal
}


def local_environment() -> None:
    """Set what Ray reads when it is first imported: a local cluster is for this process alone."""
    os.environ |= {**LOCAL, "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)}


@contextmanager
def connected(cpus: int, address: str | None = None, store_bytes: int = STORE_BYTES) -> Iterator[None]:
    """Connect to the cluster at `address`, by default at RAY_ADDRESS, or else start a local one of so many CPUs.

    A process that is connected already stays so. A local cluster ends with the block. It listens on the loopback only,
    with a token of its own, without a dashboard, and reports nothing to anyone; for that, Ray must not have been
    imported before. Raises Misconfigured where there is no cluster at the address, or none of this version of Ray.
    """
    address = address or os.environ.get(ADDRESS)
    if not address and "ray" not in sys.modules:
        local_environment()
    import ray  # reads its environment at import

    if ray.is_initialized():
        yield
        return
    if address:
        _require_answer(address)
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Misconfigured(f"address: '{address}' cannot be used: {' '.join(str(error).split())}") from error
    else:
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=max(MIN_STORE_BYTES, store_bytes),
            log_to_driver=False,
            logging_level="ERROR",
            # Its processes find what this one finds.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise Misconfigured where nothing listens at an address of the form host:port; Ray has other forms too."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise Misconfigured(f"address: no Ray cluster answers at '{address}': {error}") from error


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
