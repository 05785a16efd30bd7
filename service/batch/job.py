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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from spikeserve.service.batch.parts import Part, Source
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


Json: TypeAlias = dict[str, Any]
READERS = 1  # CPUs that read, beside the actors: reading takes a small part of the time


def run(sources: Sequence[Source], options: Options, actors: int, there: Collection[str]) -> Iterator[Json]:
    """Yield each part once it is done, in any order, but for those whose predictions are `there`; Ray is connected.

    A part has its `output` and its number of `samples`, and in `refused` a sentence that says why, which is else empty.
    """
    import ray.data  # here, since it sets up its logging when it is imported

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = context.target_min_block_size = 1  # byte: each part is a block of its own
    context.execution_options.verbose_progress = False
    data = (
        ray.data.from_items([{"source": each} for each in sources], override_num_blocks=min(len(sources), 1000))
        .map_batches(
            read,
            fn_args=(options, there),
            batch_size=1,
            num_cpus=READERS,
            compute=ray.data.TaskPoolStrategy(READERS),
        )
        .map_batches(
            Predictor,
            fn_constructor_args=(options,),
            batch_size=1,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        )
    )
    yield from data.iter_rows()


def read(batch: dict[str, Any], options: Options, there: Collection[str]) -> Iterator[dict[str, list[Any]]]:
    """Yield the parts of files that are not there yet, or why one cannot be read."""
    most_bytes = options.settings.max_body_bytes
    for source in batch["source"]:
        try:
            for part in source.parts(options.spec, options.part_samples, options.most, most_bytes):
                if part.output not in there:
                    yield {"part": [part], "refused": [""]}
        except Misconfigured as error:
            yield {"part": [Part(source.name, 0, "", [])], "refused": [str(error)]}
