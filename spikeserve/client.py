"""The client that blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, Unpack

import httpx

from spikeserve.answers import Prediction, SessionState, Window
from spikeserve.base import BaseSession
from spikeserve.chunks import Chunk, chunks, items
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
from spikeserve.websocket import WebSocket

TIMEOUT = 30.0  # seconds, as long as a server takes by default


class Client:
    """A client of the server at `url`, such as http://localhost:8000; it is closed at the end of a `with` block.

    `model` is used where a call names none; without it, that is the server's default. `timeout` is in seconds: of
    every answer, and of every line of a session.
    """

    def __init__(self, url: str, key: str | None = None, model: str | None = None, timeout: float = TIMEOUT) -> None:
        self.url, self.key, self.model, self.timeout = url, key, model, timeout
        self._http = httpx.Client(base_url=url, headers=headers_of(key), timeout=timeout)

    def predict(
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
        a path                   a file, as it is: .npy, .csv, AEDAT4, EVT, DAT or ES

        `returns` names what predictions also hold: "raster", "membrane", "spikes_per_node" and "report". `stop` ends
        samples early ("decided" or "confident").
        """
        choice = Choice(time_steps, seed, stop, returns)
        found: list[Prediction] = []
        for call in predict_calls(inputs, model or self.model, version, choice):
            answer = self._call(call)
            found += predictions(answer.status_code, answer.headers, answer.content)
        return found

    def session(self, **options: Unpack[SessionOptions]) -> Session:
        """Return a session, to be used in a `with` block; see SessionOptions. Raises InvalidOption for another name."""
        return Session(self, options)

    def resume(self, state: SessionState, **options: Unpack[ResumeOptions]) -> Session:
        """Return a session that goes on from a state, with its model and options unless others are given.

        Events from `state.t` on are to be sent again.
        """
        return self.session(state=state, **options)

    def stream(self, source: Iterable[Chunk] | EventsLike, **options: Unpack[SessionOptions]) -> Iterator[Window]:
        """Send events as `source` gives them, and yield each window as soon as it closes.

        An item of `source` is events, as `events` takes them, or a whole number: a time in microseconds before which
        no event comes any more. Events are sent in the order in which they are given: one that comes after its window
        closed is late, see `lateness_us`. Where `state` is given, events before its `t` are left out.
        """
        with self.session(**options) as session:
            try:
                for item in items(source):
                    for each in chunks(item, options.get("state"), session.now):
                        session.advance(each) if isinstance(each, int) else session.send(each)
                        yield from session
                yield from session.end()
            except SpikeserveError:
                yield from session.unread()
                raise

    def default_model(self) -> str:
        """Return the name of the model that this client uses where a call names none."""
        if self.model is not None:
            return self.model
        answer = self._call(Call("/models"))
        return default_model(answer.status_code, answer.headers, answer.content)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Call) -> httpx.Response:
        method = "GET" if call.content is None else "POST"
        try:
            return self._http.request(method, call.path, content=call.content, headers=call.headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionLost(f"{self.url}: {error or type(error).__name__}") from error


class Session(BaseSession):
    """A session: see BaseSession."""

    def __init__(self, client: Client, options: SessionOptions) -> None:
        check_names(options)
        self._client, self._options = client, options
        self._socket = WebSocket(client.url, client.key, client.timeout)

    def send(self, given: EventsLike | ValuesLike) -> None:
        """Send events, in microseconds (see `events` for what they may be), or values.

        Values are an array of the input's shape, or several of them: one for each step with `current` coding, else one
        for each window. A session that goes on from a state is sent those from step `state.t`, or window
        `state.window`, on.
        """
        if not is_values(given):
            self._run(self._open.send(events(given, self.now)))  # type: ignore[arg-type]
            return
        if self._entry is None:
            card = Call(model_path(self._open.model, self._open.version))
            answer = self._client._call(card)
            self._entry = Entry.of(read_json(answer.status_code, answer.headers, answer.content))
        self._run(self._open.send_values(values(given, self._entry), self._entry))

    def advance(self, t: int) -> None:
        """Say that no event comes before `t` any more: all windows before it close, with or without events."""
        self._run(self._open.advance(t))

    def __iter__(self) -> Iterator[Window]:
        """Yield the windows that were closed by what has been sent so far; there may be more after the next `send`."""
        while (window := self._run(self._open.next_window())) is not None:
            yield window

    def state(self) -> SessionState:
        """Return the state at the end of the last window that is closed, to go on from on any server of the bundle."""
        return self._run(self._open.take_state())

    def end(self) -> list[Window]:
        """End the session, and return the windows that were not read; an open window that holds events is the last."""
        self._run(self._open.end())
        return self._run(self._open.rest())

    def _run(self, flow: Flow[Value]) -> Value:
        """Perform the steps of a flow, and return its value."""
        try:
            step = next(flow)
            while True:
                try:
                    gave = self._socket.perform(step)
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

    def __enter__(self) -> Self:
        name = model_of(self._options) or self._client.default_model()
        self._conversation = conversation(name, self._options)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
