"""The supervisor: starts, replaces and stops several worker processes that serve one port as one server.

The supervisor owns the desired state: which versions of each model are loaded, and which models were unloaded. Changes
are made one after the other, and each by every worker before the client gets its answer. A worker is forked with the
desired state. Later changes reach it in order on its one socket, so that a replacement serves the same models. If a
worker does not answer pings, no change is started. If one stops answering during a change, the supervisor does not wait
for it, and names it in the answer to the client.

The workers share one listening socket. A waiting connection belongs to no worker, so a killed worker loses only the
requests that it was answering. A replacement accepts connections once its models are loaded, so the server stays ready
meanwhile. If the supervisor is killed, the socket pairs close and the workers drain.

A worker may get a signal twice: from the supervisor, and from outside if the whole process group gets it. It drains,
however often it is signalled. Only the supervisor kills workers, after a second signal or the grace period.

Why not uvicorn's own supervisor (`uvicorn.supervisors.multiprocess`, 0.54): it would replace `run`, `_start` and
`_reap`, 60 lines, but could not tell a restarted worker anything. Its pipes use pickle and carry only pings. A thread
answers these, so that a stuck event loop seems alive. It waits up to 5 s for one worker before it checks the next. It
spawns, so that each worker imports everything and scans the repository again. It has no back-off, no end of the grace
period, no second signal and no exit status of its workers. It reaps no orphans, and SIGHUP restarts instead of drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from spikeserve.service.errors import shown
from spikeserve.service.process.control import ALIVE_SECONDS, CHANGING_SECONDS, COLLECTING_SECONDS, Message, Peer
from spikeserve.service.process.listener import NOT_SERVING, connections_of

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
EXTRA_SECONDS = 2  # after the grace period, in which a worker that does not hang exits by itself
UNFINISHED = 1  # the exit status if a worker exits with an error or is killed
BACK_OFF_SECONDS = 1.0  # crash-loop back-off: a worker that lived under a second is restarted after a second

log = structlog.get_logger()


@dataclass
class Worker:
    """A worker process, its number, which a replacement takes over, and the supervisor's end of the socket pair."""

    number: int
    connection: socket.socket
    peer: Peer
    started_at: float = field(default_factory=time.monotonic)


# A worker's main function: (its number, its end of the socket pair, whether it replaces another) -> exit status.
Work = Callable[[int, socket.socket, bool], int]


