"""What a session holds while it lives, and when it counts as idle, through real streams and sequences.

What a stream over HTTP holds of its body counts in the memory budget, from the socket to its last use.
"""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from starlette.types import Message

from spikeserve.models.coding.records import make_records
from spikeserve.service.inference.scheduling.query import NOBODY
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.inference.sessions.stream import Stream
from spikeserve.service.inference.sessions.table import UNCOUNTED_BYTES, OpenSession
from tests.bundles import publish
from tests.networks import toy
from tests.service.asgi import Answered, Client, Held, slow, started, traced, until
from tests.service.sessions.conftest import INFER, ONE, pairs

HOUR = 3600.0

pytestmark = pytest.mark.usefixtures("reference_engine")


async def served(
    client: Client,
    receive: Callable[[Stream, OpenSession], Awaitable[bytes | None]],
    lines: list[dict[str, Any]],
    reads: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> OpenSession:
    """Serve a stream to the end of what `receive` returns; its lines are added to `lines` while its client reads."""

    async def send(content: Sequence[bytes]) -> None:
        told = [json.loads(line) for line in content]
        if not reads(told[0]):
            await asyncio.Event().wait()
        lines.extend(told)

    with client.services.sessions.opened(client.model("pairs"), StreamOptions(), NOBODY, {}) as opened:
        stream = Stream(opened, client.services.sessions, client.services.blobs, send)
        await stream.serve(lambda: receive(stream, opened))
    return opened


async def test_the_bytes_of_events_that_wait_are_counted_once_and_given_back(root: Path) -> None:
    # Windows are of 2 ms: 5,000 events at 0, and as many again, wait until one at 2 ms closes their window.
    many = make_records([0] * 5000, [0] * 5000).tobytes()
    messages = [many, many, make_records([2000], [0]).tobytes(), make_records([2000] * 5000, [0] * 5000).tobytes()]
    reserved: list[int] = []

    async with started(root) as client:

        async def receive(stream: Stream, _: OpenSession) -> bytes | None:
            reserved.append(client.reserved)
            waiting = stream.session.windows.pending_bytes
            assert client.reserved == (waiting if waiting > UNCOUNTED_BYTES else 0)
            return messages.pop(0) if messages else None

        await served(client, receive, [])
        assert [size > 0 for size in reserved] == [False, True, True, False, True]
        assert reserved[2] > 1.5 * reserved[1]
        assert client.reserved == 0


async def test_the_bytes_of_events_that_wait_are_given_back_where_the_client_leaves(root: Path) -> None:
    async with started(root) as client:
        waiting = asyncio.Event()

        async def receive(_: Stream, __: OpenSession) -> bytes | None:
            if not client.reserved:
                return make_records([0] * 5000, [0] * 5000).tobytes()
            waiting.set()
            return await asyncio.get_running_loop().create_future()

        serving = asyncio.create_task(served(client, receive, []))
        await waiting.wait()
        serving.cancel()
        await asyncio.wait([serving])
        assert client.reserved == 0


async def test_a_stream_that_computes_is_not_idle(root: Path) -> None:
    # A window waits in the engine for longer than a session may be silent: its timer goes off twice meanwhile.
    lines: list[dict[str, Any]] = []
    async with started(root, session_idle_seconds=0.01) as client:
        held = slow(client.model("pairs"))
        streams: list[Stream] = []

        async def receive(stream: Stream, _: OpenSession) -> bytes | None:
            streams.append(stream)
            return make_records([0, 2000], [0, 0]).tobytes() if len(streams) == 1 else None

        serving = asyncio.create_task(served(client, receive, lines))
        await held.begun()
        for _ in range(2):
            await changed(lambda: streams[0].idle_timer)
        held.go_on.release(2)
        assert (await serving).ended is None
    assert [line["type"] for line in lines] == ["window", "window", "end"]


async def test_each_message_renews_a_stream(root: Path) -> None:
    async with started(root) as client:
        came = 0

        async def receive(stream: Stream, opened: OpenSession) -> bytes | None:
            nonlocal came
            came += 1
            assert stream.idle_timer is not None
            assert stream.idle_since is not None
            if came == 1:
                stream.idle_since -= HOUR  # it has been silent for so long
                return make_records([0], [0]).tobytes()
            stream.idle_timer.cancel()
            stream._watch()  # as its timer would
            assert opened.ended is None
            return None

        assert (await served(client, receive, [])).ended is None
        assert came == 2


async def test_a_stream_that_was_silent_has_no_credit_of_events(root: Path) -> None:
    # 100 events at 1,000 a second take 0.1 s, however long nothing came before.
    async with started(root, max_values=16_000) as client:
        came: list[float] = []

        async def receive(stream: Stream, _: OpenSession) -> bytes | None:
            stream.free_at -= HOUR
            came.append(perf_counter())
            return make_records([0] * 100, [0] * 100).tobytes() if len(came) == 1 else None

        await served(client, receive, [])
        assert came[1] - came[0] >= 0.1


async def changed(what: Callable[[], object]) -> None:
    """Wait until a value is another one: a timer was set again."""
    before = what()
    async with asyncio.timeout(60):
        while what() is before:
            await asyncio.sleep(0.001)


def ask(client: Client, **parameters: Any) -> asyncio.Task[Any]:
    body = {"inputs": [ONE], "parameters": {"sequence_id": 1, **parameters}}
    return asyncio.create_task(client.post(body, INFER))


async def test_a_sequence_that_computes_is_not_idle(root: Path) -> None:
    async with started(root, session_idle_seconds=0.01) as client:
        held: Held = slow(client.model("pairs"))
        asked = ask(client, sequence_start=True)
        await held.begun()
        (sequence,) = client.services.sequences.open.values()
        for _ in range(2):
            await changed(lambda: sequence.timer)
        assert client.sessions == 1
        held.go_on.release()
        assert (await asked).status == 200


async def test_each_request_renews_a_sequence(root: Path) -> None:
    async with started(root) as client:
        sequences = client.services.sequences
        assert (await ask(client, sequence_start=True)).status == 200
        ((key, sequence),) = sequences.open.items()
        for left in (1, 0):
            sequence.used -= HOUR  # nobody has asked for so long
            if left:
                assert (await ask(client)).status == 200
            assert sequence.timer is not None
            sequence.timer.cancel()
            sequences._watch(key, sequence)  # as its timer would
            assert len(sequences.open) == left


async def test_a_window_whose_line_was_not_sent_is_not_in_the_state(root: Path) -> None:
    messages = iter([[0, 2000], [4000, 6000]])  # the first closes window 0, the second windows 1 and 2
    lines: list[dict[str, Any]] = []
    blocked = asyncio.Event()

    async def receive(_: Stream, __: OpenSession) -> bytes:
        return make_records(next(messages), [0, 0]).tobytes()

    def reads(line: dict[str, Any]) -> bool:
        if line["type"] == "window" and line["window"] == 1:
            blocked.set()
            return False
        return True

    async with started(root) as client:
        serving = asyncio.create_task(served(client, receive, lines, reads))
        await blocked.wait()
        client.end_sessions()
        await serving
    first, state = lines
    assert (first["type"], state["type"]) == ("window", "state")
    assert state["type"] == "state"
    assert (state["window"], state["t"]) == (1, 2000)


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


async def test_an_idle_sequence_is_dropped_and_one_too_many_is_503(root: Path) -> None:
    async with started(root, max_sessions=1, session_idle_seconds=0.2) as client:
        await ask(client, sequence_start=True)
        assert (await ask(client, sequence_id=2, sequence_start=True)).status == 503
        async with asyncio.timeout(60):
            while client.sessions:
                await asyncio.sleep(0.01)
        assert (await ask(client)).status == 400
        assert counts(await ask(client, sequence_id=2, sequence_start=True)) == [0, 0]


async def test_a_constant_current_goes_on_too(tmp_path: Path) -> None:
    # Decay 0.5, threshold 1, current 0.75: charges 0.75, 1.125 (spike, left 0.125), 0.8125, 1.15625 (spike), …
    publish(tmp_path, toy(), "toy")
    tensor = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [0.75, 0]}
    async with started(tmp_path) as client:
        for start, expected in ((True, [0, 0]), (False, [1, 0]), (False, [1, 0]), (False, [2, 0])):
            parameters = {"time_steps": 1, "sequence_id": 1, "sequence_start": start}
            body = {"inputs": [tensor], "parameters": parameters}
            assert counts(await client.post(body, "/v2/models/toy/infer")) == expected


class Streamed:
    """A POST of a stream whose body the test sends.

    `seen` has the bytes reserved as each line was sent, `taken` those that Python's objects took, while that is traced.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.body: asyncio.Queue[Message] = asyncio.Queue()
        self.lines: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self.taken: list[int] = []

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
        assert stream.client.reserved == 0


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
