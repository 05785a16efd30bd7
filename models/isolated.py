"""Processes for work that may never end, or may end its process: how they start, what bounds them, and how they end.

`call` runs a function in an interpreter of its own, and `ForkServer` in processes that are forked from one which has
imported what they need. Neither is multiprocessing's: that would import the caller's `__main__` in the child, so that a
script without a guard runs itself again, and unpickle in this process what the child answers, which after a hostile
file may be anything. Here both directions are JSON and NumPy's own format.

A fork server has one thread, so that it can fork safely, and never looks into what it is given. For each call it forks
a watcher, which forks the process that works, and bounds its time and memory. Both write into the connection of the
call, of which the first line is the answer. A caller that closes its connection gives the call up, and the watcher
kills the process that works.

Why not multiprocessing's fork server: it cannot begin as a fork of this process, but imports everything again, which
doubles the time until a server is ready; and it needs a folder that can be written, which a container may not have.

    python -m spikeserve.models.isolated                       one call, by the standard input
    python -m spikeserve.models.isolated MODULE:FUNCTION …     a fork server that begins with calling that function
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, is_dataclass
from functools import partial
from io import BufferedIOBase, BytesIO
from mmap import PAGESIZE
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

import numpy as np
from numpy.lib import format as npy

from spikeserve.models import door
from spikeserve.models.errors import EngineUnavailable, SpikeserveError

INHERITED = ("HOME", "LANG", "OPENBLAS_NUM_THREADS", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV")
INHERITED_PREFIXES = ("DYLD_", "LC_", "LD_", "OMP_", "PYTHON", door.LET_IN)  # whose folder begins so too
PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that a process gets when the thread that forked it has ended

WATCH_SECONDS = 0.02  # how often memory and time are looked at; a core fills some 50 MB of memory meanwhile
IDLE_SECONDS = 10.0  # after which a fork server ends that has no calls
MAX_SENTENCE, MAX_TRACEBACK = 2_000, 8_000  # characters
COMMAND = (sys.executable, "-P", "-m", __name__)
MARK = "\0"  # the key of what JSON has not; nothing that is read of files has such a name

Stream: TypeAlias = IO[bytes] | BufferedIOBase


class NoAnswer(Exception):
    """A process that ended without an answer; the message says how."""


def environment() -> dict[str, str]:
    """Return the environment for it: it finds what this process finds, wherever that was started.

    NumPy's threads would only reserve memory, and a process that has threads is not forked safely.
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Limits:
    """What a process may take: seconds, and bytes of memory.

    For `call`, the seconds also bound the time of a core, and the bytes are of addresses, its libraries' included. For
    a fork server, the bytes are those really used (the resident set) beside the server's own. A bound on addresses
    would have to leave room for what libraries only reserve, which for CUDA is more than any machine has.
    """

    seconds: float
    memory: int


