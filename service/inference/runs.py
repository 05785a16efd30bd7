"""One run of an engine: what the pieces of some requests become as one batch, on whichever thread it goes."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

from models.coding import EncodedInputs
from models.errors import InvalidInput, SpikeserveError
from service.catalog.served import ServedModel
from service.inference.jobs import Answer
from service.inference.queues import AnyJob, Piece


class Outcome(NamedTuple):
    """What a run made of one of its jobs: an answer, a fault, or nothing yet."""

    job: AnyJob
    answer: Answer[Any] | None = None
    fault: Exception | None = None


class Computed(NamedTuple):
    """What came of a run, how many samples went through the engine, and the seconds that it took them."""

    outcomes: list[Outcome]
    samples: int = 0
    seconds: float = 0.0


def compute(model: ServedModel, pieces: Sequence[Piece]) -> Computed:
    """Run pieces of equal time steps as one batch. What is wrong with one of them is its own fault alone."""
    taken: list[Piece] = []
    inputs: list[EncodedInputs] = []
    outcomes: list[Outcome] = []
    for piece in pieces:
        job = piece.job
        if job.over or job.query is None:
            continue
        try:
            whole = job.encoded(model.encode, job.query) if job.inputs is None else job.inputs
            inputs.append(piece.inputs(whole))
            taken.append(piece)
        except SpikeserveError as error:
            outcomes.append(Outcome(job, fault=error))
    if not taken or taken[0].job.query is None:
        return Computed(outcomes)
    batch = EncodedInputs.joined(inputs)
    started = perf_counter()
    try:
        result, _ = model.engine.run(batch, record=taken[0].job.query.record)
    except InvalidInput as error:  # of a model of others, which has no answer to some sample
        if len(taken) == 1:
            return Computed([*outcomes, Outcome(taken[0].job, fault=error)])
        alone = [compute(model, [piece]) for piece in taken]
        outcomes += [outcome for each in alone for outcome in each.outcomes]
        return Computed(outcomes, sum(each.samples for each in alone), sum(each.seconds for each in alone))
    ended = perf_counter()
    end = 0
    for piece in taken:
        piece.job.times.run_began, piece.job.times.run_ended = started, ended
        begin, end = end, end + piece.stop - piece.start
        own = result if len(taken) == 1 else result[begin:end]
        outcomes.append(Outcome(piece.job, piece.job.complete(piece.start, own)))
    return Computed(outcomes, batch.batch, ended - started)


def failed(pieces: Sequence[Piece], fault: Exception) -> Computed:
    """Return what a run with such a fault has made of its pieces."""
    return Computed([Outcome(piece.job, fault=fault) for piece in pieces])
