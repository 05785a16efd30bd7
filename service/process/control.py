"""The messages between the supervisor and its workers, and the control that a worker's routes use.

Each worker shares a socket pair with the supervisor, on which either end sends requests and replies as lines of JSON.
A worker that is asked for the whole server asks the supervisor. The supervisor asks all workers and combines their
replies; workers do not know each other. The worker that receives a prediction, /models or the repository's index
answers it from its own state.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import Future, StreamReader, StreamWriter, Task
from collections.abc import Awaitable, Callable
from typing import Literal, Self, TypeAlias

import structlog
from pydantic import BaseModel

from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.control import Control
from spikeserve.service.catalog.threads import HEARTBEAT_SECONDS
from spikeserve.service.errors import LoadFailed, ModelNotFound, NotReady, ServiceError, ShuttingDown
from spikeserve.service.telemetry.metrics import merged

MAX_MESSAGE_BYTES = 2**26  # the metrics of a version take about 10 KB
MAX_REQUESTS = 256  # without a reply yet, from one end; with more, the other end counts as stuck
PING_SECONDS = 0.5  # after a ping, until the next one while a reply is awaited
# How many seconds a process may take to answer a ping:
COLLECTING_SECONDS = 1.0  # while metrics are collected; a worker that takes longer is left out
ALIVE_SECONDS = 5.0  # before it counts as stuck
CHANGING_SECONDS = 10.0  # the same while it loads, since importing libraries can block the event loop
ERRORS: dict[str, type[ServiceError]] = {
    each.__name__: each for each in (LoadFailed, ModelNotFound, NotReady, ShuttingDown)
}

log = structlog.get_logger()


class Message(BaseModel):
    """One line on the socket: a request, or the reply to the request with that number, which has no kind.

    ping                 answer at once
    ready                say whether the worker is ready, or all are
    metrics              return those of the worker, or of all
    load                 load these versions of a model
    unload               unload a model
    cancel               cancel a model's loads, before it is unloaded: that would wait for them
    polled               record the versions that a worker has after polling the repository

    A reply may hold the name of an error in `ERRORS`, and its sentence.
    """

    number: int = 0
    kind: Literal["ping", "ready", "metrics", "load", "unload", "cancel", "polled"] | None = None
    name: str = ""
    versions: dict[str, list[int]] = {}  # by model
    error: str | None = None
    sentence: str = ""
    metrics: list[str] = []  # one text for each worker


Answer: TypeAlias = "Callable[[Peer, Message], Awaitable[Message]]"


class Peer:
    """The process at the other end of a socket pair; `answer` makes the replies to its requests."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, answer: Answer) -> None:
        self.reader, self.writer, self.answer = reader, writer, answer
        self.number = 0  # of the last request
        self.awaited: dict[int, Future[Message]] = {}
        self.answering: set[Task[None]] = set()
        self.following = asyncio.create_task(self._follow())

    @classmethod
    async def connect(cls, connection: socket.socket, answer: Answer) -> Self:
        """Return the peer at the other end of `connection`."""
        return cls(*await asyncio.open_unix_connection(sock=connection, limit=MAX_MESSAGE_BYTES), answer)

    async def _follow(self) -> None:
        """Read messages until the other end closes, or sends what is no message."""
        try:
            while (line := await self.reader.readline()).endswith(b"\n"):
                message = Message.model_validate_json(line)
                if message.kind is not None:
                    task = asyncio.create_task(self._reply(message))
                    self.answering.add(task)
                    task.add_done_callback(self.answering.discard)
                elif message.number in self.awaited:
                    self.awaited.pop(message.number).set_result(message)
        except ConnectionError:
            pass
        except ValueError:  # also where it is too long
            log.exception("control_misunderstood")
        finally:
            self.close()

    def close(self) -> None:
        """Treat the other end as dead: all requests to it get an empty reply."""
        self.writer.close()
        while self.awaited:
            self.awaited.popitem()[1].set_result(Message())

    async def _reply(self, request: Message) -> None:
        try:
            reply = await self.answer(self, request)
        except SpikeserveError as error:
            reply = Message(error=type(error).__name__, sentence=str(error))
        except Exception:
            log.exception("control_failed", request=request.kind, model=request.name)
            reply = Message(error="LoadFailed", sentence="an internal error; the log has its traceback")
        self._send(reply, request.number)

    def _send(self, message: Message, number: int) -> None:
        if not self.writer.is_closing():
            line = message.model_copy(update={"number": number}).model_dump_json(exclude_defaults=True)
            self.writer.write(line.encode() + b"\n")

    def request(self, request: Message) -> Future[Message]:
        """Send a request and return the future of its reply, which is empty if the other end dies."""
        reply: Future[Message] = asyncio.get_running_loop().create_future()
        if self.writer.is_closing():
            reply.set_result(Message())
        elif len(self.awaited) < MAX_REQUESTS:
            self.number += 1
            self.awaited[self.number] = reply
            self._send(request, self.number)
        return reply

    async def ask(self, request: Message, seconds: float) -> Message | None:
        """Send a request and wait for its reply; return None once a ping has had no reply for `seconds`."""
        reply = self.request(request)
        while not reply.done():
            ping = self.request(Message(kind="ping"))
            await asyncio.wait([reply, ping], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not (reply.done() or ping.done()):
                return None
            await asyncio.wait([reply], timeout=PING_SECONDS)
        return reply.result()


class WorkerControl(Control):
    """The control of one of several workers: it sends requests to the supervisor and carries out the supervisor's."""

    def attach(self, connection: socket.socket, number: int, replaces: bool, drain: Callable[[], None]) -> None:
        """Set the worker's end of the socket pair and its number.

        `drain` is called when the supervisor has died, or the threads are stuck.
        A worker that replaces another loads its models before it accepts connections.
        """
        self.connection, self.number, self.loads_first, self.drain = connection, number, replaces, drain
        self.applying = asyncio.Lock()

    async def start(self) -> None:
        """Connect to the supervisor and start to answer its requests."""
        self.supervisor = await Peer.connect(self.connection, self._answer)
        self.supervisor.following.add_done_callback(lambda _: self.drain())
        self.watching = asyncio.create_task(self._watch_threads())

    async def _watch_threads(self) -> None:
        """Drain once the threads are stuck for good; the supervisor then replaces this worker."""
        try:
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)
                self.readiness.check_live()
        except NotReady as error:
            log.error("worker_stuck", number=self.number, error=str(error))  # noqa: TRY400  (the sentence says it all)
            self.drain()

    async def _ask(self, request: Message) -> Message:
        """Return the supervisor's reply. Raises NotReady if there is none, and the error that the reply holds."""
        reply = await self.supervisor.ask(request, ALIVE_SECONDS)
        if reply is None or self.supervisor.writer.is_closing():
            raise NotReady("the supervisor of the workers does not answer")
        if reply.error is not None:
            raise ERRORS.get(reply.error, LoadFailed)(reply.sentence)
        return reply

    async def load(self, name: str) -> None:
        """Load a model's versions in every worker."""
        await self._ask(Message(kind="load", name=name, versions={name: await self.loader.look(name)}))

    async def unload(self, name: str) -> None:
        """Unload a model in every worker."""
        self.catalog.versions_of(name)
        await self._ask(Message(kind="unload", name=name))

    def polled(self) -> None:
        """Send the versions to the supervisor, so that a worker that replaces this one has them too."""
        versions = {name: list(some) for name, some in self.catalog.models.items()}
        self.supervisor.request(Message(kind="polled", versions=versions))

    async def check_ready(self) -> None:
        """Raise if any worker is not ready, except one that replaces another and accepts no connections yet."""
        self.readiness.check()
        await self._ask(Message(kind="ready"))

    async def exposition(self) -> bytes:
        """Return the metrics of the workers that reply in time, each labelled with the worker's number."""
        try:
            metrics = (await self._ask(Message(kind="metrics"))).metrics
        except NotReady:
            metrics = [self.process_exposition(worker=str(self.number))]
        return merged(metrics).encode()

    async def _answer(self, _: Peer, request: Message) -> Message:
        loader, name = self.loader, request.name
        match request.kind:
            case "ready" if self.readiness.first_load_over or not self.loads_first:
                self.readiness.check()
            case "load":
                async with self.applying:  # changes are made in the order in which they arrive
                    await loader.load(name, request.versions[name])
            case "unload":
                async with self.applying:
                    loader.forget(name)
            case "cancel":
                loader.cancel(name)
            case "metrics":
                return Message(metrics=[self.process_exposition(worker=str(self.number))])
        return Message()
