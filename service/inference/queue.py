"""What waits for one version of one model, and what of it goes into the next run."""

from __future__ import annotations

from asyncio import TimerHandle
from dataclasses import dataclass

from service.catalog.cost import Cost
from service.inference.batching import Policy
from service.inference.job import AnyJob
from service.inference.run import Shard


@dataclass(frozen=True)
class Decode:
    """A job whose body is to be decoded, or whose samples are too many to be encoded in one run."""

    job: AnyJob


@dataclass(frozen=True)
class Run:
    """What goes through the engine at once: shards of equal time steps, or one shard alone."""

    shards: list[Shard]


class Queue:
    """The jobs that wait, oldest first, and how many runs are going. Only the event loop touches it."""

    def __init__(self, policy: Policy, cost: Cost, limit: int) -> None:
        self.policy = policy
        self.cost = cost
        self.limit = limit
        self.undecoded: dict[AnyJob, None] = {}  # dicts, for their order and because any job may leave at any time
        self.waiting: dict[AnyJob, None] = {}
        self.burst: list[AnyJob] | None = None  # small jobs of this iteration of the event loop, once one has run
        self.depth = 0  # jobs that nothing was done for yet; this is what `limit` bounds
        self.runs = 0
        self.alarm: TimerHandle | None = None  # when a run that waits for more requests starts without them

    @property
    def empty(self) -> bool:
        """Whether nothing is left to start."""
        return not self.undecoded and not self.waiting

    def most(self, job: AnyJob) -> int:
        """Return how many samples a run of the job's time steps may hold."""
        return self.policy.most(self.cost, job.time_steps)

    def add(self, job: AnyJob, since: float) -> None:
        """Put a job that has waited since then at the end: to be run if it is encoded or fits into one run."""
        job.since = since
        ready = job.query is not None and (job.inputs is not None or job.samples <= self.most(job))
        (self.waiting if ready else self.undecoded)[job] = None

    def drop(self, job: AnyJob) -> None:
        """Forget a job that nobody waits for."""
        self.undecoded.pop(job, None)
        self.waiting.pop(job, None)
        if self.burst and job in self.burst:
            self.burst.remove(job)

    def take(self, now: float, *, may_decode: bool) -> Decode | Run | float | None:
        """Return what to do next, or for how many seconds to wait for more, or None where there is nothing to do."""
        undecoded = next(iter(self.undecoded), None) if may_decode else None
        waiting = next(iter(self.waiting), None)
        if waiting is None or (undecoded is not None and undecoded.since <= waiting.since):
            return self._decode(undecoded)
        shards, full = self._batch(waiting)
        delay = self.policy.delay(idle=self.runs == 0, full=full, waited=now - waiting.since)
        if delay > 0:
            return self._decode(undecoded) or delay
        for shard in shards:
            del self.waiting[shard.job]
            shard.job.started = shard.stop
            if shard.stop < shard.job.samples:
                self.add(shard.job, now)  # behind the others, so that it starves none of them
        return Run(shards)

    def take_burst(self) -> list[list[Shard]]:
        """Return the small jobs of this iteration of the event loop as runs, and close the burst."""
        jobs, self.burst = self.burst or [], None
        by_steps: dict[int, list[AnyJob]] = {}
        for job in jobs:
            by_steps.setdefault(job.time_steps, []).append(job)
        runs: list[list[Shard]] = []
        for group in by_steps.values():
            most, samples = self.most(group[0]), 0
            for job in group:
                if job is group[0] or samples + job.samples > most:
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
        """Return the shards of a run that begins with `first`, and whether no more would go with them."""
        most = self.most(first)
        shards = [Shard(first, first.started, min(first.samples, first.started + most))]
        room = most - (shards[0].stop - shards[0].start)
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
        return shards, room <= 0 or bool(first.records)
