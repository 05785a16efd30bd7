"""The messages between the supervisor and its workers, and the control that a worker's routes use.

Each worker shares a socket pair with the supervisor, on which either end sends requests and replies as lines of JSON.
When a client asks a worker for something that concerns the whole server, the worker asks the supervisor, which asks all
workers and combines their replies; workers do not know each other. Predictions, /models and the repository's index
are answered by the worker that receives them, from its own state.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import Future, StreamReader, StreamWriter, Task
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Self

import structlog
from pydantic import BaseModel

from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.control import Control
from spikeserve.service.catalog.threads import HEARTBEAT_SECONDS
from spikeserve.service.errors import LoadFailed, ModelNotFound, NotReady, ServiceError, ShuttingDown
from spikeserve.service.telemetry.metrics import merged

MAX_MESSAGE_BYTES = 2**26  # the metrics of a version take about 10 KB
MAX_REQUESTS = 256  # without a reply yet, from one end, in addition to a ping
PING_SECONDS = 0.5  # how often the other end is pinged while its reply is awaited
ERRORS: dict[str, type[ServiceError]] = {
    each.__name__: each for each in (LoadFailed, ModelNotFound, NotReady, ShuttingDown)
}

log = structlog.get_logger()


@dataclass(frozen=True)
class ControlTimeouts:
    """How many seconds a process may take to answer a ping."""

    collecting: float = 1.0  # while metrics are collected; a worker that takes longer is left out
    alive: float = 5.0  # before it counts as stuck
    changing: float = 10.0  # the same while it loads, since importing libraries can block the event loop


class ControlRequest(BaseModel):
    """A request from one end to the other.

    ping                 answer at once; a worker also says whether it is ready
    ready                say whether all workers are ready
    check, load          return the versions of a model to load; load these versions
    find, unload         say whether the model exists; unload it
    cancel               cancel a model's loads, before it is unloaded: that would wait for them
    polled               record the versions that a worker has after polling the repository
    metrics              return them
    """

    kind: Literal["ping", "ready", "check", "load", "find", "unload", "cancel", "polled", "metrics"]
    name: str = ""
    versions: list[tuple[str, int]] = []


class Reply(BaseModel):
    """A reply: the result, or the name of an error in `ERRORS` with its sentence."""

    error: str | None = None
    sentence: str = ""
    versions: list[tuple[str, int]] = []
    metrics: list[str] = []  # one text for each worker


class Message(BaseModel):
    """One line on the socket: a request, or the reply to the request with that number."""

    number: int
    request: ControlRequest | None = None
    reply: Reply | None = None


class Peer:
    """The process at the other end of a socket pair; `answer` makes the replies to its requests."""

    def __init__(
        self, reader: StreamReader, writer: StreamWriter, answer: Callable[[ControlRequest], Awaitable[Reply]]
    ) -> None:
        self.reader, self.writer, self.answer = reader, writer, answer
        self.number = 0  # of the last request
        self.awaited: dict[int, Future[Reply]] = {}
        self.answering: set[Task[None]] = set()
        self.pinged: tuple[Future[Reply], float] | None = None  # the latest ping, and when it was sent

    @classmethod
    async def connect(cls, connection: socket.socket, answer: Callable[[ControlRequest], Awaitable[Reply]]) -> Self:
        """Return the peer at the other end of `connection`."""
        return cls(*await asyncio.open_unix_connection(sock=connection, limit=MAX_MESSAGE_BYTES), answer)

    async def follow(self) -> None:
        """Read messages until the other end closes; raises ValueError for an invalid message or too many requests."""
        try:
            while True:
                message = Message.model_validate_json(await self.reader.readuntil())
                if message.request is not None:
                    if len(self.answering) > MAX_REQUESTS:
                        raise ValueError(f"more than {MAX_REQUESTS} requests at once")
                    task = asyncio.create_task(self._reply(message.number, message.request))
                    self.answering.add(task)
                    task.add_done_callback(self.answering.discard)
                elif message.reply is not None and message.number in self.awaited:
                    self.awaited.pop(message.number).set_result(message.reply)
        except asyncio.LimitOverrunError as error:
            raise ValueError(f"a message of more than {MAX_MESSAGE_BYTES} bytes") from error
        except (ConnectionError, EOFError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Treat the other end as dead: all requests to it get an empty reply."""
        self.writer.close()
        while self.awaited:
            self.awaited.popitem()[1].set_result(Reply())

    async def _reply(self, number: int, request: ControlRequest) -> None:
        try:
            reply = await self.answer(request)
        except SpikeserveError as error:
            reply = Reply(error=type(error).__name__, sentence=str(error))
        except Exception:
            log.exception("control_failed", request=request.kind, model=request.name)
            reply = Reply(error="LoadFailed", sentence="an internal error; the log has its traceback")
        self._send(Message(number=number, reply=reply))

    def _send(self, message: Message) -> None:
        if not self.writer.is_closing():
            self.writer.write(message.model_dump_json(exclude_defaults=True).encode() + b"\n")

    def request(self, request: ControlRequest) -> Future[Reply]:
        """Send a request and return the future of its reply, which is empty if the other end dies."""
        reply: Future[Reply] = asyncio.get_running_loop().create_future()
        if self.writer.is_closing():
            reply.set_result(Reply())
        elif len(self.awaited) >= MAX_REQUESTS and request.kind != "ping":
            reply.set_result(Reply(error="NotReady", sentence=f"{MAX_REQUESTS} requests to it wait for a reply"))
        else:
            self.number += 1
            self.awaited[self.number] = reply
            self._send(Message(number=self.number, request=request))
        return reply

    async def ping(self, seconds: float) -> Reply | None:
        """Return the reply to a ping, or None if there is none within `seconds`; concurrent calls share one ping."""
        clock = asyncio.get_running_loop().time
        if self.pinged is None or self.pinged[0].done():
            self.pinged = self.request(ControlRequest(kind="ping")), clock()
        reply, since = self.pinged
        return await _within(since + seconds - clock(), reply)

    async def ask(self, request: ControlRequest, seconds: float) -> Reply | None:
        """Send a request and wait for its reply; return None once a ping has had no reply for `seconds`."""
        reply = self.request(request)
        while await _within(PING_SECONDS, reply) is None:
            if await self.ping(seconds) is None and not reply.done():
                return None
        return reply.result()


