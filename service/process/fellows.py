"""The other workers of this server: where each is found, how one asks them, and whose turn it is to change something.

Every worker has a number, which the one in its place takes over, and listens on `<folder>/<number>.socket`. A question
is a line of JSON, its answer is another, and with that the connection ends. The folder is the user's own: who can open
it is trusted.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel

from service.errors import Misconfigured, NotReady

MOST_BYTES = 2**26  # of an answer; the metrics of a version take about 10 KB
LONGEST_QUESTION = 2**18
TURN_SECONDS = 0.02  # how often to look whether the turn is free
LOOK_SECONDS = 2.0  # how often to look whether the socket is still there

log = structlog.get_logger()

Answer = TypeVar("Answer", bound=BaseModel)
Answering = Callable[[bytes], Awaitable[BaseModel]]  # from a question's line to its answer


class Fellows:
    """The workers of this server but the one with `number`; there are none where no `folder` is given."""

    def __init__(self, folder: Path | None = None, number: int = 0, workers: int = 1) -> None:
        self.folder = folder
        self.number = number
        self.workers = workers
        self.parent = os.getppid()
        self.server: asyncio.Server | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """Return what tells this worker's metrics from those of its fellows."""
        return {} if self.folder is None else {"worker": str(self.number)}

    async def listen(self, answering: Answering) -> None:
        """Answer what fellows ask from now on."""
        if self.folder is None:
            return

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                told = await answering(await reader.readuntil())
                writer.write(told.model_dump_json().encode() + b"\n")
                await writer.drain()
            except (OSError, EOFError):
                pass  # who asked has gone
            except Exception:
                log.exception("fellow_not_answered")
            finally:
                writer.close()

        self.server = await asyncio.start_unix_server(answer, _socket(self.folder, self.number), limit=LONGEST_QUESTION)

    async def stay(self, answering: Answering) -> None:
        """Listen anew where `join` could not, or somebody clears the place of temporary files; look over and over."""
        while self.folder is not None:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(OSError, NotReady):  # it may be gone again, and then so be it until the next look
                if self.server is None or not _socket(self.folder, self.number).exists():
                    make_again(self.folder)
                    if self.server is not None:
                        self.server.close()
                    async with self.turn():
                        await self.listen(answering)

    def leave(self) -> None:
        """Be asked no more. The last one takes the folder with it, should the process that made it have gone."""
        if self.folder is None or self.server is None:
            return
        self.server.close()
        self.server = None
        _socket(self.folder, self.number).unlink(missing_ok=True)
        if os.getppid() != self.parent:
            with suppress(OSError):  # others are still there
                self.folder.rmdir()

    async def ask(self, question: BaseModel, kind: type[Answer], seconds: float | None = None) -> list[Answer]:
        """Return what the fellows answer, by ascending number, but for those that are not there.

        Those that have not answered after `seconds`, if that is given, are left out.
        """
        answers = await self._ask_all(question, seconds)
        return [kind.model_validate_json(answer) for answer in answers.values() if answer]

    async def silent(self, question: BaseModel, seconds: float) -> list[int]:
        """Ask, and return the numbers of the fellows that run and have not answered after `seconds`."""
        answers = await self._ask_all(question, seconds)
        return [number for number, answer in answers.items() if answer is None]

    async def _ask_all(self, question: BaseModel, seconds: float | None) -> dict[int, bytes | None]:
        """Return each fellow's answer by its number: nothing where it has died, None where it is silent."""
        line = question.model_dump_json().encode() + b"\n"
        numbers = [number for number in range(self.workers) if number != self.number]
        answers = await asyncio.gather(*(self._ask(number, line, seconds) for number in numbers))
        return dict(zip(numbers, answers, strict=True))

    async def _ask(self, number: int, line: bytes, seconds: float | None) -> bytes | None:
        if self.folder is None:
            return b""
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_unix_connection(_socket(self.folder, number), limit=MOST_BYTES)
                try:
                    writer.write(line)
                    return await reader.readuntil()
                finally:
                    writer.close()
        except TimeoutError:
            log.warning("fellow_is_silent", number=number, seconds=seconds)
        except asyncio.LimitOverrunError:
            log.warning("fellow_says_too_much", number=number, most_bytes=MOST_BYTES)
        except (ConnectionError, EOFError):  # it has died, maybe while it was asked; another will join in its place
            return b""
        except OSError:  # it has not come yet, or its socket is gone, or many wait there to be answered
            pass
        return None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until no other worker has its turn, and keep it up to the end of the block or of this process.

        Raises NotReady where the folder is gone, or is another user's.
        """
        if self.folder is None:
            yield
            return
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise NotReady(f"the folder that the workers meet in cannot be opened: {error.strerror}") from error
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                raise NotReady("the folder that the workers meet in is another user's")
            while not _locked(folder):
                await asyncio.sleep(TURN_SECONDS)
            yield
        finally:
            os.close(folder)


@contextmanager
def meeting_place() -> Iterator[Path]:
    """Make the folder, and remove it in the end; raises Misconfigured where none can be made that holds sockets."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="spikeserve-")  # of mode 0700
    except OSError as error:
        raise Misconfigured(
            f"workers: several need a temporary folder, and none can be made: {error.strerror}"
        ) from error
    with folder as name:
        path = Path(name)
        try:
            with socket.socket(socket.AF_UNIX) as trial:
                trial.bind(os.fspath(_socket(path, 1023)))
            _socket(path, 1023).unlink()
        except OSError as error:
            raise Misconfigured(f"workers: several meet at sockets, and '{name}' can hold none: {error}") from error
        yield path


def make_again(folder: Path) -> None:
    """Make the folder where it is gone, and log that, or that it cannot be made."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        log.error("no_meeting_place", error=error.strerror)  # noqa: TRY400  (the sentence says it all)
    else:
        log.warning("meeting_place_made_again", meaning="the folder that the workers meet in had been removed")


def _socket(folder: Path, number: int) -> Path:
    return folder / f"{number}.socket"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
