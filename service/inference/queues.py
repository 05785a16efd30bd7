"""What waits for one version of one model, and what of it goes into the next run."""

from __future__ import annotations

from asyncio import TimerHandle
from dataclasses import dataclass
from typing import Any, TypeAlias

from models.coding import EncodedInputs
from service.catalog.cost import Cost
from service.inference.batching import Policy
from service.inference.jobs import Job

AnyJob: TypeAlias = Job[Any]


@dataclass(frozen=True)
class Piece:
    """The samples of a job from `start` to `stop`, which are all of it unless it is split."""

    job: AnyJob
    start: int
    stop: int

    def inputs(self, encoded: EncodedInputs) -> EncodedInputs:
        """Return its part of the job's inputs."""
        return encoded if self.start == 0 and self.stop == encoded.batch else encoded[self.start : self.stop]


@dataclass(frozen=True)
class Reading:
    """A job whose body is to be read, or whose samples are too many to be encoded in one run."""

    job: AnyJob


@dataclass(frozen=True)
class Run:
    """What goes through the engine at once: pieces of equal time steps, or one piece alone."""

    pieces: list[Piece]


class Queue:
    """The jobs that wait, oldest first, and how many runs are going. Only the event loop touches it."""

    def __init__(self, policy: Policy, cost: Cost, limit: int) -> None:
        self.policy = policy
        self.cost = cost
        self.limit = limit
        self.unread: dict[AnyJob, None] = {}  # dicts, for their order and because any job may leave at any time
        self.waiting: dict[AnyJob, None] = {}
        self.turn: list[AnyJob] | None = None  # the quick ones that wait for the end of the loop's turn, if one is open
        self.depth = 0  # jobs that nothing was done for yet; this is what `limit` bounds
        self.runs = 0
        self.alarm: TimerHandle | None = None  # when a run that waits for more requests starts without them

    @property
    def empty(self) -> bool:
        """Whether nothing is left to start."""
        return not self.unread and not self.waiting

    def most(self, job: AnyJob) -> int:
        """Return how many samples a run of the job's time steps may hold."""
        return self.policy.most(self.cost, job.time_steps)

    def add(self, job: AnyJob, since: float) -> None:
        """Put a job that has waited since then at the end: to be run if it is encoded or fits into one run."""
        job.since = since
        ready = job.query is not None and (job.inputs is not None or job.samples <= self.most(job))
        (self.waiting if ready else self.unread)[job] = None

    def drop(self, job: AnyJob) -> None:
        """Forget a job that nobody waits for."""
        self.unread.pop(job, None)
        self.waiting.pop(job, None)
        if self.turn and job in self.turn:
            self.turn.remove(job)

    def take(self, now: float, *, may_read: bool) -> Reading | Run | float | None:
        """Return what to do next, or for how many seconds to wait for more, or None where there is nothing to do."""
        unread, waiting = next(iter(self.unread), None) if may_read else None, next(iter(self.waiting), None)
        if waiting is None or (unread is not None and unread.since <= waiting.since):
            return self._reading(unread)
        pieces, full = self._together(waiting)
        delay = self.policy.delay(idle=self.runs == 0, full=full, waited=now - waiting.since)
        if delay > 0:
            return self._reading(unread) or delay
        for piece in pieces:
            del self.waiting[piece.job]
            piece.job.taken = piece.stop
            if piece.stop < piece.job.samples:
                self.add(piece.job, now)  # behind the others, so that it starves none of them
        return Run(pieces)

    def _reading(self, job: AnyJob | None) -> Reading | None:
        if job is None:
            return None
        del self.unread[job]
        return Reading(job)

    def _together(self, first: AnyJob) -> tuple[list[Piece], bool]:
        """Return the pieces of a run that begins with `first`, and whether no more would go with them."""
        most = self.most(first)
        pieces = [Piece(first, first.taken, min(first.samples, first.taken + most))]
        room = most - (pieces[0].stop - pieces[0].start)
        for job in self.waiting:
            if room <= 0:
                break
            if job is first or not job.goes_with(first):
                continue
            left = job.samples - job.taken
            if left > room:
                return pieces, True
            pieces.append(Piece(job, job.taken, job.samples))
            room -= left
        return pieces, room <= 0 or bool(first.records)
