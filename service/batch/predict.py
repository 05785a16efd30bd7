"""What each process of a batch job does: it holds the bundle, and predicts one part after the other."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, LocalFileSystem

from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec import Spec
from spikeserve.service.batch.parts import UNFINISHED, Part, place
from spikeserve.service.errors import Misconfigured
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.local.model import answer, load, read_bundle
from spikeserve.service.settings import Settings

MAX_REFUSED = 1000  # characters of a sentence


@dataclass(frozen=True)
class Options:
    """What is the same for all parts: the bundle, its hash, the folder of predictions, and how the samples run.

    `most` is how many samples a body holds, `part_samples` how many a part does.
    """

    bundle: Path
    digest: str
    spec: Spec
    output: str
    settings: Settings
    most: int
    part_samples: int
    time_steps: int | None = None
    seed: int = 0


class Predictor:
    """An actor of Ray Data: it reads the bundle once, replays its golden samples, and is then given parts."""

    def __init__(self, options: Options) -> None:
        bundle = read_bundle(options.bundle, options.settings)
        if bundle.digest != options.digest:
            raise Misconfigured(f"bundle: '{options.bundle}' has changed since the job began, expected it as it was")
        self.model = load(bundle, options.settings)
        self.system, self.folder = place(options.output)
        self.metadata = {"model": self.model.name, "version": str(self.model.version), "bundle": options.digest}
        steps = {} if options.time_steps is None else {"time_steps": options.time_steps}
        self.query = urlencode(steps | {"seed": options.seed}).encode()

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Write the predictions of each part in a batch, and return its number of samples, or why it was refused."""
        done = [self._done(part, refused) for part, refused in zip(batch["part"], batch["refused"], strict=True)]
        return {"output": [part.output for part in batch["part"]]} | {
            name: [each[at] for each in done] for at, name in enumerate(("samples", "refused"))
        }

    def _done(self, part: Part, refused: str) -> tuple[int, str]:
        try:
            return (0, refused) if refused else (self._write(part), "")
        except SpikeserveError as error:
            return 0, str(error)[:MAX_REFUSED]

    def _write(self, part: Part) -> int:
        rows = list[dict[str, Any]]()
        for kind, content in part.bodies:
            first = part.start + len(rows)
            try:
                answers = answer(self.model, NativeCodec(self.model, kind=kind, query=self.query).decode(content))
            except SpikeserveError as error:
                raise Misconfigured(f"'{part.name}', counted from sample {first}: {error}") from error
            rows += [{"input": part.name, "sample": at, **each} for at, each in enumerate(answers, first)]
        table = pa.Table.from_pylist(rows).replace_schema_metadata(self.metadata)
        write_whole(table, self.system, self.folder, part.output)
        return len(rows)


def write_whole(table: pa.Table, system: FileSystem, folder: str, name: str) -> None:
    """Write a Parquet file that appears whole or not at all, on a disk of this machine also after a power cut."""
    unfinished = f"{folder}/{UNFINISHED}{secrets.token_hex(8)}"
    with system.open_output_stream(unfinished) as file:
        pq.write_table(table, file)
    if isinstance(system, LocalFileSystem):
        with Path(unfinished).open("rb") as written:
            os.fsync(written.fileno())
    system.move(unfinished, f"{folder}/{name}")
