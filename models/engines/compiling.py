"""Who compiles the kernels of the event engine: one process of a machine, which holds the lock of their folder.

Nothing here imports Numba, so that another engine can answer meanwhile without waiting for that.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from threading import Event, RLock, Thread
from time import monotonic, sleep

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

FOLDER = Path(__file__).parent / "event"
NICE = 10  # of the compiler: who answers meanwhile goes first
PYTHON = (sys.executable, "-P", "-c")
HELD = 3  # the descriptor by which it holds the lock
TRIES = 2  # compilers that are started, where the first one dies
LOOK_SECONDS, TELL_SECONDS = 0.2, 5.0
STUCK_SECONDS = 300.0  # without a file of kernels, after which a compiler is given up
CLEARED = "\r\x1b[K"  # a line of a terminal
FUNCTIONS = 49  # that the kernels are made of
RUN = "import sys; from spikeserve.models.engines.compiling import compile_beside; compile_beside(*sys.argv[1:])"
BESIDE = "from spikeserve.models.engines.compiling import end_with_input; end_with_input(); "
SECOND = "from spikeserve.models.engines.event import engine; engine.compile_addressed(engine.engine_kernels)"

_one = RLock()  # of this process's threads, one compiles
_locks: list[int] = []  # that this process holds: at most one


def _lock() -> int:
    """Take the lock and return its descriptor; raises BlockingIOError where another process holds it, or OSError."""
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise
    return folder


def _wait_for_lock() -> int:
    """Take the lock; return another descriptor where none is, or its process compiles nothing for STUCK_SECONDS."""
    changed, done = monotonic(), compiled_functions()
    while can_share() and monotonic() - changed < STUCK_SECONDS:
        with suppress(BlockingIOError):
            return _lock()
        sleep(LOOK_SECONDS)
        before, done = done, compiled_functions()
        changed = changed if done == before else monotonic()
    return os.open(os.devnull, os.O_RDONLY)


@contextmanager
def compiling(*, tells: bool = True) -> Iterator[None]:
    """Hold the lock of the folder of kernels: of several processes one compiles, and the others fetch what it made.

    How far that is, standard error says meanwhile if `tells`.
    """
    with _one, ExitStack() as stack:
        if not _locks:
            stack.enter_context(_telling() if tells else nullcontext())
            _locks.append(_wait_for_lock())
            stack.callback(lambda: os.close(_locks.pop()))
            stack.enter_context(_second())
        yield


@contextmanager
def _second() -> Iterator[None]:
    """Have a second process compile as well, in the other order: each fetches what the other made, until they meet."""
    with ExitStack() as stack:
        if (os.cpu_count() or 1) > 1 and can_share():
            command, nothing, pipe = [*PYTHON, BESIDE + SECOND], subprocess.DEVNULL, subprocess.PIPE
            with suppress(OSError):
                second = subprocess.Popen(command, 0, None, pipe, nothing, nothing, env=_environment())  # noqa: S603
                stack.enter_context(second)
                stack.callback(second.kill)
        yield


def end_with_input() -> None:
    """Have this process end once its standard input does: who holds the other end has ended."""
    Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()


@contextmanager
def _telling() -> Iterator[None]:
    """Show how much is compiled when that changes: by a bar at a terminal, else in the log, or a line where is none."""
    over, is_terminal = Event(), sys.stderr is not None and sys.stderr.isatty()

    def tell() -> None:
        told = None
        while not over.wait(LOOK_SECONDS if is_terminal else TELL_SECONDS):
            if (done := compiled_functions()) == told:
                continue
            told, bar, line = done, f"{'█' * (20 * done // FUNCTIONS):░<20}", f"{done} of {FUNCTIONS} functions"
            if is_terminal:
                print(f"{CLEARED}compiling kernels: {bar} {line}", end="", file=sys.stderr, flush=True)
            elif logging.getLogger().hasHandlers():
                logging.getLogger(__name__).info("compiling kernels: %s", line)
            else:
                print(f"compiling kernels: {line}", file=sys.stderr, flush=True)
        if is_terminal:
            print(end=CLEARED, file=sys.stderr, flush=True)

    thread = Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def compiled_functions() -> int:
    """Return how many of the kernels' FUNCTIONS have been compiled since their sources were last written."""
    since = max((source.stat().st_mtime for source in FOLDER.glob("*.py")), default=0)
    codes = (FOLDER / "__pycache__").glob("*.1.nbc")  # the first of each function, which is written after its index
    return min(FUNCTIONS, sum(code.stat().st_mtime > since for code in codes))


