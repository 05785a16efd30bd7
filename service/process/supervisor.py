"""Several processes that serve one port: started, replaced when one dies, and ended together.

They share one listening socket, and not a port with a socket for each: a connection that waits to be accepted belongs
to none of them, so that a worker that is killed takes only those with it that it was answering. The one in its place
accepts connections once its models are loaded. Each worker holds the other end of a pipe: should this process be
killed, the pipe ends and the workers drain. They meet in a folder (`service.process.fellows`), each by its number.

A signal may come to a worker from this process and from outside, as where it is sent to the whole group: it drains,
however often it is asked. To end one that does not is for this process: at a second signal, or when its time is over.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import structlog

from service.process.fellows import make_again

ASKED_TO_STOP = {signal.SIGTERM, signal.SIGINT}
SPARE_SECONDS = 2  # what a worker has beyond the grace period, after which it ends by itself unless it hangs
UNFINISHED = 1  # the exit status where a worker did not end well
SHORTEST_LIFE = 1.0  # seconds; who lives less is replaced only after as long, lest the machine do nothing else

log = structlog.get_logger()

# Of a worker: from its number, the pipe and whether it replaces another to the exit status.
Work = Callable[[int, int, bool], int]


@dataclass(frozen=True)
class Born:
    """A worker's number, and when it was started."""

    number: int
    at: float


class Supervisor:
    """Keeps a number of worker processes running, which meet in `folder` and have a `grace` in seconds to drain."""

    def __init__(self, workers: int, folder: Path, grace: float, work: Work) -> None:
        self.workers = workers
        self.folder = folder
        self.grace = grace
        self.work = work
        self.born: dict[int, Born] = {}  # the workers that live, by process
        self.stopping = False
        self.reader, self.writer = os.pipe()

    def run(self) -> int:
        """Serve until a signal says to stop; return 0 if every worker ended well after that."""
        for asked in ASKED_TO_STOP:
            signal.signal(asked, self._stop)
        signal.signal(signal.SIGALRM, self._time_is_over)
        for number in range(self.workers):
            self._start(number, replaces=False)
        failed = False
        while self.born:
            worker, status = os.waitpid(-1, 0)
            born = self.born.pop(worker, None)
            if born is None:
                continue  # none of ours: a container's first process is given whatever outlives its own parent
            lived = time.monotonic() - born.at
            if self.stopping:
                failed = failed or status != 0
                continue
            log.error("worker_died", worker=worker, number=born.number, status=os.waitstatus_to_exitcode(status))
            time.sleep(SHORTEST_LIFE if lived < SHORTEST_LIFE else 0)
            self._start(born.number, replaces=True)
        return UNFINISHED if failed else 0

    def _start(self, number: int, *, replaces: bool) -> None:
        """Start a worker, unless it is time to stop."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_TO_STOP)  # one that came now would miss the new worker
        try:
            if self.stopping:
                return
            make_again(self.folder)  # where somebody cleared the place of temporary files
            worker = os.fork()
            if worker == 0:
                self._be_a_worker(number, replaces)
            self.born[worker] = Born(number, time.monotonic())
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_STOP)
        log.info("worker_started", worker=worker, number=number)

    def _be_a_worker(self, number: int, replaces: bool) -> None:
        status = 1
        try:
            os.close(self.writer)
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until it serves there is nothing to drain
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_STOP)
            status = self.work(number, self.reader, replaces)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("worker_failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # what the parent has set up is the parent's to take down

    def _stop(self, number: int, _: FrameType | None) -> None:
        """Ask every worker to drain; the second time, end them and this process at once."""
        again, self.stopping = self.stopping, True  # first of all, since a second signal may come in between
        if again:
            self._end(128 + number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes sends it twice, and so does systemd
        signal.setitimer(signal.ITIMER_REAL, self.grace + SPARE_SECONDS)
        self._send(signal.SIGTERM)

    def _time_is_over(self, _: int, __: FrameType | None) -> None:
        for worker, born in self.born.items():
            log.error("worker_killed", worker=worker, number=born.number, seconds=self.grace + SPARE_SECONDS)
        self._end(UNFINISHED)

    def _end(self, status: int) -> NoReturn:
        """End the workers that are left and this process at once."""
        self._send(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(status)

    def _send(self, number: signal.Signals) -> None:
        for worker in self.born:
            with suppress(ProcessLookupError):  # it has died just now
                os.kill(worker, number)