class Supervisor:
    """Keeps `workers` processes running that serve these `versions` of models; they have `grace` seconds to drain."""

    def __init__(self, workers: int, versions: dict[str, list[int]], grace: float, work: Work) -> None:
        self.versions, self.grace, self.work = versions, grace, work
        self.unloaded: set[str] = set()  # models
        self.loop = asyncio.new_event_loop()
        self.workers: dict[int, Worker] = {}  # the running ones, by process id
        self.connections = connections_of(workers)
        # The number of each that is to be started, and whether it replaces another; None where the server may be over.
        self.due: asyncio.Queue[tuple[int, bool] | None] = asyncio.Queue()
        for number in range(workers):
            self.due.put_nowait((number, False))
        self.changing = asyncio.Lock()
        self.stopping = False
        self.failed = False

    def run(self) -> int:
        """Serve until a signal; return 0 if every worker then exits with 0, else UNFINISHED."""
        for number in STOP_SIGNALS:
            self.loop.add_signal_handler(number, self._stop, number)
        self.loop.add_signal_handler(signal.SIGCHLD, self._reap)
        while self.workers or not self.stopping:
            if (due := self.loop.run_until_complete(self.due.get())) and not self.stopping:
                self._start(*due)  # a child must not be forked inside a running event loop
        self.loop.close()
        return UNFINISHED if self.failed else 0

    def _start(self, number: int, replaces: bool) -> None:
        ours, theirs = socket.socketpair()
        worker = Worker(number, ours, self.loop.run_until_complete(Peer.connect(ours, self._answer)))
        if self.stopping:  # a signal came while the event loop ran
            theirs.close()
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # one that came now would not reach the new worker
        try:
            process = os.fork()
            if process == 0:
                self._run_worker(worker, theirs, replaces)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        theirs.close()
        self.workers[process] = worker
        log.info("worker_started", worker=process, number=number)

    def _run_worker(self, worker: Worker, connection: socket.socket, replaces: bool) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until it serves, there is nothing to drain
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            for each in (worker, *self.workers.values()):
                each.connection.close()  # with a copy left open, no worker would see the supervisor die
            status = self.work(worker.number, connection, replaces)
        except BaseException:
            log.exception("worker_failed")
        finally:
            sys.stdout.flush()
            os._exit(status)  # without the parent's clean-up handlers

    def _reap(self) -> None:
        """Reap each child that has ended; the first process of a container also gets orphans of other processes."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if worker := self.workers.pop(ended[0], None):
                    self._replace(ended[0], worker, ended[1])

    def _replace(self, process: int, worker: Worker, status: int) -> None:
        worker.peer.close()
        self.connections[worker.number] = NOT_SERVING
        if self.stopping:
            self.failed = self.failed or status != 0
            self.due.put_nowait(None)
            return
        log.error("worker_died", worker=process, number=worker.number, status=os.waitstatus_to_exitcode(status))
        delay = BACK_OFF_SECONDS if time.monotonic() - worker.started_at < BACK_OFF_SECONDS else 0
        self.loop.call_later(delay, self.due.put_nowait, (worker.number, True))

    def _stop(self, number: signal.Signals) -> None:
        """Tell every worker to drain; the second time, kill them and exit at once."""
        if self.stopping:
            self._kill(128 + number)
        self.stopping = True
        self.due.put_nowait(None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closing terminal sends it twice, and so does systemd
        self.loop.call_later(self.grace + EXTRA_SECONDS, self._kill_late)
        self._send(signal.SIGTERM)

    def _kill_late(self) -> None:
        for process, worker in self.workers.items():
            log.error("worker_killed", worker=process, number=worker.number, seconds=self.grace + EXTRA_SECONDS)
        self._kill(UNFINISHED)

    def _kill(self, status: int) -> NoReturn:
        """Kill the remaining workers and exit at once."""
        self._send(signal.SIGKILL)
        os._exit(status)

    def _send(self, number: signal.Signals) -> None:
        for process in self.workers:
            with suppress(ProcessLookupError):  # it has died just now
                os.kill(process, number)

    async def _answer(self, _: Peer, request: Message) -> Message:
        """Reply to a worker's request, which concerns all workers."""
        match request.kind:
            case "ready":
                replies = await self._ask_all(request, ALIVE_SECONDS)
                unready = [
                    f"worker {number}: {each.sentence}" for number, each in replies.items() if each and each.error
                ]
                sentence = "; ".join(filter(None, (_silent(replies), *unready)))
                return Message(error="NotReady" if sentence else None, sentence=sentence)
            case "metrics":
                replies = await self._ask_all(request, COLLECTING_SECONDS)
                return Message(metrics=[text for reply in replies.values() if reply for text in reply.metrics])
            case "load" | "unload":
                if request.kind == "unload":
                    await self._ask_all(Message(kind="cancel", name=request.name), CHANGING_SECONDS)
                async with self.changing:
                    return await self._change(request)
            case "polled" if not self.changing.locked():  # else the next one tells the result of the change
                polled = request.versions.items()
                self.versions |= {name: versions for name, versions in polled if name not in self.unloaded}
        return Message()

    async def _change(self, request: Message) -> Message:
        """Make a change in every worker; a load says which versions."""
        name, loads = request.name, request.kind == "load"
        replies = await self._ask_all(Message(kind="ping"), ALIVE_SECONDS)
        if silent := _silent(replies):
            return Message(error="NotReady", sentence=f"{silent}, so nothing is changed")
        # A worker that is forked during the change is not sent it: it starts with both the old and the new versions.
        before = self.versions.pop(name, [])
        if loads:
            self.versions[name] = sorted({*before, *request.versions[name]})
            self.unloaded.discard(name)
        else:
            self.unloaded.add(name)
        replies = await self._ask_all(request, CHANGING_SECONDS)
        if silent := _silent(replies):
            may = "not have loaded" if loads else "still serve"
            return Message(error="NotReady", sentence=f"{silent} and may {may} model {shown(name)}")
        if errors := {reply.sentence: reply.error for reply in replies.values() if reply and reply.error}:
            kinds = set(errors.values())
            return Message(error=kinds.pop() if len(kinds) == 1 else "LoadFailed", sentence="; ".join(errors))
        self.versions |= request.versions
        return Message()

    async def _ask_all(self, request: Message, seconds: float) -> dict[int, Message | None]:
        """Return each worker's reply by its number, ascending: None if it is silent, an empty reply if it died."""
        workers = sorted(self.workers.values(), key=lambda each: each.number)
        replies = await asyncio.gather(*(worker.peer.ask(request, seconds) for worker in workers))
        return {worker.number: reply for worker, reply in zip(workers, replies, strict=True)}


def _silent(replies: dict[int, Message | None]) -> str:
    return "; ".join(f"worker {number} does not answer" for number, reply in replies.items() if reply is None)
