"""One RPC around its answer: its key, its message, its deadline, its errors, and its line in the log.

The first message of an RPC is read within `client_seconds`. Its length is not known before. So a message that does not
come at once reserves the bytes of the longest one in the memory budget. The server's core takes no longer one, and no
more bytes than it announced room for. So the memory of all RPCs is bounded.

Errors have the sentence that HTTP would answer, with a status code for its status. Trailing metadata, which gRPC's own
retries follow, say after how many milliseconds a client should try again. gRPC's library ends neither a connection nor
a call of a server by itself, so this module does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio import CancelledError, Task, TimerHandle
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import structlog
from grpc import StatusCode
from grpc.aio import AbortError, BaseError
from starlette.requests import ClientDisconnect

from spikeserve.models.errors import InvalidInput, SpikeserveError
from spikeserve.service.errors import (
    NOT_ENDED,
    BodyTooSlow,
    MalformedBody,
    Overloaded,
    ServiceError,
    ShuttingDown,
    Unexpected,
    late,
)
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.inference.scheduling.entry import milliseconds_of
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.keys import AUTHORIZATION, bearer_key
from spikeserve.service.services import Services
from spikeserve.service.telemetry.access import CLIENT_GONE, METHOD, REQUEST_ID, AccessLog, request_id_of
from spikeserve.service.telemetry.record import RequestRecord, Trace
from spikeserve.service.telemetry.tracing import RequestSpan

FILES = Path("/proc/self/fd")  # of this process; elsewhere than on Linux there is none
MAPPED = "::ffff:"  # before an IPv4 address where the library listens for both kinds


def hang_up(peer: str, port: int) -> None:
    """Shut down this process's connection between its `port` and `peer`, such as ipv4:127.0.0.1:40000."""
    address = address_of(peer)
    for file in FILES.iterdir() if FILES.is_dir() else ():
        with suppress(OSError, ValueError):  # it is no socket of two ends, or was closed just now
            if os.readlink(file).startswith("socket:"):  # noqa: PTH115  (it leads to no file)
                with socket.socket(fileno=os.dup(int(file.name))) as connection:
                    host, number = connection.getpeername()[:2]
                    if (host.removeprefix(MAPPED), number, connection.getsockname()[1]) == (*address, port):
                        connection.shutdown(socket.SHUT_RDWR)
                        structlog.get_logger().warning("answer_unread", peer=peer)
                        return


def address_of(peer: str) -> tuple[str, int]:
    """Return the host and port of a peer, such as ipv4:127.0.0.1:40000; of one that has none, "" and 0."""
    host, _, number = unquote(peer).partition(":")[2].rpartition(":")
    return (host.strip("[]").removeprefix(MAPPED), int(number)) if number.isdigit() else ("", 0)


RETRY = "grpc-retry-pushback-ms"

CODES: dict[int, StatusCode] = {
    HTTPStatus.OK: StatusCode.OK,
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    CLIENT_GONE: StatusCode.CANCELLED,
}


class Refused(ServiceError):
    """A request without the key that it needs."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status  # type: ignore[misc]  # one class for 401 and 403, which HTTP's middleware answers itself


def status_of(error: SpikeserveError) -> HTTPStatus:
    """Return the HTTP status of an error of a request; where native routes say 422, the protocol says 400."""
    if isinstance(error, InvalidInput):
        return HTTPStatus.BAD_REQUEST
    return error.status if isinstance(error, ServiceError) else HTTPStatus.INTERNAL_SERVER_ERROR


MAX_RPCS = 1024  # in progress in one process, all connections together; each takes some 20 KB
AT_ONCE_SECONDS = 0.1  # in which most messages are there; a later one reserves the longest one's bytes
LATE_PROBES = 4  # calls without a key in one process whose message may be late
EOF = grpc.aio.EOF

Context: TypeAlias = Any  # grpc.aio.ServicerContext, of a library without types


class Message(Reservation):
    """The bytes of one request, which are there, counted in the memory budget."""

    def __init__(self, content: bytes, budget: MemoryBudget) -> None:
        """Reserve a long one's bytes; raises Overloaded."""
        super().__init__(budget)
        self.content = content
        if len(content) > UNRESERVED_BYTES:
            self.reserve(len(content))


