"""Processes that run the contestants, one for each number of threads.

Most libraries take their number of threads once, when they start, and a pool of one that still spins would slow the
next; so each number has a process of its own. While one of them is timed, the other waits.
"""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.contestants.base import Skipped
from spikeserve.models.coding import DenseInputs
from spikeserve.models.spec.network import Network

# NPROC is XLA's; it has no other way to be told.
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
TURN_SECONDS = 0.02  # how long a contestant runs before it is another's turn, if one run is shorter
TURN_RUNS = 20
SETTLE_SECONDS = 0.002  # what a turn waits for threads that still spin after the one before
SLOW_SECONDS = 0.2  # a run that takes longer needs no untimed one before it


@dataclass(frozen=True)
class Ready:
    """A contestant that ran once, and the result of that: in `benchmarks.contestants` its counts (batch, classes)."""

    result: Any


@dataclass(frozen=True)
class Absent:
    """A contestant that did not run, and why."""

    reason: str


class Worker:
    """A process that prepares contestants and times them, one command after the other.

    `package` names the package of the contestants. It has `Job`, made of the network, the inputs, the number of threads
    and what else `load` is given; `prepare`, which returns a contestant's run; and `result`, which calls a run for the
    first time and returns what is to be compared.
    """

    def __init__(self, threads: int, package: str = "benchmarks.contestants") -> None:
        self.threads = threads
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, threads, package), daemon=True)
        with _pools(threads):
            self._process.start()
        theirs.close()

    def load(self, network: Network, inputs: DenseInputs, *more: Any) -> None:
        """Take a network, inputs and what else a job needs for all that follows, and let go of those before."""
        self._pipe.send(("load", network.spec, dict(network.tensors), inputs, *more))

    def prepare(self, contestant: str) -> None:
        """Begin to prepare a contestant; `prepared` waits for it."""
        self._pipe.send(("prepare", contestant))

    def prepared(self) -> Ready | Absent:
        """Return the result of `prepare`."""
        answer: Ready | Absent = self._pipe.recv()
        return answer

    def turn(self, contestant: str) -> list[float]:
        """Run a contestant that is ready for a short while; return the seconds that each run took."""
        self._pipe.send(("turn", contestant))
        seconds: list[float] = self._pipe.recv()
        return seconds

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=5)
        self._process.kill()


@contextmanager
def _pools(threads: int) -> Iterator[None]:
    """Set what libraries read their number of threads from, for a process that starts meanwhile."""
    before = {name: os.environ.get(name) for name in POOLS}
    os.environ.update(dict.fromkeys(POOLS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _serve(pipe: Connection, threads: int, package: str) -> None:
    """Answer commands until the other end closes."""
    warnings.simplefilter("ignore")  # of other people's libraries
    logging.disable(logging.WARNING)
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    contestants = importlib.import_module(package)
    job: Any = None
    runs: dict[str, Callable[[], Any]] = {}
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return
        if command == "load":
            runs.clear()
            gc.collect()
            spec, tensors, inputs, *more = arguments
            job = contestants.Job(Network(spec, tensors), inputs, threads, *more)
        elif command == "prepare":
            pipe.send(_prepared(contestants, arguments[0], job, runs))
        else:
            pipe.send(_turn(runs[arguments[0]]))


def _prepared(contestants: Any, name: str, job: Any, runs: dict[str, Callable[[], Any]]) -> Ready | Absent:
    try:
        run = contestants.prepare(name, job)
        result = contestants.result(run)
        run()  # some still compile or tune themselves in the second
    except Skipped as reason:
        return Absent(str(reason))
    except Exception as error:  # whatever another's library raises must not end the comparison
        first, *_ = str(error).splitlines() or [""]
        return Absent(f"it failed: {type(error).__name__}: {first}")
    runs[name] = run
    return Ready(result)


def _turn(run: Callable[[], Any]) -> list[float]:
    time.sleep(SETTLE_SECONDS)
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    if first > SLOW_SECONDS:
        return [first]
    seconds: list[float] = []
    while sum(seconds) < TURN_SECONDS and len(seconds) < TURN_RUNS:
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds
