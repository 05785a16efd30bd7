"""What a session holds while it lives, and when it counts as idle, through real streams and sequences.

What a stream over HTTP holds of its body counts in the memory budget, from the socket to its last use.
"""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from starlette.types import Message

from spikeserve.service.catalog.loaded import LoadedModel, verify
from spikeserve.service.inference.sessions.stream import LONG_WAIT
from spikeserve.service.inference.sessions.table import UNCOUNTED_BYTES
from tests.bundles import publish
from tests.service.asgi import Answered, Broken, Client, settled, slow, started, traced, until
from tests.service.sessions.conftest import INFER, ONE, pairs

pytestmark = pytest.mark.usefixtures("reference_engine")


def events(times: list[int]) -> bytes:
    return json.dumps({"type": "events", "t": times, "unit": [0] * len(times)}).encode() + b"\n"


class Streamed:
    """A POST of a stream whose body the test sends.

    `seen` has the bytes reserved as each line was sent, `taken` those that Python's objects took, while that is traced.
    Its client reads no line behind so many as `reads`.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.body: asyncio.Queue[Message] = asyncio.Queue()
        self.lines: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self.taken: list[int] = []
        self.reads: float = float("inf")

    def come(self, part: bytes, *, more: bool = True) -> None:
        """Have a part of the body come."""
        self.body.put_nowait({"type": "http.request", "body": part, "more_body": more})

    async def answer(self) -> None:
        """Answer the whole request."""
        headers = {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"}
        scope = self.client.scope("POST", "/models/pairs/stream", headers)
        await self.client.app(scope, self.body.get, self._send)

    async def _send(self, message: Message) -> None:
        if content := message.get("body"):
            if len(self.lines) >= self.reads:
                self.reads += 1
                await asyncio.Event().wait()
            self.lines.append(json.loads(content))
            self.seen.append(self.client.reserved)
            self.taken.append(tracemalloc.get_traced_memory()[0])


@asynccontextmanager
async def streamed(root: Path, **settings: Any) -> AsyncIterator[Streamed]:
    """Begin a stream, and see that nothing is held once it has ended."""
    publish(root, pairs(), "pairs")
    async with started(root, **settings) as client:
        stream = Streamed(client)
        answering = asyncio.create_task(stream.answer())
        yield stream
        async with asyncio.timeout(60):
            await answering
        assert client.reserved == 0


@pytest.mark.parametrize("leaves", [False, True])
async def test_the_bytes_of_events_that_wait_are_counted_once_and_given_back(tmp_path: Path, leaves: bool) -> None:
    # Windows are of 2 ms: 5,000 events at 0, and as many again, wait until one at 2 ms closes their window.
    async with streamed(tmp_path) as stream:
        reserved = [0]
        for times, grows in (([0] * 5000, True), ([0] * 5000, True), ([2000], False), ([2000] * 5000, True)):
            stream.come(events(times))
            await until(lambda: stream.body.empty())
            await until(lambda grows=grows: (stream.client.reserved > reserved[-1]) == grows)  # type: ignore[misc]
            await settled()
            reserved.append(stream.client.reserved)
        assert UNCOUNTED_BYTES < reserved[1] < reserved[2] / 1.5
        assert reserved[3] == 0 < reserved[4] < 1.1 * reserved[1]
        stream.body.put_nowait({"type": "http.disconnect"}) if leaves else stream.come(b"", more=False)


class Clock:
    """The event loop's clock, and that of a stream's silence, which a test puts forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        time, self.ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: time() + self.ahead)
        of_streams = "spikeserve.service.inference.sessions.stream.perf_counter"
        monkeypatch.setattr(of_streams, lambda: perf_counter() + self.ahead)

    async def wait(self, seconds: float) -> None:
        """Let so much time be over."""
        await settled()
        self.ahead += seconds
        await settled()


def ask(client: Client, **parameters: Any) -> asyncio.Task[Any]:
    body = {"inputs": [ONE], "parameters": {"sequence_id": 1, **parameters}}
    return asyncio.create_task(client.post(body, INFER))


