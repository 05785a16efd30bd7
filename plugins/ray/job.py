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
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, LocalFileSystem

from spikeserve.models.errors import SpikeserveError, bounded_line
from spikeserve.models.folders import sync
from spikeserve.models.spec import Spec
from spikeserve.plugins.local.arrays import parts
from spikeserve.plugins.local.model import answer, load, read_bundle, samples_at_once
from spikeserve.plugins.ray.parts import Source
from spikeserve.service.errors import Misconfigured
from spikeserve.service.inference.decoding.media import NPY
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.settings import Settings

STORE_BYTES = 2**27  # of a local cluster's object store, which holds the parts on their way between two processes
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
def connected(cpus: int, address: str | None = None) -> Iterator[None]:
    """Connect to the cluster at `address`, by default at RAY_ADDRESS, or else start a local one of so many CPUs.

    A process that is connected already stays so. A local cluster ends with the block. It listens on the loopback only,
    with a token of its own, without a dashboard, and reports nothing to anyone; for that, Ray must not have been
    imported before. Raises Misconfigured where there is no cluster at the address, or none of this version of Ray.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address and "ray" not in sys.modules:
        local_environment()
    import ray  # reads its environment at import

    if ray.is_initialized():
        yield
        return
    if address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdecimal():  # Ray has other forms too
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise Misconfigured(f"address: no Ray cluster is at '{address}': {' '.join(str(error).split())}") from error
    else:
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            log_to_driver=False,
            logging_level="ERROR",
            # Its processes find what this one finds.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    try:
        yield
    finally:
        ray.shutdown()


UNFINISHED = ".unfinished-"  # begins the name of a file that is being written, which no part's does


@dataclass(frozen=True)
class Job:
    """What is the same for all parts: the bundle, its hash, the folder of predictions, and how the samples run."""

    bundle: Path
    digest: str
    spec: Spec
    system: FileSystem
    folder: str
    settings: Settings
    part_samples: int
    time_steps: int | None = None
    seed: int = 0

    def run(self, sources: Sequence[Source], actors: int, there: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield each part once it is done, in any order, but for those whose predictions are `there`.

        It has its `output`, its number of `samples`, and in `refused` a sentence that says why, which is else "". Ray
        is connected.
        """
        import ray.data  # here, since it sets up its logging when it is imported

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = context.target_min_block_size = 1  # byte: each part is a block of its own
        files = ray.data.from_items([{"file": each} for each in sources], override_num_blocks=min(len(sources), 1000))
        # One CPU reads, beside the actors: that takes a small part of the time.
        reader, pool = ray.data.TaskPoolStrategy(1), ray.data.ActorPoolStrategy(min_size=1, max_size=actors)
        read = files.flat_map(self.read, fn_args=(there,), num_cpus=1, compute=reader)
        yield from read.map(Predictor, fn_constructor_args=(self,), num_cpus=1, compute=pool).iter_rows()

    def read(self, row: dict[str, Any], there: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield the parts of a file that are not there yet."""
        parts = row["file"].parts(self.spec, self.part_samples, self.settings.max_body_bytes)
        return (part for part in parts if part["output"] not in there)


class Predictor:
    """An actor of Ray Data: it reads the bundle once, replays its golden samples, and is then given parts."""

    def __init__(self, job: Job) -> None:
        self.model, self.job = load(read_bundle(job.bundle, job.settings), job.settings), job
        if self.model.bundle.digest != job.digest:
            raise Misconfigured(f"bundle: '{job.bundle}' has changed since the job began, expected it as it was")
        self.metadata = {"model": self.model.name, "version": str(self.model.version), "bundle": job.digest}
        self.query = urlencode({"seed": job.seed} | ({"time_steps": job.time_steps} if job.time_steps else {})).encode()
        self.most = samples_at_once(self.model.limits, job.time_steps or 1)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Write the predictions of a part, and return its number of samples, or why it was refused."""
        name, sample, refused = part["input"], part["sample"], part["refused"]
        answers = list[Any]()
        try:
            for body in () if refused else self._bodies(part):
                answers += answer(self.model, NativeCodec(self.model, kind=part["kind"], query=self.query).decode(body))
        except SpikeserveError as error:
            refused = bounded_line(f"'{name}', counted from sample {sample + len(answers)}: {error}")
        if not refused:
            rows = [{"input": name, "sample": at, **each} for at, each in enumerate(answers, sample)]
            table = pa.Table.from_pylist(rows).replace_schema_metadata(self.metadata)
            write_whole(table, self.job.system, self.job.folder, part["output"])
        return {"output": part["output"], "samples": len(answers), "refused": refused}

    def _bodies(self, part: dict[str, Any]) -> Iterator[bytes]:
        """Return a part as bodies that each run at once."""
        if part["kind"] != NPY:
            return iter([part["body"]])
        file, most_bytes = BytesIO(part["body"]), self.job.settings.max_body_bytes
        return (body for _, body in parts(file, self.job.spec, self.most, most_bytes))


def write_whole(table: pa.Table, system: FileSystem, folder: str, name: str) -> None:
    """Write a Parquet file that appears whole or not at all, on a disk of this machine also after a power cut."""
    unfinished = f"{folder}/{UNFINISHED}{secrets.token_hex(8)}"
    with system.open_output_stream(unfinished) as file:
        pq.write_table(table, file)
    if isinstance(system, LocalFileSystem):
        sync(Path(unfinished))
    system.move(unfinished, f"{folder}/{name}")
