"""The client of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Self, Unpack

import httpx

from spikeserve._async.session import AsyncSession
from spikeserve.answers import Json, Prediction, SessionState, Window
from spikeserve.errors import ConnectionLost, InvalidEvents, SpikeserveError
from spikeserve.messages import AsyncSource, async_items, chunks
from spikeserve.options import ResumeOptions, SessionOptions
from spikeserve.requests import Call, Inputs, headers_of, predict_calls, read_json

TIMEOUT = 30.0  # seconds, as long as a server takes by default


class AsyncClient:
    """A client of the server at `url`, such as http://localhost:8000; its `async with` block closes it.

    `model` is used where a call names none; without it, that is the server's default. `timeout` is in seconds: of
    every answer, and of every line of a session.
    """

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
        """Return a prediction for each sample. Raises AnswerError, ConnectionLost and InvalidEvents.

        What `inputs` are decides how they are sent:

        an array of numbers      one sample or a batch, or lists of them: as .npy, in the smallest type of integers that
                                 holds all values, or in float32; compressed where it is long and nearly empty
        an array with fields     a recording in microseconds (t and unit, or t, x, y and p): as 8-byte records; a list
                                 of recordings is a request for each
        a mapping, or a list     samples as events in time steps, {"t": …, "unit": …}: as JSON, which is the smallest
        of mappings              where few inputs spike
        a path                   what a file holds: an array, or a recording, which `read_events` reads

        `returns` names what predictions also hold: "raster", "membrane" and "spikes_per_node". `stop` ends
        samples early ("decided" or "confident").
        """
        named = {"time_steps": time_steps, "seed": seed, "stop": stop, "return": list(returns) or None}
        choice = {name: value for name, value in named.items() if value is not None}
        predictions: list[Prediction] = []
        for call in predict_calls(inputs, model or self.model, version, choice):
            predictions += Prediction.all_of(await self._answer(call))
        return predictions

    def session(self, **options: Unpack[SessionOptions]) -> AsyncSession:
        """Return a session for its `async with` block; see SessionOptions. Raises InvalidOption for another name."""
        return AsyncSession(self, options)

    def resume(self, state: SessionState, **options: Unpack[ResumeOptions]) -> AsyncSession:
        """Return a session that goes on from a state, with its model and options unless others are given.

        Events from `state.t` on are to be sent again.
        """
        return self.session(state=state, **options)

    async def stream(self, source: AsyncSource, **options: Unpack[SessionOptions]) -> AsyncIterator[Window]:
        """Send events as `source` gives them, and yield each window as soon as it closes.

        An item of `source` is events, as `events` takes them, or a whole number: a time in microseconds before which
        no event comes any more. Events are sent in the order in which they are given: one that comes after its window
        closed is late, see `lateness_us`. Where `state` is given, events before its `t` are left out.
        """
        async with self.session(**options) as session:
            try:
                async for item in async_items(source):
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
        """Return the name of the model that this client uses where a call names none; raises InvalidEvents for none."""
        name = self.model or (await self._answer(Call("/models")))["default"]
        if name is None:
            raise InvalidEvents("the server has several models and no default one, expected model=…")
        return str(name)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answer(self, call: Call) -> Json:
        """Return the JSON of an answer; raises AnswerError and ConnectionLost."""
        method = "GET" if call.content is None else "POST"
        try:
            answer = await self._http.request(method, call.path, content=call.content, headers=call.headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionLost(f"{self.url}: {error or type(error).__name__}") from error
        return read_json(answer.status_code, answer.headers, answer.content)
