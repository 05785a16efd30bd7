"""The client that is awaited: it has the requests and conversations of `client`, and no more of its own than that."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Self, Unpack

import httpx

from spikeserve.answers import Prediction, SessionState, Window
from spikeserve.base import BaseSession
from spikeserve.chunks import Chunk, chunks, items
from spikeserve.client import TIMEOUT
from spikeserve.errors import AnswerError, ConnectionLost, SpikeserveError
from spikeserve.flow import Flow, Lost, Value
from spikeserve.options import ResumeOptions, SessionOptions, check_names, conversation, model_of
from spikeserve.records import EventsLike, events
from spikeserve.requests import (
    Call,
    Choice,
    Inputs,
    default_model,
    headers_of,
    model_path,
    predict_calls,
    predictions,
    read_json,
)
from spikeserve.values import Entry, ValuesLike, is_values, values
from spikeserve.websocket import AsyncWebSocket


class AsyncClient:
    """`Client`, whose methods are awaited; it is closed at the end of an `async with` block."""

    def __init__(self, url: str, key: str | None = None, model: str | None = None, timeout: float = TIMEOUT) -> None:
        self.url, self.key, self.model, self.timeout = url, key, model, timeout
        self._http = httpx.AsyncClient(base_url=url, headers=headers_of(key), timeout=timeout)

    async def predict(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        version: int | None = None,
        time_steps: int | None = None,
        seed: int | None = None,
        stop: str | None = None,
        returns: Sequence[str] = (),
    ) -> list[Prediction]:
        """Return a prediction for each sample, as `Client.predict` does."""
        choice = Choice(time_steps, seed, stop, returns)
        found: list[Prediction] = []
        for call in predict_calls(inputs, model or self.model, version, choice):
            answer = await self._call(call)
            found += predictions(answer.status_code, answer.headers, answer.content)
        return found

    def session(self, **options: Unpack[SessionOptions]) -> AsyncSession:
        """Return a session, to be used in an `async with` block; see SessionOptions."""
        return AsyncSession(self, options)

    def resume(self, state: SessionState, **options: Unpack[ResumeOptions]) -> AsyncSession:
        """Return a session that goes on from a state, with its model and options unless others are given.

        Events from `state.t` on are to be sent again.
        """
        return self.session(state=state, **options)

    async def stream(
        self, source: AsyncIterable[Chunk] | Iterable[Chunk] | EventsLike, **options: Unpack[SessionOptions]
    ) -> AsyncIterator[Window]:
        """Send events as `source` gives them, and yield each window as soon as it closes, as `Client.stream` does."""
        async with self.session(**options) as session:
            try:
                async for item in _each(source):
                    for each in chunks(item, options.get("state"), session.now):
                        await (session.advance(each) if isinstance(each, int) else session.send(each))
                        async for window in session:
                            yield window
                for window in await session.end():
                    yield window
            except SpikeserveError:
                for window in session.unread():
                    yield window
                raise

    async def default_model(self) -> str:
        """Return the name of the model that this client uses where a call names none."""
        if self.model is not None:
            return self.model
        answer = await self._call(Call("/models"))
        return default_model(answer.status_code, answer.headers, answer.content)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, call: Call) -> httpx.Response:
        method = "GET" if call.content is None else "POST"
        try:
            return await self._http.request(method, call.path, content=call.content, headers=call.headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionLost(f"{self.url}: {error or type(error).__name__}") from error


class AsyncSession(BaseSession):
    """A session whose methods are awaited: see BaseSession."""

    def __init__(self, client: AsyncClient, options: SessionOptions) -> None:
        check_names(options)
        self._client, self._options = client, options
        self._socket = AsyncWebSocket(client.url, client.key, client.timeout)

    async def send(self, given: EventsLike | ValuesLike) -> None:
        """Send events, in microseconds (see `events` for what they may be), or values.

        Values are an array of the input's shape, or several of them: one for each step with `current` coding, else one
        for each window. A session that goes on from a state is sent those from step `state.t`, or window
        `state.window`, on.
        """
        if not is_values(given):
            await self._run(self._open.send(events(given, self.now)))  # type: ignore[arg-type]
            return
        if self._entry is None:
            card = Call(model_path(self._open.model, self._open.version))
            answer = await self._client._call(card)
            self._entry = Entry.of(read_json(answer.status_code, answer.headers, answer.content))
        await self._run(self._open.send_values(values(given, self._entry), self._entry))

    async def advance(self, t: int) -> None:
        """Say that no event comes before `t` any more: all windows before it close, with or without events."""
        await self._run(self._open.advance(t))

    async def __aiter__(self) -> AsyncIterator[Window]:
        """Yield the windows that were closed by what has been sent so far; there may be more after the next `send`."""
        while (window := await self._run(self._open.next_window())) is not None:
            yield window

    async def state(self) -> SessionState:
        """Return the state at the end of the last window that is closed, to go on from on any server of the bundle."""
        return await self._run(self._open.take_state())

    async def end(self) -> list[Window]:
        """End the session, and return the windows that were not read; an open window that holds events is the last."""
        await self._run(self._open.end())
        return await self._run(self._open.rest())

    async def _run(self, flow: Flow[Value]) -> Value:
        """Perform the steps of a flow, and return its value."""
        try:
            step = next(flow)
            while True:
                try:
                    gave = await self._socket.perform(step)
                except (Lost, AnswerError) as error:
                    step = flow.throw(error)
                except BaseException:
                    self._open.interrupted(step)
                    raise
                else:
                    step = flow.send(gave)
        except StopIteration as done:
            value: Value = done.value
            return value

    async def __aenter__(self) -> Self:
        name = model_of(self._options) or await self._client.default_model()
        self._conversation = conversation(name, self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()


async def _each(source: AsyncIterable[Chunk] | Iterable[Chunk] | EventsLike) -> AsyncIterator[Chunk]:
    """Yield the items of a source, awaited or not."""
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in items(source):
            yield item