def is_compiling() -> bool:
    """Return whether another process compiles kernels now."""
    with suppress(BlockingIOError):
        os.close(_lock())
        return False
    return True


def can_share() -> bool:
    """Return whether kernels can be kept for other processes: on a system and a disk with such locks, not read-only."""
    cache = FOLDER / "__pycache__"
    if fcntl is None or not os.access(cache if cache.exists() else FOLDER, os.W_OK):
        return False
    with suppress(OSError):
        is_compiling()
        return True
    return False


def compiled() -> bool:
    """Return whether the kernels are compiled; says it without Numba, which takes long to import, where none is."""
    if not any((FOLDER / "__pycache__").glob("*.nbi")):
        return False
    from spikeserve.models.engines.event.engine import are_cached

    return are_cached()


class Compiler:
    """Compiles kernels in a process beside this one, which goes on when this one has ended.

    `prepare` compiles them, given the engine's name.
    """

    def __init__(self, prepare: Callable[[str], None]) -> None:
        self.arguments = prepare.__module__, prepare.__name__
        self.process: int | None = None
        self.started = 0

    def begin(self) -> None:
        """Start the process, unless there is one on this machine; it has none of this process's files."""
        with suppress(OSError):  # also where the system lets no process start
            if not can_share():
                return
            lock = _lock()
            self.started += 1
            # The lock is held until it ends. It is in a group of its own, so that a signal to this one does not end it.
            nothing = ((os.POSIX_SPAWN_OPEN, each, os.devnull, os.O_RDWR, 0) for each in range(HELD))
            command, files = [*PYTHON, RUN, *self.arguments], [(os.POSIX_SPAWN_DUP2, lock, HELD), *nothing]
            try:
                self.process = os.posix_spawn(command[0], command, _environment(), file_actions=files, setpgroup=0)
            finally:
                os.close(lock)

    def wait(self, stop: Event, tell: Callable[[int], object] = int) -> bool:
        """Wait until the kernels are compiled, by whatever process; return whether they are.

        They are not where `stop` is set, TRIES processes have ended without them, or another's compiles nothing for
        STUCK_SECONDS. At most every TELL_SECONDS, `tell` gets how many functions are compiled if more are.
        """
        told, done = monotonic(), -1
        changed = told
        while can_share():
            if not self._runs() and not is_compiling():
                if compiled():
                    return True
                if self.started == TRIES:
                    return False
                self.begin()
            if stop.wait(LOOK_SECONDS):
                return False
            if monotonic() - told >= TELL_SECONDS:
                told, before, done = monotonic(), done, compiled_functions()
                if done != before:
                    changed = told
                    tell(done)
            if monotonic() - changed >= STUCK_SECONDS:
                if self.process is None or not self._runs():
                    return False
                os.kill(self.process, signal.SIGKILL)
                changed = monotonic()
        return True

    def _runs(self) -> bool:
        with suppress(ChildProcessError):
            return self.process is not None and os.waitpid(self.process, os.WNOHANG)[0] == 0
        return False


def compile_beside(module: str, prepare: str) -> None:
    """Compile as `Compiler` asks for: its process begins here, and holds the lock."""
    _locks.append(HELD)
    os.nice(NICE)
    with _second():
        getattr(import_module(module), prepare)("event")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # by which a process finds what this one finds
