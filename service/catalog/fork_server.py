"""The fork server, a process that forks one process for each version to be loaded: there the version is verified.

A bundle can make its reader take any time and memory, or end it. So each is verified in a process of its own, which is
killed where it takes more time or memory than the settings allow. This server has imported all that they need and has
the kernels compiled, so that such a process starts in milliseconds, and has one thread, so that it can fork safely. It
never looks into a bundle, so that nothing in one can stop it.

The memory that is watched is what a process really uses, its resident set. A bound on its addresses (RLIMIT_AS) would
have to leave room for what libraries only reserve, which for CUDA is more than any machine has. Where it cannot be
read (not on Linux), only the time is bounded.

`python -m spikeserve.service.catalog.fork_server ENGINE` reads lines of JSON from its standard input,

    {"number": 1, "name": "digits", "version": 1, "settings": {…}}    verify a version, as these settings say
    {"cancel": 1}                                                     stop that

and writes one line to its standard output for each version that was not cancelled: {"number": 1, "answer": answer}. An
answer is {"verified": …}, {"refused": sentence} or {"fault": traceback}. When its input ends, since its parent has
ended or needs it no more, it kills what still runs and ends.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from spikeserve.models.engines.declared import EngineName
from spikeserve.models.errors import SpikeserveError
from spikeserve.models.isolated import end_with_parent
from spikeserve.service.catalog.loaded import verify
from spikeserve.service.settings import Settings, available_cores

SIDE_BY_SIDE = min(4, max(2, available_cores()))  # processes that hold a place, so that all loads get on
PLACE_SECONDS = 5.0  # after which a process no longer holds its place: a long load must not delay the others
WATCH_SECONDS = 0.02  # how often time and memory are looked at; a core fills some 50 MB of memory meanwhile
MAX_ANSWER_BYTES = 2**16
MAX_SENTENCE, MAX_TRACEBACK = 2_000, 8_000  # characters
PAGE = resource.getpagesize()


@dataclass
class Load:
    """A version that is being verified: its process, the pipe of its answer, and its limits."""

    number: int
    process: int
    pipe: int
    seconds: float
    most_resident: int
    began: float = field(default_factory=time.monotonic)
    answer: bytes = b""

    @property
    def age(self) -> float:
        """How many seconds it has run."""
        return time.monotonic() - self.began


class ForkServer:
    """Forks processes for the lines that it reads, watches them, and writes their answers."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.waiting: list[Mapping[str, Any]] = []
        self.loads: dict[int, Load] = {}
        self.incoming = b""

    def serve(self) -> None:
        """Serve until the input ends."""
        self.selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select(WATCH_SECONDS if self.loads else None):
                if key.data is None:
                    if not self._read_requests():
                        return self._end()
                elif key.data.number in self.loads:  # not cancelled by a request that was read just now
                    self._read_answer(key.data)
            for load in list(self.loads.values()):
                self._watch(load)
            while self.waiting and sum(load.age < PLACE_SECONDS for load in self.loads.values()) < SIDE_BY_SIDE:
                self._fork(self.waiting.pop(0))

    def _end(self) -> None:
        for load in self.loads.values():
            os.kill(load.process, signal.SIGKILL)

    def _read_requests(self) -> bool:
        """Read what has come; return whether there may be more."""
        found = os.read(0, 2**16)
        *lines, self.incoming = (self.incoming + found).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "cancel" not in request:
                self.waiting.append(request)
                continue
            number = request["cancel"]
            self.waiting = [each for each in self.waiting if each["number"] != number]
            if number in self.loads:
                self._finish(self.loads[number], None)
        return bool(found)

    def _fork(self, request: Mapping[str, Any]) -> None:
        settings = Settings(**request["settings"])
        reading, writing = os.pipe()
        server = os.getpid()
        try:
            process = os.fork()
        except OSError as error:
            os.close(reading)
            os.close(writing)
            _write(request["number"], {"refused": f"no process could be made to load it: {error.strerror}"})
            return
        if process == 0:
            _verify(server, writing, request["name"], request["version"], settings)
        os.close(writing)
        most = resident(server) + settings.max_model_bytes
        load = Load(request["number"], process, reading, settings.load_seconds, most)
        self.loads[load.number] = load
        self.selector.register(reading, selectors.EVENT_READ, load)

    def _read_answer(self, load: Load) -> None:
        found = os.read(load.pipe, 2**16)
        load.answer += found
        if not found or len(load.answer) > MAX_ANSWER_BYTES:
            self._finish(load, "")

    def _watch(self, load: Load) -> None:
        if load.age > load.seconds:
            self._finish(load, f"loading it took longer than {load.seconds:g} s (load_seconds) and was stopped")
        elif (found := resident(load.process)) > load.most_resident:
            excess = found - load.most_resident
            self._finish(load, f"loading it took at least {excess} bytes more than max_model_bytes and was stopped")

    def _finish(self, load: Load, sentence: str | None) -> None:
        """Kill a process that still runs, and write its answer: `sentence`, its own for "", and nothing for None."""
        del self.loads[load.number]
        self.selector.unregister(load.pipe)
        os.close(load.pipe)
        with suppress(ProcessLookupError):
            os.kill(load.process, signal.SIGKILL)
        _, status = os.waitpid(load.process, 0)
        if sentence is None:
            return
        if sentence:
            _write(load.number, {"refused": sentence})
        elif load.answer.endswith(b"\n"):
            _write(load.number, json.loads(load.answer))
        else:
            _write(load.number, {"refused": f"the process that loaded it {_ended(os.waitstatus_to_exitcode(status))}"})


