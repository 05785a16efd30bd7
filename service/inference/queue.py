"""The queue of one version of a model: the jobs that wait, and which of them the next run takes."""

from __future__ import annotations

from asyncio import TimerHandle
from dataclasses import dataclass, field

from models.engines import Stop
from service.catalog.cost import Cost
from service.inference.batching import Policy
from service.inference.job import AnyJob
from service.inference.run import Shard


@dataclass(frozen=True)
class Decode:
    """Work for a thread: decode a job's body, or encode a job that has more samples than one run holds."""

    job: AnyJob


@dataclass(frozen=True, eq=False)
class Run:
    """Work for a thread: run these shards, which have equal time steps, through the engine as one batch."""

    shards: list[Shard]
    stop: Stop = field(default_factory=Stop)

    def stop_if_unwanted(self) -> None:
        """Ask the run to stop if all its jobs are over."""
        if all(shard.job.over for shard in self.shards):
            self.stop.request()


class Queue:
    """The jobs that wait, oldest first, and the runs in progress. Only the event loop touches it."""

    def __init__(self, policy: Policy, cost: Cost, limit: int) -> None:
        self.policy = policy
        self.cost = cost
        self.limit = limit
        self.undecoded: dict[AnyJob, None] = {}  # ordered sets, since any job may leave at any time
        self.waiting: dict[AnyJob, None] = {}
        self.burst: list[AnyJob] | None = None  # the small jobs after the first in this iteration of the event loop
        self.depth = 0  # jobs on which no work has started; `limit` bounds these
        self.running: set[Run] = set()  # the runs in progress
        self.timer: TimerHandle | None = None  # starts a run that waits for more requests, without them

    @property
    def empty(self) -> bool:
        """Whether no job waits to be started."""
        return not self.undecoded and not self.waiting

    def max_samples(self, job: AnyJob) -> int:
        """Return how many samples a run of the job's time steps may hold."""
        return self.policy.max_samples(self.cost, job.time_steps)

    def add(self, job: AnyJob, since: float) -> None:
        """Append a job that has waited since `since`: to run, if it is encoded or fits one run, else to decode."""
        job.since = since
        ready = job.query is not None and (job.inputs is not None or job.samples <= self.max_samples(job))
        (self.waiting if ready else self.undecoded)[job] = None

    def drop(self, job: AnyJob) -> None:
        """Remove a job, wherever it waits."""
        self.undecoded.pop(job, None)
        self.waiting.pop(job, None)
        if self.burst and job in self.burst:
            self.burst.remove(job)

    def take(self, now: float, *, may_decode: bool) -> Decode | Run | float | None:
        """Return the next work, or for how many seconds to wait for more requests, or None if there is no work."""
        undecoded = next(iter(self.undecoded), None) if may_decode else None
        waiting = next(iter(self.waiting), None)
        if waiting is None or (undecoded is not None and undecoded.since <= waiting.since):
            return self._decode(undecoded)
        shards, full = self._batch(waiting)
        delay = self.policy.delay(idle=not self.running, full=full, waited=now - waiting.since)
        if delay > 0:
            return self._decode(undecoded) or delay
        for shard in shards:
            del self.waiting[shard.job]
            shard.job.started = shard.stop
            if shard.stop < shard.job.samples:
                self.add(shard.job, now)  # at the end, so that a long request does not starve the others
        return Run(shards)

    def take_burst(self) -> list[list[Shard]]:
        """Return the small jobs of this iteration of the event loop as runs, and close the burst."""
        jobs, self.burst = self.burst or [], None
        by_steps: dict[int, list[AnyJob]] = {}
        for job in jobs:
            by_steps.setdefault(job.time_steps, []).append(job)
        runs: list[list[Shard]] = []
        for group in by_steps.values():
            limit, samples = self.max_samples(group[0]), 0
            for job in group:
                if job is group[0] or samples + job.samples > limit:
                    runs.append([])
                    samples = 0
                runs[-1].append(Shard(job, 0, job.samples))
                samples += job.samples
        return runs

    def _decode(self, job: AnyJob | None) -> Decode | None:
        if job is None:
            return None
        del self.undecoded[job]
        return Decode(job)

    def _batch(self, first: AnyJob) -> tuple[list[Shard], bool]:
        """Return the shards of a run that begins with `first`, and whether the run is full."""
        limit = self.max_samples(first)
        shards = [Shard(first, first.started, min(first.samples, first.started + limit))]
        room = limit - (shards[0].stop - shards[0].start)
        for job in self.waiting:
            if room <= 0:
                break
            if job is first or not job.may_share_a_run(first):
                continue
            left = job.samples - job.started
            if left > room:
                return shards, True
            shards.append(Shard(job, job.started, job.samples))
            room -= left
        return shards, room <= 0 or first.needs_own_run
