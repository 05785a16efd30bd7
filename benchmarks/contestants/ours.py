"""Our own engines, made as the service makes them."""

from __future__ import annotations

from benchmarks.contestants.base import Job, Run, Skipped
from spikeserve.models.engines import EngineName, available, create


def prepare(engine: EngineName, job: Job) -> Run:
    """Return a run of one of our engines; `torch` takes its threads from the process."""
    if engine not in available():
        raise Skipped("its library is not installed here")
    made = create(engine, job.network, threads=job.threads)
    return lambda: made.run(job.inputs)[0].spike_counts