async def test_a_stream_is_idle_a_while_after_its_last_message_and_not_while_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with streamed(tmp_path, session_idle_seconds=60, request_timeout_ms=3_600_000) as stream:
        held, clock = slow(stream.client.model("pairs")), Clock(monkeypatch)
        for number in (1, 2):
            stream.come(b'{"type": "state"}\n')
            await until(lambda number=number: len(stream.lines) == number)  # type: ignore[misc]
            await clock.wait(50)
        stream.come(events([0, 2000]))
        await held.begun()
        for _ in range(2):
            await clock.wait(61)
        held.go_on.release()
        await until(lambda: len(stream.lines) == 3)
        await clock.wait(50)
        assert stream.client.sessions == 1
        await clock.wait(11)
        await until(lambda: len(stream.lines) == 4)
        assert (stream.lines[3]["window"], stream.lines[3]["reason"]) == (1, "nothing was sent for 60 seconds")


async def test_a_sequence_is_idle_a_while_after_its_last_request_and_not_while_it_computes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(root, session_idle_seconds=60, request_timeout_ms=3_600_000) as client:
        held, clock = slow(client.model("pairs")), Clock(monkeypatch)
        for start in (True, False):
            asked = ask(client, sequence_start=start)
            await held.begun()
            for _ in range(2):
                await clock.wait(61)
            assert client.sessions == 1
            held.go_on.release()
            assert (await asked).status == 200
            await clock.wait(50)
        assert client.sessions == 1
        for _ in range(2):  # its timer looks again after half of the time at the earliest
            await clock.wait(61)
        await until(lambda: not client.sessions)


async def test_a_stream_that_was_silent_has_no_credit_of_events(tmp_path: Path) -> None:
    # 100 events at 1,000 a second take 0.1 s, however long nothing came before.
    async with streamed(tmp_path, max_values=16_000) as stream:
        stream.come(events([0] * 100))
        stream.come(b'{"type": "state"}\n')
        silent = perf_counter()
        await until(lambda: perf_counter() - silent > 0.2)
        began = perf_counter()
        stream.come(events([0] * 100))
        stream.come(b'{"type": "state"}\n', more=False)
        await until(lambda: len(stream.lines) >= 2)
        assert perf_counter() - began >= 0.1 - LONG_WAIT  # a shorter wait is left out


async def test_a_window_whose_line_was_not_sent_is_not_in_the_state(tmp_path: Path) -> None:
    async with streamed(tmp_path) as stream:
        stream.reads = 1
        stream.come(events([0, 2000]))  # closes window 0
        stream.come(events([4000, 6000]))  # and windows 1 and 2
        await until(lambda: stream.reads == 2)
        stream.client.end_sessions()
    first, state = stream.lines
    assert (first["type"], state["type"], state["window"], state["t"]) == ("window", "state", 1, 2000)


async def test_a_state_passes_between_servers_whose_keys_stand_in_another_order_and_to_no_other(root: Path) -> None:
    digests = [f"sha256:{sha256(key).hexdigest()}" for key in (b"one", b"two", b"three")]

    async def post(client: Client, state: object) -> Any:
        whole = {"sequence_id": 1, "sequence_start": True, "sequence_end": True, "sequence_state": state}
        body = {"inputs": [ONE], "parameters": whole}
        return (await client.post(body, INFER, {"Authorization": "Bearer one"})).json

    state: object = True
    found = []
    for clients, admins in (((0, 1), 2), ((1, 0), 2), ((2, 0), 1)):
        keys = {"api_keys": ",".join(digests[each] for each in clients), "admin_keys": digests[admins]}
        async with started(root, **keys) as client:
            answer = await post(client, state)
            found += [each["data"] for each in answer["outputs"] if each["name"] == "spike_counts"]
            state = answer["parameters"]["sequence_state"]
    assert found == [[0, 0], [1, 0], [1, 0]]  # a spike at every second event
    async with started(root, api_keys=",".join(digests[:2])) as client:
        assert (await post(client, state))["error"] == "state: was not signed by a server with the keys of this one"


def counts(answer: Answered) -> list[int]:
    assert answer.status == 200, answer.json
    (found,) = [each["data"] for each in answer.json["outputs"] if each["name"] == "spike_counts"]
    return [int(value) for value in found]