def resident(process: int) -> int:
    """Return how many bytes of memory a process uses now; 0 if it has ended, or where that is not known."""
    try:
        return int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _ended(status: int) -> str:
    """Say how a process ended without an answer."""
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL); most likely the machine ran out of memory"
    if status < 0:
        return f"crashed ({signal.strsignal(-status)})"
    return f"ended without an answer (exit status {status})"


def _verify(server: int, pipe: int, name: str, version: int, settings: Settings) -> NoReturn:
    """In the forked process: verify a version, write the answer and end."""
    try:
        end_with_parent(server)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(nothing, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # the kernel kills it first where memory runs out, rather than the server
            Path("/proc/self/oom_score_adj").write_text("1000")
        with os.fdopen(pipe, "wb") as stream_of_answer:
            stream_of_answer.write(json.dumps(_answer(name, version, settings)).encode() + b"\n")
    finally:
        os._exit(0)


def _answer(name: str, version: int, settings: Settings) -> dict[str, Any]:
    try:
        return {"verified": verify(name, version, settings).model_dump(mode="json")}
    except SpikeserveError as error:
        return {"refused": str(error)[:MAX_SENTENCE]}
    except MemoryError:
        return {"refused": "loading it takes more memory than the system gives"}
    except Exception:
        return {"fault": traceback.format_exc()[-MAX_TRACEBACK:]}


def _write(number: int, answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps({"number": number, "answer": answer}) + "\n")
    sys.stdout.flush()


def main(engine: str) -> None:
    """Import what the engine needs, have its kernels compiled, and serve."""
    for number in (signal.SIGINT, signal.SIGHUP):  # its parent decides when it ends
        signal.signal(number, signal.SIG_IGN)
    with suppress(ImportError):  # the processes say so in a sentence, or run another engine
        if engine == EngineName.EVENT:
            from spikeserve.models.engines.event.warm import compile_kernels
            from spikeserve.service.catalog.rows import compile_reader

            compile_kernels()
            compile_reader()
        elif engine == EngineName.ONNX:
            import spikeserve.models.engines.onnx.engine
        elif engine == EngineName.TORCH:
            import spikeserve.models.engines.torch.engine  # noqa: F401
    gc.freeze()  # collecting garbage in a forked process would copy the pages of what was imported
    with suppress(BrokenPipeError):  # the parent has ended
        ForkServer().serve()


if __name__ == "__main__":
    main(sys.argv[1])