class Call:
    """One RPC: its context, the metadata of its client as headers, and its record for the log.

    Its message counts in `budget`; `calls` are all RPCs in progress.
    """

    def __init__(self, route: str, context: Context, calls: Calls, budget: MemoryBudget) -> None:
        self.began = perf_counter()
        self.route, self.context, self.budget = route, context, budget
        self.calls, self.services, self.port = calls, calls.services, calls.port
        self.headers: dict[bytes, bytes] = {
            name.encode(): value if isinstance(value, bytes) else value.encode()
            for name, value in context.invocation_metadata()
        }
        self.peer: str = context.peer()  # now, since the library crashes where it is asked after the RPC's end
        self.record = RequestRecord(request_id_of(self.headers))
        self.status: int = HTTPStatus.OK
        self.trace: Trace | None = None
        self.span: RequestSpan | None = None  # where it is sampled
        self.sending: TimerHandle | None = None  # ends the time that the client has to read the answer
        self.is_logged = False  # the batcher logs what it answers
        self.holds = ExitStack()  # closed once its answer is sent

    async def read(self) -> Message:
        """Return the first message. Raises BodyTooSlow, Overloaded, and MalformedBody where there is none."""
        if (message := await self.read_next()) is None:
            raise MalformedBody("the request has no message, expected one")
        return message

    async def read_next(self) -> Message | None:
        """Return the next message; None at the end. Raises BodyTooSlow and Overloaded."""
        settings = self.services.settings
        waiting, refused = Reservation(self.budget), None
        loop = asyncio.get_running_loop()
        timeout, at_once = asyncio.timeout(None), min(AT_ONCE_SECONDS, settings.client_seconds)

        def is_late() -> None:  # only then a timeout is set, since most messages are there at once
            nonlocal refused
            try:
                waiting.reserve(settings.max_body_bytes)
            except Overloaded as error:
                refused = error
            timeout.reschedule(loop.time() + (0 if refused else settings.client_seconds - at_once))

        late = loop.call_later(at_once, is_late)
        try:
            async with timeout:
                content = await self.context.read()
        except TimeoutError as error:
            seconds = settings.client_seconds
            raise refused or BodyTooSlow(
                f"the message was not there after {seconds:g} seconds, expected all of it by then"
            ) from error
        finally:
            late.cancel()
            waiting.release()
        if content is EOF:
            return None
        message = Message(content, self.budget)
        self.holds.callback(message.release)
        return message

    async def write(self, answer: bytes) -> None:
        """Send one message of an answer; where the client does not read it in time, end its connection."""
        try:
            async with asyncio.timeout(self.services.settings.client_seconds):
                await self.context.write(answer)
        except TimeoutError as error:
            self.hang_up()
            raise CancelledError from error

    def end_span(self, span: RequestSpan | None, status: int, record: RequestRecord) -> None:
        """End the span of this RPC, or of one of its messages, if it is traced."""
        if span is not None:
            failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
            span.end_rpc(self.route.removeprefix("/"), CODES[status].name, record, failed=failed)

    @property
    def sender(self) -> Sender:
        """The client's key and address."""
        return Sender(bearer_key(self.headers.get(AUTHORIZATION, b"")) or b"", *address_of(self.peer))

    @property
    def is_late(self) -> bool:
        """Whether its deadline is over.

        A client rounds it up, by as much as a hundredth. The RPC also begins later here than there, by up to a tenth of
        a second on a busy machine.
        """
        left = self.context.time_remaining()
        return left is not None and left <= max(0.1, (perf_counter() - self.began) / 100)

    @property
    def milliseconds(self) -> int:
        """Its time until its deadline, which it may send as over HTTP, too; 0 for none. Raises MalformedHeader."""
        own, left = milliseconds_of(self.headers), self.context.time_remaining()
        if left is None:
            return own
        whole = max(1, int(1000 * (left + perf_counter() - self.began)))
        return min(whole, own or whole)

    def why_cancelled(self, model: str) -> ServiceError | ClientDisconnect:
        """Return why this call, which `model` answers, was cancelled."""
        if self.calls.ending:
            return ShuttingDown(NOT_ENDED)
        return late(model) if self.is_late else ClientDisconnect()

    def hang_up(self) -> None:
        """End the client's connection."""
        hang_up(self.peer, self.port)


Answer: TypeAlias = Callable[[Call], Awaitable[bytes]]


