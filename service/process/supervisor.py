"""Several worker processes that serve one port as one server: started, told what to serve, replaced and ended.

This process owns the wanted state: which versions of each model are served, and which models were unloaded. Changes go
through it one after the other, and each is made by every worker before it is answered. A worker is forked with the
wanted state, and every later change comes down its one socket in order, so that none can be missed and the worker in
the place of another serves what that one did. Where a worker is silent nothing is changed, and one that falls silent is
not waited for; the answer names it.

The workers share one listening socket, and not a port with a socket for each: a connection that waits to be accepted
belongs to none of them, so that a worker that is killed takes only those with it that it was answering. One that takes
the place of another accepts connections once its models are loaded, so the server stays ready meanwhile. Should this
process be killed, each socket pair ends and the workers drain.

A signal may come to a worker from this process and from outside, as where it is sent to the whole group: it drains,
however often it is asked. To end one that does not is for this process: at a second signal, or when its time is over.

Why not uvicorn's own supervisor (`uvicorn.supervisors.multiprocess`, 0.54): it would replace `run`, `_start` and
`_reap`, 60 lines, and all it restarts could not be told anything. Its pipes speak pickle and carry only pings, which a
thread answers, so that a stuck event loop passes for alive; it waits up to 5 s for one worker before it looks at the
next; it spawns, so that each worker imports and looks into the repository anew; it has no back-off, no end to the grace
period, no second signal, no exit status of its workers, and reaps no orphans; SIGHUP restarts instead of drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio import Task
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import structlog

from service.errors import shown
from service.process.control import Limits, Peer, Reply, Request

ASKED_TO_STOP = {signal.SIGTERM, signal.SIGINT}
SPARE_SECONDS = 2  # what a worker has beyond the grace period, after which it ends by itself unless it hangs
UNFINISHED = 1  # the exit status where a worker did not end well
SHORTEST_LIFE = 1.0  # seconds; crash-loop back-off: a worker that lived less is replaced only after as long

log = structlog.get_logger()


@dataclass
class Wanted:
    """What every worker is to serve: the versions of each model; and the models that were unloaded."""

    versions: dict[str, list[int]]
    unloaded: set[str] = field(default_factory=set)


@dataclass
class Worker:
    """A process, the number that the one in its place takes over, and this end of their socket pair."""

    number: int
    connection: socket.socket
    started_at: float = field(default_factory=time.monotonic)
    peer: Peer = field(init=False)
    following: Task[None] = field(init=False)


# A worker's: from its number, its end of the socket pair and whether it replaces another to the exit status.
Work = Callable[[int, socket.socket, bool], int]


class Supervisor:
    """Keeps a number of worker processes running that serve what is `wanted` and have `grace` seconds to drain."""

    def __init__(self, workers: int, wanted: Wanted, grace: float, work: Work, limits: Limits) -> None:
        self.wanted, self.grace, self.work, self.limits = wanted, grace, work, limits
        self.loop = asyncio.new_event_loop()
        self.workers: dict[int, Worker] = {}  # those that live, by process
        self.due = [(number, False) for number in range(workers)]  # those to start, and whether in another's place
        self.look = asyncio.Event()  # set where there is one to start, or none left to wait for
        self.changing = asyncio.Lock()
        self.stopping = False
        self.failed = False

    def run(self) -> int:
        """Serve until a signal says to stop; return 0 if every worker ended well after that."""
        for asked in ASKED_TO_STOP:
            self.loop.add_signal_handler(asked, self._stop, asked)
        self.loop.add_signal_handler(signal.SIGCHLD, self._reap)
        while self.workers or not self.stopping:
            while self.due and not self.stopping:  # outside the event loop, which a child must not be born into
                self._start(*self.due.pop(0))
            self.loop.run_until_complete(self.look.wait())
            self.look.clear()
        return UNFINISHED if self.failed else 0

    def _start(self, number: int, replaces: bool) -> None:
        ours, theirs = socket.socketpair()
        worker = Worker(number, ours)
        worker.peer = self.loop.run_until_complete(Peer.connect(ours, partial(self._answer, worker)))
        if self.stopping:  # since then
            theirs.close()
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_TO_STOP)  # one that came now would miss the new worker
        try:
            process = os.fork()
            if process == 0:
                self._be_a_worker(worker, theirs, replaces)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_STOP)
        theirs.close()
        self.workers[process] = worker
        worker.following = self.loop.create_task(self._follow(process, worker))
        log.info("worker_started", worker=process, number=number)

    def _be_a_worker(self, worker: Worker, connection: socket.socket, replaces: bool) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until it serves there is nothing to drain
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_STOP)
            for each in (worker, *self.workers.values()):  # else none would see this process's end
                each.connection.close()
            status = self.work(worker.number, connection, replaces)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("worker_failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # what the parent has set up is the parent's to take down

    async def _follow(self, process: int, worker: Worker) -> None:
        try:
            await worker.peer.follow()
        except ValueError as error:
            log.error("worker_misunderstood", worker=process, number=worker.number, error=str(error))  # noqa: TRY400
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _reap(self) -> None:
        """Take note of each child that has ended; a container's first process also has those of others."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if worker := self.workers.pop(ended[0], None):
                    self._replace(ended[0], worker, ended[1])

    def _replace(self, process: int, worker: Worker, status: int) -> None:
        worker.peer.close()
        if self.stopping:
            self.failed = self.failed or status != 0
            self.look.set()
            return
        log.error("worker_died", worker=process, number=worker.number, status=os.waitstatus_to_exitcode(status))
        lived = time.monotonic() - worker.started_at
        self.loop.call_later(SHORTEST_LIFE if lived < SHORTEST_LIFE else 0, self._make_due, worker.number)

    def _make_due(self, number: int) -> None:
        self.due.append((number, True))
        self.look.set()

    def _stop(self, number: signal.Signals) -> None:
        """Ask every worker to drain; the second time, end them and this process at once."""
        if self.stopping:
            self._end(128 + number)
        self.stopping = True
        self.look.set()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes sends it twice, and so does systemd
        self.loop.call_later(self.grace + SPARE_SECONDS, self._end_late)
        self._send(signal.SIGTERM)

    def _end_late(self) -> None:
        for process, worker in self.workers.items():
            log.error("worker_killed", worker=process, number=worker.number, seconds=self.grace + SPARE_SECONDS)
        self._end(UNFINISHED)

    def _end(self, status: int) -> NoReturn:
        """End the workers that are left and this process at once."""
        self._send(signal.SIGKILL)
        os._exit(status)

    def _send(self, number: signal.Signals) -> None:
        for process in self.workers:
            with suppress(ProcessLookupError):  # it has died just now
                os.kill(process, number)

    async def _answer(self, asker: Worker, request: Request) -> Reply:
        """Reply to what a worker asks of all."""
        match request.kind:
            case "ready":
                replies = await self._of_all(lambda peer: peer.ping(self.limits.alive))
                unready = [
                    f"worker {number} does not answer" if reply is None else f"worker {number}: {reply.sentence}"
                    for number, reply in replies.items()
                    if reply is None or reply.error
                ]
                return Reply(error="NotReady", sentence="; ".join(unready)) if unready else Reply()
            case "metrics" | "statistics":
                replies = await self._of_all(lambda peer: peer.ask(request, self.limits.collecting), but=asker)
                told = [reply for reply in replies.values() if reply is not None]
                return Reply(
                    metrics=[text for reply in told for text in reply.metrics],
                    statistics=[sums for reply in told for sums in reply.statistics],
                )
            case "load" | "unload":
                async with self.changing:
                    return await self._stuck() or await self._change(asker, request)
            case "polled":
                served = {name for name, _ in request.versions} - self.wanted.unloaded
                self.wanted.versions |= {
                    name: [version for each, version in request.versions if each == name] for name in served
                }
        return Reply()

    async def _change(self, asker: Worker, request: Request) -> Reply:
        """Have every worker make a change that the one that asks for it can make."""
        name, loads, wanted = request.name, request.kind == "load", self.wanted
        found = await asker.peer.ask(Request(kind="check" if loads else "find", name=name), self.limits.changing)
        if found is None or found.error or (loads and not found.versions):
            return found or Reply()
        chosen = [version for _, version in found.versions]
        # A worker that is started meanwhile is not told of the change: it tries both the new and the old versions.
        before = wanted.versions.pop(name, [])
        if loads:
            wanted.versions[name] = sorted({*before, *chosen})
            wanted.unloaded.discard(name)
        else:
            wanted.unloaded.add(name)
        change = request.model_copy(update={"versions": found.versions})
        replies = await self._of_all(lambda peer: peer.ask(change, self.limits.changing))
        if silent := _named([number for number, reply in replies.items() if reply is None]):
            may = "not have loaded" if loads else "still serve"
            return Reply(error="NotReady", sentence=f"{silent} not answer and may {may} model {shown(name)}")
        if errors := {reply.sentence: reply.error for reply in replies.values() if reply and reply.error}:
            kinds = set(errors.values())
            return Reply(error=kinds.pop() if len(kinds) == 1 else "LoadFailed", sentence="; ".join(errors))
        if loads:
            wanted.versions[name] = chosen
        return Reply()

    async def _stuck(self) -> Reply | None:
        """Return the reply to who wants a change, where a worker is stuck."""
        replies = await self._of_all(lambda peer: peer.ping(self.limits.alive))
        silent = _named([number for number, reply in replies.items() if reply is None])
        return Reply(error="NotReady", sentence=f"{silent} not answer, so nothing is changed") if silent else None

    async def _of_all(
        self, ask: Callable[[Peer], Awaitable[Reply | None]], but: Worker | None = None
    ) -> dict[int, Reply | None]:
        """Return each worker's reply by its number, ascending: None where it is silent, an empty one where it died."""
        workers = sorted((each for each in self.workers.values() if each is not but), key=lambda each: each.number)
        replies = await asyncio.gather(*(ask(worker.peer) for worker in workers))
        return {worker.number: reply for worker, reply in zip(workers, replies, strict=True)}


def _named(workers: list[int]) -> str:
    if len(workers) < 2:
        return "".join(f"worker {number} does" for number in workers)
    return f"workers {', '.join(map(str, workers))} do"