async def test_a_start_takes_the_newest_version_and_the_state_of_another_is_refused(root: Path) -> None:
    async with started(root) as client:
        first = await ask(client, sequence_start=True, sequence_state=True)
        publish(root, pairs(), "pairs")
        await client.loader.load("pairs")
        assert (await ask(client)).json["model_version"] == "1"
        again = await ask(client, sequence_start=True)
        assert (again.json["model_version"], counts(again)) == ("2", [0, 0])
        assert counts(await ask(client, sequence_end=True)) == [1, 0]
        state = first.json["parameters"]["sequence_state"]
        refused = await ask(client, sequence_start=True, sequence_state=state)
        assert (refused.status, refused.json["error"][:23]) == (400, "state: is of the bundle")
        assert client.sessions == 0


async def test_a_sequence_goes_on_by_the_engine_that_takes_over(root: Path) -> None:
    async with started(root) as client:
        assert counts(await ask(client, sequence_start=True)) == [0, 0]
        before, settings = client.model(), client.services.settings
        after = LoadedModel.load("pairs", 1, settings, verify("pairs", 1, settings))
        client.catalog.set_ready(client.catalog.models["pairs"][1], after)
        before.engine = Broken(before.engine)
        assert counts(await ask(client, sequence_end=True)) == [1, 0]


async def test_an_idle_sequence_is_dropped_and_one_too_many_is_503(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(root, max_sessions=1, session_idle_seconds=60) as client:
        clock = Clock(monkeypatch)
        await ask(client, sequence_start=True)
        assert (await ask(client, sequence_id=2, sequence_start=True)).status == 503
        await clock.wait(61)
        assert (await ask(client)).status == 400
        assert counts(await ask(client, sequence_id=2, sequence_start=True)) == [0, 0]


async def test_a_line_counts_as_it_grows(tmp_path: Path) -> None:
    async with streamed(tmp_path) as stream:
        for size in (2**16 + 1, 2**17, 2**18):
            stream.come(b"x" * (size - stream.client.reserved))
            await until(lambda size=size: stream.client.reserved == size)  # type: ignore[misc]
        stream.come(b"", more=False)


async def test_lines_that_exceed_the_budget_end_their_stream_with_a_sentence(tmp_path: Path) -> None:
    async with streamed(tmp_path, max_pending_bytes=2**20, max_body_bytes=2**20) as stream:
        stream.come(b"x" * 2**19)
        stream.come(b"x" * 2**20)
        stream.come(b"", more=False)
    assert stream.lines[-1] == {
        "type": "error",
        "error": f"the bodies and answers of all requests in progress would have {2**19 + 2**20} bytes with this one, "
        f"expected at most {2**20}",
    }


async def test_a_message_counts_while_its_windows_run_and_takes_no_objects_beside(tmp_path: Path) -> None:
    # 2**16 events, and one that closes two windows of 2 ms. As lists and integers they would take 48 bytes each.
    times = [4_000_000_000] * 2**16 + [4_000_004_000]
    message = json.dumps({"type": "events", "t": times, "unit": [0] * len(times)}).encode() + b"\n"
    async with streamed(tmp_path) as stream:
        with traced():
            stream.come(message, more=False)
            await until(lambda: len(stream.lines) == 4)
    assert [line["type"] for line in stream.lines] == ["window", "window", "window", "end"]
    assert stream.seen[0] == stream.seen[1] >= len(message) > stream.seen[2] == 0
    beside = [taken - counted for taken, counted in zip(stream.taken, stream.seen, strict=True)]
    assert beside[0] - beside[-1] < 32 * 2**16  # which the events themselves take, as records and in their window


async def test_of_messages_that_come_at_once_one_is_answered_in_each_loop_iteration(tmp_path: Path) -> None:
    iterations = 0

    def count() -> None:
        nonlocal iterations
        iterations += 1
        asyncio.get_running_loop().call_soon(count)

    async with streamed(tmp_path) as stream:
        count()
        stream.come(b'{"type": "time", "t": 0}\n\n \n' * 2000, more=False)
    assert iterations >= 2000
    assert stream.lines == [{"type": "end", "windows": 0, "events": 0, "late": 0}]