def call(
    function: Callable[..., Any],
    *arguments: Any,
    limits: Limits,
    refused: type[SpikeserveError],
    env: Mapping[str, str] | None = None,
) -> Any:
    """Call a function in a new Python process, within limits, and return its answer.

    Arguments and answer may be None, numbers, text, bytes and NumPy arrays, in dictionaries with text as keys, lists
    and data classes; a tuple arrives as a list, and a data class as a dictionary of its fields. The process inherits no
    file and, unless `env` is given, of the environment only what it needs to start (INHERITED), so no key. It costs
    0.1 s and the function's imports.

    Raises EngineUnavailable if the function does, `refused` with the sentence of any other SpikeserveError that the
    function raises, MemoryError, TimeoutError once
    it has run for `limits.seconds`, and NoAnswer where the process ends otherwise.
    """
    own = environment().items()
    env = env or {name: value for name, value in own if name in INHERITED or name.startswith(INHERITED_PREFIXES)}
    with tempfile.TemporaryFile() as answer:  # which takes as much room as the answer
        try:
            ended = subprocess.run(  # noqa: S603
                COMMAND,
                env=env,
                input=_request(function, arguments, limits),
                stdout=answer,
                stderr=subprocess.PIPE,
                timeout=limits.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").splitlines()[-1:]
            raise NoAnswer(": ".join([f"exit status {ended.returncode}", *said]))
        answer.seek(0)
        return _returned(answer, refused)


class ForkServer:
    """A process that forks one for each call, in milliseconds; it starts with the first call, or by `fork`.

    `prepare` is called in it before, by its name: it imports what the calls need. The server ends once it has had no
    call for a while, as it takes some 200 MB and a second to start again. Event loops of several threads may call.
    """

    def __init__(self, prepare: Callable[..., None], *arguments: str) -> None:
        self.arguments = f"{prepare.__module__}:{prepare.__name__}", *arguments
        # The process, and the socket by which each call's connection is passed to it.
        self.running: tuple[int, socket.socket] | None = None
        self.calls = 0  # that go on
        self.used = 0.0  # when the last call ended, by `monotonic`
        self.lock = threading.Lock()
        atexit.register(self.close)  # it may be in `prepare` for long

    async def call(
        self, function: Callable[..., Any], *arguments: Any, limits: Limits, refused: type[SpikeserveError]
    ) -> Any:
        """Call a function in a forked process, within limits; where this is cancelled, that is killed.

        Arguments, answer and what is raised are those of `isolated.call`, but that the answer holds no array; a
        MemoryError holds the bytes beyond the limit, if any. The process has the environment of the server, which is
        this process's. Raises OSError where no server can be started, and RuntimeError with the traceback of any other
        exception. Where processes cannot fork (Windows), each call starts an interpreter of its own, and is not killed
        where this is cancelled.
        """
        import asyncio  # the processes that `call` starts do without it

        if not hasattr(os, "fork"):
            env = environment()
            return await asyncio.to_thread(call, function, *arguments, limits=limits, refused=refused, env=env)
        connection = self._connect()
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            with closing(writer):
                writer.write(_request(function, arguments, limits))
                answer = await reader.readline()
        except ConnectionError:
            answer = b""
        except ValueError:  # it is longer than such a line may be
            answer = b"null"
        finally:
            with self.lock:
                self.calls -= 1
                self.used = time.monotonic()
            asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_if_idle)
        if not answer:
            raise NoAnswer("ended with its server")
        return _returned(BytesIO(answer), refused)

    def _connect(self) -> socket.socket:
        """Begin a call: return this end of its connection, and pass the other end to the server."""
        with self.lock:
            if self.running is None:
                self.running = self._start()
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(self.running[1], [b"."], [theirs.fileno()])
                except BrokenPipeError:  # it has been killed
                    self.close()
                    self.running = self._start()
                    socket.send_fds(self.running[1], [b"."], [theirs.fileno()])
            self.calls += 1
        return ours

    def fork(self) -> None:
        """Start it now as a fork of this process, which then need not import anything, unless other threads run here.

        It closes every file but the standard ones, which would otherwise stay open when this process closes them.
        """
        with self.lock:
            if self.running is None and threading.active_count() == 1 and hasattr(os, "fork"):
                self.running = self._start(forks=True)

    def _start(self, *, forks: bool = False) -> tuple[int, socket.socket]:
        control, standard_input = socket.socketpair()
        with standard_input:
            number = standard_input.fileno()
            if not forks:
                # In a group of its own: a signal to the group of this process must not end calls.
                arguments, files = [*COMMAND, *self.arguments], [(os.POSIX_SPAWN_DUP2, number, 0)]
                process = os.posix_spawn(COMMAND[0], arguments, environment(), file_actions=files, setpgroup=0)
            elif (process := os.fork()) == 0:
                self._serve_here(number)
        return process, control

    def _serve_here(self, standard_input: int) -> NoReturn:
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(standard_input, 0)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            _serve_forks(*self.arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def _end_if_idle(self) -> None:
        with self.lock:
            if not self.calls and time.monotonic() - self.used >= IDLE_SECONDS:
                self.close()

    def close(self) -> None:
        """Kill the server, and so what it has forked."""
        if self.running is not None:
            (process, control), self.running = self.running, None
            control.close()
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _request(function: Callable[..., Any], arguments: Sequence[Any], limits: Limits) -> bytes:
    stream = BytesIO()
    _write([limits, function.__module__, function.__name__, *arguments], stream)
    return stream.getvalue()


def _returned(stream: Stream, refused: type[SpikeserveError]) -> Any:
    """Return the value that a process returned, or raise the error that came of it instead."""
    errors = {"refused": refused, "unavailable": EngineUnavailable, "fault": RuntimeError, "ended": NoAnswer}
    errors |= {"late": TimeoutError, "memory": MemoryError}
    try:
        outcome, value = _read(stream)
        if outcome == "returned":
            return value
        error = errors[outcome](value)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as why:
        raise NoAnswer("it wrote no answer that can be read") from why
    raise error


def _serve_call() -> None:
    """Answer the call that comes by the standard input."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    limits, *called = _read(BytesIO(sys.stdin.buffer.read()))
    if sys.platform == "linux":
        # The process that waits for the answer has a limit of its own; that of time ends this one if it is gone.
        _bound(AS=limits["memory"], CPU=int(limits["seconds"]) + 1, CORE=0)
    with stream:
        _write(_answer(*called), stream)


def _answer(module: str, name: str, *arguments: Any) -> tuple[str, Any]:
    """Call a function, and return its outcome: "returned" with the value, or the kind of an error with its argument."""
    try:
        if module.startswith(door.LOOSE):
            door.opened()  # which imports it
        return "returned", getattr(importlib.import_module(module), name)(*arguments)
    except SpikeserveError as error:
        kind = "unavailable" if isinstance(error, EngineUnavailable) else "refused"
        return kind, str(error)[:MAX_SENTENCE]
    except MemoryError:
        return "memory", None


def _serve_forks(prepare: str, *arguments: str) -> None:
    """Prepare, then fork a watcher for each connection that comes by the standard input, until that ends."""
    for number in (signal.SIGINT, signal.SIGHUP):  # its parent decides when it ends
        signal.signal(number, signal.SIG_IGN)
    gc.disable()
    module, _, name = prepare.partition(":")
    getattr(importlib.import_module(module), name)(*arguments)
    gc.freeze()  # collecting garbage in a forked process would copy the pages of what was imported
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what it forks
    server = os.getpid()
    with socket.socket(fileno=0) as control:
        while connections := socket.recv_fds(control, 1, 1)[1]:
            with socket.socket(fileno=connections[0]) as connection, connection.makefile("rwb") as stream:
                _fork(partial(_watch, server, connection, stream), stream)


def _fork(work: Callable[[], None], stream: Stream) -> int:
    """Fork a process that does some work and ends, at the latest with this process; return its id.

    Returns 0, with that as the answer of the call, where the system lets no process start.
    """
    parent = os.getpid()
    try:
        process = os.fork()
    except OSError as error:
        _write(("ended", f"could not be made: {error.strerror}"), stream)
        return 0
    if process == 0:
        try:
            end_with_parent(parent)
            work()
        finally:
            os._exit(0)
    return process


def _watch(server: int, connection: socket.socket, stream: Stream) -> None:
    """Have the call that comes by a connection answered in another process, within its limits."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    limits, *called = _read(stream)
    if not (process := _fork(partial(_work, called, connection, stream), stream)):
        return
    ends, most = time.monotonic() + limits["seconds"], resident(server) + limits["memory"]
    answer: tuple[str, Any] | None = None
    # The connection can be read from once it is answered and shut down, or nobody waits for the answer.
    while not (answer or select.select([connection], [], [], WATCH_SECONDS)[0]):
        if time.monotonic() > ends:
            answer = "late", None
        elif (excess := resident(process) - most) > 0:
            answer = "memory", excess
        elif (ended := os.waitpid(process, os.WNOHANG))[0]:
            _write(("ended", _ended(os.waitstatus_to_exitcode(ended[1]))), stream)
            return
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    if answer:
        _write(answer, stream)


def _work(called: list[Any], connection: socket.socket, stream: Stream) -> None:
    """Call a function, and answer the call."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1):
        os.dup2(nothing, file)
    _bound(CORE=0)
    try:
        answer = _answer(*called)
    except Exception:
        answer = "fault", traceback.format_exc()[-MAX_TRACEBACK:]
    _write(answer, stream)
    connection.shutdown(socket.SHUT_RDWR)  # nobody has to wait until the process's memory is given back


def resident(process: int) -> int:
    """Return how many bytes of memory a process uses now; 0 if it has ended, or where that is not known."""
    try:
        return int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * PAGESIZE
    except (OSError, IndexError):
        return 0


def _ended(status: int) -> str:
    """Say how a process ended without an answer."""
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL); most likely the machine ran out of memory"
    if status < 0:
        return f"crashed ({signal.strsignal(-status)})"
    return f"ended without an answer (exit status {status})"


def _write(value: Any, stream: Stream) -> None:
    """Write a line of JSON, in which marks stand for arrays and bytes, then each of them in NumPy's own format."""
    arrays: list[Any] = []

    def marked(value: Any) -> Any:
        if is_dataclass(value):
            return vars(value)
        if isinstance(value, bytes):
            arrays.append(np.frombuffer(value, np.uint8))
            return {MARK: "bytes"}
        if np.asarray(value).dtype == object:
            return {MARK: value.tolist()}
        arrays.append(np.asarray(value))
        return {MARK: "array"}

    stream.write(json.dumps(value, default=marked).encode() + b"\n")
    for array in arrays:
        npy.write_array(stream, array, allow_pickle=False)
    stream.flush()


def _read(stream: Stream) -> Any:
    """Read what `_write` wrote; the arrays come in the order of their marks."""

    def unmarked(fields: dict[str, Any]) -> Any:
        if MARK not in fields:
            return fields
        if isinstance(fields[MARK], list):
            return np.array(fields[MARK], object)
        array = npy.read_array(stream, allow_pickle=False)
        return array.tobytes() if fields[MARK] == "bytes" else array[()]

    return json.loads(stream.readline(), object_hook=unmarked)


def _bound(**most: int) -> None:
    """Bound this process's resources, by their names, and have Linux end it before any other if memory runs out."""
    import resource

    for name, limit in most.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        with suppress(ValueError):  # it may have no more than is less
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def end_with_parent(parent: int) -> None:
    """Have this process killed once its parent, whose process id is given, has ended; does nothing where not on Linux.

    The parent must have one thread only: the kernel watches the thread that forked.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told to watch it
        os._exit(1)


if __name__ == "__main__":
    _serve_forks(*sys.argv[1:]) if sys.argv[1:] else _serve_call()