async def _within(seconds: float, reply: Future[Reply]) -> Reply | None:
    await asyncio.wait([reply], timeout=max(0, seconds))  # unlike wait_for, it does not cancel the future
    return reply.result() if reply.done() else None


class WorkerControl(Control):
    """The control of one of several workers: it sends requests to the supervisor and carries out the supervisor's."""

    def attach(
        self, connection: socket.socket, number: int, replaces: bool, silence: float, drain: Callable[[], None]
    ) -> None:
        """Set the worker's end of the socket pair, its number, and how many seconds the supervisor may be silent.

        `drain` is called when the supervisor has died, or the threads are stuck.
        A worker that replaces another loads its models before it accepts connections.
        """
        self.connection, self.number, self.loads_first, self.silence = connection, number, replaces, silence
        self.drain = drain
        self.applying = asyncio.Lock()
        self.known: list[tuple[str, int]] = []  # the versions that were last sent to the supervisor

    async def start(self) -> None:
        """Connect to the supervisor and start to answer its requests."""
        self.supervisor = await Peer.connect(self.connection, self._answer)
        self.following = asyncio.create_task(self._follow())
        self.watching = asyncio.create_task(self._watch_threads())

    async def _follow(self) -> None:
        try:
            await self.supervisor.follow()
        except ValueError:
            log.exception("supervisor_misunderstood")
        self.drain()

    async def _watch_threads(self) -> None:
        """Drain once the threads are stuck for good; the supervisor then replaces this worker."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                self.readiness.check_live()
            except NotReady as error:
                log.error("worker_stuck", number=self.number, error=str(error))  # noqa: TRY400  (the sentence says it all)
                self.drain()
                return

    async def stop(self) -> None:
        """Stop answering the supervisor's requests."""
        tasks = [self.following, self.watching]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _ask(self, request: ControlRequest) -> Reply:
        """Return the supervisor's reply. Raises NotReady if there is none, and the error that the reply holds."""
        reply = await self.supervisor.ask(request, self.silence)
        if reply is None or self.supervisor.writer.is_closing():
            raise NotReady("the supervisor of the workers does not answer")
        if reply.error is not None:
            raise ERRORS.get(reply.error, LoadFailed)(reply.sentence)
        return reply

    async def load(self, name: str) -> None:
        """Load a model's versions in every worker."""
        await self._ask(ControlRequest(kind="load", name=name))

    async def unload(self, name: str) -> None:
        """Unload a model in every worker."""
        await self._ask(ControlRequest(kind="unload", name=name))

    def polled(self) -> None:
        """Send the versions to the supervisor, so that a worker that replaces this one has them too."""
        versions = [(name, version) for name, some in self.catalog.models.items() for version in some]
        if versions != self.known:
            self.known = versions
            self.supervisor.request(ControlRequest(kind="polled", versions=versions))

    async def check_ready(self) -> None:
        """Raise if any worker is not ready, except one that replaces another and accepts no connections yet."""
        self.readiness.check()
        await self._ask(ControlRequest(kind="ready"))

    async def exposition(self) -> bytes:
        """Return the metrics of the workers that reply in time, each labelled with the worker's number."""
        try:
            others = (await self._ask(ControlRequest(kind="metrics"))).metrics
        except NotReady:
            others = []  # then the answer holds this worker's own only
        return merged([self._metrics(), *others]).encode()

    def _metrics(self) -> str:
        return self.process_exposition(worker=str(self.number))

    async def _answer(self, request: ControlRequest) -> Reply:
        loader, name = self.loader, request.name
        match request.kind:
            case "ping" if self.readiness.first_load_over or not self.loads_first:
                self.readiness.check()
            case "check":
                return Reply(versions=[(name, version) for version in await loader.choose(name)])
            case "load":
                async with self.applying:  # changes are made in the order in which they arrive
                    await loader.load(name, [version for _, version in request.versions])
            case "find":
                self.catalog.versions_of(name)
            case "unload":
                async with self.applying:
                    loader.forget(name)
            case "cancel":
                loader.cancel(name)
            case "metrics":
                return Reply(metrics=[self._metrics()])
        return Reply()