class Calls:
    """All RPCs in progress in this process."""

    def __init__(self, services: Services, port: int) -> None:
        self.services, self.port = services, port
        # Probes need no key, so what they wait for takes nothing from those who have one.
        self.probes = MemoryBudget(LATE_PROBES * services.settings.max_body_bytes)
        self.access = AccessLog(services.metrics)
        self.tasks: set[Task[Any]] = set()
        self.ending = False  # whether those that are left are cancelled, at the end of the grace period

    def handler(self, route: str, answer: Answer, *, key: bool, control: bool, stream: bool) -> Any:
        """Return gRPC's handler of one method. `key` says whether it needs one, `control` whether it is an admin's.

        A request of one message is handled as a stream of one. So its key is checked before the message is read, and
        reading has an end.
        """

        async def handle(_: Any, context: Context) -> bytes | None:
            call = Call(route, context, self, self.services.budget if key else self.probes)
            if key and self.services.tracing is not None:  # probes are not traced
                name, tracing = route.removeprefix("/"), self.services.tracing
                call.trace = tracing.chosen.choose(name, call.headers)
                call.record.labels["trace_id"] = call.trace.id
                call.span = tracing.begin(call.trace, name, call.began) if call.trace.sampled else None
            return await self._handle(call, answer, key=key, control=control)

        return (grpc.stream_stream_rpc_method_handler if stream else grpc.stream_unary_rpc_method_handler)(handle)

    async def _handle(self, call: Call, answer: Answer, *, key: bool, control: bool) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (gRPC runs each RPC as a task)
        self.tasks.add(task)
        self.services.metrics.requests.in_flight += 1
        call.context.add_done_callback(lambda _: self._finish(call, task))
        call.context.set_trailing_metadata(((REQUEST_ID.decode(), call.record.request_id.decode()),))
        try:
            if key:
                self._admit(call, control=control)
            message = await answer(call)
        except CancelledError:
            if not self.ending:
                self._abandoned(call)
                raise
            return await self._fail(call, ShuttingDown(NOT_ENDED))
        except SpikeserveError as error:
            return await self._fail(call, error)
        except BaseError as error:  # of the library: the client has left
            self._abandoned(call)
            raise CancelledError from error
        except Exception:
            request_id = call.record.request_id
            self.access.log.exception("request_failed", request_id=request_id.decode(), **call.record.labels)
            return await self._fail(call, Unexpected(request_id))
        # A client that does not read its answer in time loses its connection: a call cannot be ended alone.
        call.sending = asyncio.get_running_loop().call_later(self.services.settings.client_seconds, call.hang_up)
        return message

    def _admit(self, call: Call, *, control: bool) -> None:
        """Raise Overloaded for one RPC too many, and Refused for one without its key, InvalidInput for one with two."""
        if len(self.tasks) > MAX_RPCS:
            raise Overloaded(f"{len(self.tasks)} RPCs are in progress with this one, expected at most {MAX_RPCS}")
        if sum(name == "authorization" for name, _ in call.context.invocation_metadata()) > 1:
            raise InvalidInput("the header Authorization is repeated, expected one")
        refusal = self.services.keys.refusal(bearer_key(call.headers.get(AUTHORIZATION, b"")), control=control)
        if refusal is not None:
            raise Refused(*refusal)

    async def _fail(self, call: Call, error: SpikeserveError) -> bytes:
        """Answer with an error, and with when to try again, if its HTTP headers say so."""
        call.status = status_of(error)
        trailers = call.context.trailing_metadata()
        if isinstance(error, ServiceError) and (seconds := error.headers.get("Retry-After")) is not None:
            trailers = (*trailers, (RETRY, str(1000 * int(seconds))))
        try:
            await call.context.abort(CODES[call.status], str(error), trailers)
        except AbortError:
            raise
        except BaseError as gone:
            self._abandoned(call)
            raise CancelledError from gone
        return b""

    def _abandoned(self, call: Call) -> None:
        """Note that the client has left, or that its deadline is over."""
        call.status = HTTPStatus.GATEWAY_TIMEOUT if call.is_late else CLIENT_GONE

    def _finish(self, call: Call, task: Task[Any]) -> None:
        self.tasks.discard(task)
        self.services.metrics.requests.in_flight -= 1
        if call.sending is not None:
            call.sending.cancel()
        call.holds.close()
        call.end_span(call.span, int(call.status), call.record)
        if not call.is_logged:
            self.access.finish(call.record, METHOD, call.route, int(call.status), perf_counter() - call.began)
