"""The processes in which versions are verified before this process loads them.

A bundle can make its reader take any time and memory, or end it. So each is verified in a process of its own, which is
killed where it takes more time or memory than the settings allow; where its memory cannot be read (not on Linux), only
the time is bounded. One fork server for each engine makes them, which has imported all that they need.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

from spikeserve.models.engines.compiling import Compiler
from spikeserve.models.errors import EngineUnavailable
from spikeserve.models.isolated import ForkServer, Limits, NoAnswer
from spikeserve.service.catalog.engine_choice import candidates, compiles_first, meanwhile
from spikeserve.service.catalog.loaded import Verification, verify
from spikeserve.service.errors import EngineFailed, LoadFailed
from spikeserve.service.settings import Settings, available_cores

AT_ONCE = 8  # versions that are verified at the same time, which bounds their memory
SIDE_BY_SIDE = min(4, max(2, available_cores()))  # of them that hold a place, so that all loads get on
PLACE_SECONDS = 5.0  # after which a load no longer holds its place: a long one must not delay the others
NEEDED = {"repository", "gallery", "engine", "device", "max_time_steps", "max_model_bytes"}


def verified(name: str, version: int, settings: Mapping[str, Any], engines: Sequence[str]) -> dict[str, Any]:
    """Verify a version, as these settings say, on the first of these engines that can run it; a forked process does."""
    return verify(name, version, Settings(**settings), engines).model_dump(mode="json")


_servers: dict[str, ForkServer] = {}  # one process may hold several apps, such as that of the tests


class LoadProcesses:
    """Verifies versions in processes of their own, for one loader; `prepare_engine` makes an engine of a name ready.

    They run on one of `engines`, the best first. While kernels are to be compiled, those are others, unless it `waits`,
    and there is a `compiler`.
    """

    def __init__(self, settings: Settings, prepare_engine: Callable[[str], None], *, waits: bool = False) -> None:
        others = () if waits else meanwhile(settings)
        self.compiler = Compiler(prepare_engine) if others else None
        self.engines = others or candidates(settings)
        self.engine = engine = self.engines[0]
        if engine not in _servers:
            _servers[engine] = ForkServer(prepare_engine, engine)
        self.server, self.prepare_engine = _servers[engine], prepare_engine
        self.settings = settings.model_dump(mode="json", include=NEEDED)
        self.settings["repository"] = str(settings.folder.absolute())
        self.limits = Limits(settings.load_seconds, settings.max_model_bytes)
        self.all, self.places = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(SIDE_BY_SIDE)

    def prepare(self) -> None:
        """Fetch the engine's kernels, unless they have to be compiled: what this process forks has them too.

        What fails here fails again when a version is loaded, and is named there.
        """
        if self.engine == "event" and not compiles_first(self.engine):
            with suppress(Exception):
                self.prepare_engine(self.engine)

    def fork(self) -> None:
        """Fork the server of this process, which has imported what it needs; see `ForkServer.fork`."""
        # Libraries of others have threads, or devices that no fork can use; meanwhile, they are not imported yet.
        if self.engine in ("event", "reference") or self.compiler:
            self.server.fork()

    async def verify(self, name: str, version: int) -> Verification:
        """Verify a version; where this is cancelled, its process is killed.

        Raises LoadFailed with a sentence for anything that the bundle did, EngineFailed where another engine may do
        better, RuntimeError with a traceback for a fault of ours.
        """
        async with self._place():
            try:
                answer = await self.server.call(
                    verified, name, version, self.settings, self.engines, limits=self.limits, refused=LoadFailed
                )
            except EngineUnavailable as error:
                raise EngineFailed(str(error)) from error
            except TimeoutError as error:
                late = f"loading it took longer than {self.limits.seconds:g} s (load_seconds) and was stopped"
                raise EngineFailed(late) from error
            except MemoryError as error:
                raise EngineFailed(_too_much(*error.args)) from error
            except NoAnswer as error:
                raise EngineFailed(f"the process that loaded it {error}") from error
            except OSError as error:
                raise LoadFailed(f"the process that loads models cannot be started: {error.strerror}") from error
        return Verification.model_validate(answer)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for a place among the loads, in the order of those that wait."""
        async with self.all:
            await self.places.acquire()
            with ExitStack() as place:
                place.callback(self.places.release)
                place.callback(asyncio.get_running_loop().call_later(PLACE_SECONDS, place.close).cancel)
                yield


def _too_much(excess: int | None = None) -> str:
    if excess is None:
        return "loading it takes more memory than the system gives"
    return f"loading it took at least {excess} bytes more than max_model_bytes and was stopped"
