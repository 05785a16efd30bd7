"""What each process of a batch job does: it holds the bundle, and predicts one part after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spikeserve.models.coding import Inputs, encode, join_inputs
from spikeserve.models.engines import RunResult
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.batch.plan import UNFINISHED, Part
from spikeserve.service.errors import Misconfigured, TooLarge
from spikeserve.service.inference.decoding.binary import sent
from spikeserve.service.inference.decoding.media import BYTES, BodyFormat, form_of
from spikeserve.service.local.model import load, read_bundle, samples_at_once
from spikeserve.service.settings import Settings

MAX_REFUSED = 1000  # characters of a sentence


@dataclass(frozen=True)
class Options:
    """What is the same for all parts: the bundle, its hash, the folder of predictions, and how the samples run."""

    bundle: Path
    digest: str
    output: Path
    settings: Settings
    time_steps: int | None = None
    seed: int = 0


class Predictor:
    """An actor of Ray Data: it reads the bundle once, replays its golden samples, and is then given parts."""

    def __init__(self, options: Options) -> None:
        bundle = read_bundle(options.bundle, options.settings)
        if bundle.digest != options.digest:
            raise Misconfigured(f"bundle: '{options.bundle}' has changed since the job began, expected it as it was")
        self.options = options
        self.model = load(bundle, options.settings)
        self.most = samples_at_once(self.model)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Write the predictions of each part in a batch, and return its number of samples, or why it was refused."""
        samples, refused = [], list(batch["refused"])
        for index, (part, contents) in enumerate(zip(batch["part"], batch["contents"], strict=True)):
            samples.append(0)
            if refused[index]:
                continue
            try:
                samples[-1] = self._write(part, contents)
            except SpikeserveError as error:
                refused[index] = str(error)[:MAX_REFUSED]
        return {"output": [part.output for part in batch["part"]], "samples": samples, "refused": refused}

    def _write(self, part: Part, contents: Sequence[bytes]) -> int:
        results = list(self._results(part, contents))
        counted = [each.synaptic_operations for each in results]
        index = np.concatenate([each.class_index for each in results])
        task = self.model.spec
        columns: dict[str, Any] = {
            "input": pa.array([each.name for each in part.sources]).take(
                pa.array(np.repeat(np.arange(len(part.sources)), part.stop - part.start))
            ),
            "sample": np.tile(np.arange(part.start, part.stop), len(part.sources)),
        }
        if task.scores.has_classes:
            columns |= {"class_index": index, "label": pa.array(task.labels).take(pa.array(index))}
        else:
            columns["values"] = list(np.concatenate([each.readout for each in results]))
        columns["spike_counts"] = list(np.concatenate([each.spike_counts for each in results]))
        columns["synaptic_operations"] = (
            pa.nulls(part.samples, pa.int64())
            if any(each is None for each in counted)
            else np.concatenate([each for each in counted if each is not None])
        )
        model = self.model
        metadata = {"model": model.name, "version": str(model.version), "bundle": self.options.digest}
        write_whole(pa.table(columns).replace_schema_metadata(metadata), self.options.output / part.output)
        return part.samples

    def _results(self, part: Part, contents: Sequence[bytes]) -> Iterator[RunResult]:
        """Yield the results of a part, some samples at a time; raises SpikeserveError, which names the file."""
        waiting: list[Inputs] = []
        steps = None
        for source, content in zip(part.sources, contents, strict=True):
            first = part.start  # of those that an error counts from
            try:
                for inputs in self._inputs(content, is_recording=source.samples is None):
                    first += len(inputs)
                    if waiting and (inputs.time_steps != steps or sum(map(len, waiting)) + len(inputs) > self.most):
                        yield self._run(waiting)
                        waiting = []
                    waiting, steps = [*waiting, inputs], inputs.time_steps
            except SpikeserveError as error:
                where = "" if source.samples is None else f", counted from sample {first}"
                raise Misconfigured(f"'{source.name}'{where}: {error}") from error
        if waiting:
            yield self._run(waiting)

    def _run(self, inputs: Sequence[Inputs]) -> RunResult:
        return self.model.run(join_inputs(inputs), None)

    def _inputs(self, content: bytes, *, is_recording: bool) -> Iterator[Inputs]:
        """Yield the inputs of one content as the server makes them of a body, at most `most` samples at a time."""
        options, limits, task = self.options, self.model.limits, self.model.spec
        form = BodyFormat.NPY
        if is_recording:
            if len(content) > options.settings.max_body_bytes:
                raise TooLarge(f"has {len(content)} bytes, expected at most max_body_bytes for one recording")
            form = form_of(BYTES, content)
        if options.time_steps is not None:
            limits.check_steps(options.time_steps, "time_steps")
        found = sent(form, content, self.model, options.time_steps)
        limits.check_size(1, found.time_steps)
        made = found.make()
        if not isinstance(made, np.ndarray):
            yield made
            return
        for start in range(0, len(made), self.most):
            yield encode(made[start : start + self.most], task, found.time_steps, options.seed)


def write_whole(table: pa.Table, path: Path) -> None:
    """Write a Parquet file that appears whole or not at all, also after a power cut."""
    unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.stem}")
    try:
        pq.write_table(table, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
