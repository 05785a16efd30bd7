"""One run of an engine: what the shards of some requests become as one batch, on whichever thread it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from models.coding import EncodedInputs
from models.errors import InvalidInput, SpikeserveError
from service.catalog.loaded import LoadedModel
from service.inference.job import Answer, AnyJob, encoded


@dataclass(frozen=True)
class Shard:
    """The samples of a job from `start` to `stop`, which are all of it unless it is split."""

    job: AnyJob
    start: int
    stop: int

    def inputs(self, whole: EncodedInputs) -> EncodedInputs:
        """Return its part of the job's inputs."""
        return whole if self.start == 0 and self.stop == whole.batch else whole[self.start : self.stop]


class Outcome(NamedTuple):
    """What a run made of one of its jobs: an answer, an error, or nothing yet."""

    job: AnyJob
    answer: Answer[Any] | None = None
    error: Exception | None = None


class Computed(NamedTuple):
    """What came of a run, how many samples went through the engine, and the seconds that it took them."""

    outcomes: list[Outcome]
    samples: int = 0
    seconds: float = 0.0


def compute(model: LoadedModel, shards: Sequence[Shard]) -> Computed:
    """Run shards of equal time steps as one batch. What is wrong with one of them is its own error alone."""
    taken: list[Shard] = []
    inputs: list[EncodedInputs] = []
    outcomes: list[Outcome] = []
    for shard in shards:
        job = shard.job
        if job.over or job.query is None:
            continue
        try:
            whole = encoded(model, job.query, job.times) if job.inputs is None else job.inputs
            inputs.append(shard.inputs(whole))
            taken.append(shard)
        except SpikeserveError as error:
            outcomes.append(Outcome(job, error=error))
    if not taken or taken[0].job.query is None:
        return Computed(outcomes)
    batch = EncodedInputs.joined(inputs)
    started = perf_counter()
    try:
        result, _ = model.engine.run(batch, record=taken[0].job.query.record)
    except InvalidInput as error:  # of an external ONNX model, which has no answer to some sample
        if len(taken) == 1:
            return Computed([*outcomes, Outcome(taken[0].job, error=error)])
        alone = [compute(model, [shard]) for shard in taken]
        outcomes += [outcome for each in alone for outcome in each.outcomes]
        return Computed(outcomes, sum(each.samples for each in alone), sum(each.seconds for each in alone))
    ended = perf_counter()
    stop = 0
    for shard in taken:
        shard.job.times.run_began, shard.job.times.run_ended = started, ended
        start, stop = stop, stop + shard.stop - shard.start
        own = result if len(taken) == 1 else result[start:stop]
        outcomes.append(Outcome(shard.job, shard.job.complete(shard.start, own)))
    return Computed(outcomes, batch.batch, ended - started)


def failed(shards: Sequence[Shard], error: Exception) -> Computed:
    """Return what a run with such an error has made of its shards."""
    return Computed([Outcome(shard.job, error=error) for shard in shards])
