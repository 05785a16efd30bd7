"""An ordinary request is answered, byte for byte, as the application answers it: whatever it says, however it is cut.

Two servers of the same models stand side by side. One has a gate, behind which ordinary requests are answered as a
batch; the other sends all requests to the application. Each conversation is held with both.
"""

import asyncio
import io
import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spikeserve.models.spec.network import Network
from spikeserve.service.app import create_app
from spikeserve.service.http.gate import Gate
from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.inference.decoding.rows import RowReader
from spikeserve.service.inference.ordinary.native import NativeFormat
from spikeserve.service.keys import new_key
from spikeserve.service.process.connections import (
    ConnectionLimits,
    OrdinaryRequest,
    cancel_requests,
    connection_class,
)
from spikeserve.service.process.turns import TimedSelector
from spikeserve.service.services import Services
from spikeserve.service.settings import Settings
from tests import held
from tests.bundles import publish, published
from tests.networks import network_of, task, toy
from tests.service.asgi import until
from tests.service.ordinary import Counting, networks

KEY, DIGEST = new_key()
RESET = b"reset"
SEVERAL = 9  # files that are ready in an iteration of the event loop: a request waits for its end
LAST = b"GET /health/live HTTP/1.1\r\nHost: test\r\nX-Request-ID: last\r\nConnection: close\r\n\r\n"
# What differs between two servers, or two moments: the date, ids that clients did not give, and times.
OWN = re.compile(rb"date: [^\r]*|x-request-id: [0-9a-f]{32}|request [0-9a-f]{32}")
COUNTED = re.compile(
    r"spikeserve_(http_requests_total|http_request_seconds_count|model_requests_total|model_request_seconds_count"
    r"|samples_total|request_synaptic_operations|dense_synaptic_operations|layer_|steps_saved|encode_seconds_count"
    r"|http_requests_in_flight|connections_refused)"
)


def camera() -> Network:
    """Return a network of the events of a camera of 3 × 2 pixels, on and off, each of which is half a current."""
    return network_of(
        [
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": 12, "out_features": 3, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"fc.weight": (np.arange(36).reshape(3, 12) / 8).tolist()},
        **task([2, 2, 3], 4, "abc", "spikes", scale=0.5),
    )


class Server:
    """A server of an app, on an event loop of its own that runs while a test asks."""

    def __init__(self, repository: Path, *, gated: bool, **limits: int) -> None:
        own: dict[str, Any] = {"engine": "event", "default_model": "toy", "api_keys": DIGEST, **limits}
        self.app = create_app(Settings(repository=repository, **own))
        self.services: Services = self.app.state.services
        self.selector = TimedSelector()  # of no event loop, for which it says that so many files were ready
        self.services.iteration.files = SEVERAL
        bounds = ConnectionLimits(60, 60, MemoryBudget(2**30), self.services.metrics.requests.count_refused)
        self.tick = Counting(self.services)
        kind = connection_class(bounds, self.selector, *((Gate(self.services), self.tick) if gated else ()))
        config = uvicorn.Config(self.app, http=kind, lifespan="off", ws="none", log_config=None)
        self.server = uvicorn.Server(config)
        self.runner, self.stack = asyncio.Runner(), AsyncExitStack()
        self.address: tuple[str, int] = ("", 0)

    async def start(self) -> None:
        """Start it, and go on once its models are loaded."""
        stack = self.stack
        await stack.enter_async_context(self.app.router.lifespan_context(self.app))
        while not self.services.readiness.first_load_over:
            await self.services.loader.loads_over()
            await asyncio.sleep(0)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address = listener.getsockname()
        serving = asyncio.create_task(self.server.serve([listener]))
        while not self.server.started:
            await asyncio.sleep(0)

        async def stop() -> None:
            self.server.should_exit = True
            await serving

        stack.push_async_callback(stop)

    async def converse(self, pieces: Sequence[bytes]) -> bytes:
        """Send the pieces one after the other, and return all that is received up to the connection's end."""
        reader, writer = await asyncio.open_connection(*self.address)
        received = asyncio.create_task(reader.read())
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                for _ in range(3):
                    await asyncio.sleep(0)
            async with asyncio.timeout(60):
                return OWN.sub(b"", await received)
        except ConnectionResetError:
            return RESET
        finally:
            writer.close()

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return self.services.metrics.requests.in_flight

    @property
    def gone(self) -> int:
        """How many clients left."""
        return int(self.services.metrics.requests.answered.of("POST", "/predict", 499).value)

    @property
    def has_ordinary(self) -> bool:
        """Whether any connection has an ordinary request that is not answered."""
        connections: set[Any] = self.server.server_state.connections
        return any(isinstance(connection.request, OrdinaryRequest) for connection in connections)

    @property
    def counted(self) -> list[str]:
        """What its metrics count."""
        text = self.services.metrics.exposition(self.services.catalog.version_records(), ready=True, labels={})
        return sorted(line for line in text.splitlines() if COUNTED.match(line))


class Pair:
    """A server with a gate and one without, each with an event loop of its own."""

    def __init__(self, repository: Path) -> None:
        self.gated, self.plain = (Server(repository, gated=gated) for gated in (True, False))
        for server in (self.gated, self.plain):
            server.runner.run(server.start())

    def converse(self, *conversations: Sequence[bytes]) -> list[bytes]:
        """Hold conversations with both servers, all of them at once, and compare; return what was received."""

        async def held(server: Server) -> list[bytes]:
            return await asyncio.gather(*(server.converse(pieces) for pieces in conversations))

        ours, theirs = (server.runner.run(held(server)) for server in (self.gated, self.plain))
        # Who sends on after an answer that closes the connection may lose that answer: the system resets it.
        compared = [each for each in zip(ours, theirs, strict=True) if RESET not in each]
        assert [our for our, _ in compared] == [their for _, their in compared]
        return ours

    def close(self) -> None:
        for server in (self.gated, self.plain):
            server.runner.run(server.stack.aclose())
            server.runner.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = published(tmp_path_factory, **(networks() | {"camera": camera()}))
    pair = Pair(root)
    yield pair
    assert pair.gated.counted == pair.plain.counted
    assert pair.gated.tick.answered > 0
    pair.close()


MODELS = {"toy": [2], "rate": [2], "late": [2], "raster": [2], "values": [2], "image": [2, 2, 3], "nobody": [2]}
NUMBERS = st.one_of(
    st.sampled_from(
        ["0", "1", "0.5", "1.0", "-0", "-0.0", "10", "11", "1e0", "1E-3", "2.5e+0", "01", "1.", ".5", "+1"]
    ),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "true", "null", '"1"', "1e400", "9" * 30, "0." + "9" * 30, "[]"]),
    st.sampled_from(
        ["1" + "0" * 400, "92233720368547758080", "0.92233720368547758080", "0." + "0" * 30 + "1", "1" + "0" * 64]
    ),
    st.floats(0, 1).map(repr),
    st.floats(0, 10, width=32).map(repr),
    st.floats(-300, 300).map(repr),
    st.integers(0, 255).map(str),
    st.decimals(0, 10, places=20).map(str),
)
PLAIN = st.one_of(st.floats(0, 1).map(repr), st.floats(0, 1, width=32).map(repr), st.sampled_from(["0", "1", "0.25"]))
SPACES = st.sampled_from(["", "", "", " ", "\n", "\t \r\n", "\f"])


def nested(numbers: Sequence[str], shape: Sequence[int], space: str) -> str:
    """Return numbers as JSON, nested like the shape."""
    if len(shape) > 1:
        size = len(numbers) // shape[0]
        rows = [nested(numbers[at : at + size], shape[1:], space) for at in range(0, size * shape[0], max(1, size))]
        return f"[{space}{f',{space}'.join(rows)}]"
    return f"[{f',{space}'.join(numbers)}{space}]"


@st.composite
def arrays(draw: st.DrawFn, shape: list[int], odd: bool) -> tuple[str, int]:
    """Return an array of samples as JSON, and how many they are."""
    samples, size = draw(st.integers(1, 4)), int(np.prod(shape))
    count = samples * size + (draw(st.sampled_from([0, 0, 0, 1, -1])) if odd else 0)
    numbers = draw(st.lists(NUMBERS if odd else PLAIN, min_size=count, max_size=count))
    form = draw(st.sampled_from([[samples, *shape], [samples, size], [samples * size]]))
    return nested(numbers, form, draw(SPACES) if odd else draw(st.sampled_from(["", " "]))), samples


OF_V2 = [
    '"id":"a"',
    '"id":"é\\ud83d\\ude00"',
    '"model_name":"toy"',
    '"outputs":[]',
    '"outputs":[{"name":"label"}]',
    '"outputs":[{"name":"spike_counts"},{"name":"probabilities"}]',
    '"outputs":[{"name":"steps_used"}]',
    '"outputs":[{"name":"label","parameters":{"binary_data":true}}]',
    '"outputs":[{"name":"probabilities","parameters":{"classification":1}}]',
]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a path and a body, most of them ordinary."""
    odd = draw(st.integers(0, 3)) == 0
    name, is_v2 = draw(st.sampled_from(list(MODELS))), draw(st.booleans())
    array, samples = draw(arrays(MODELS[name], odd))
    path = draw(st.sampled_from([f"/models/{name}", f"/models/{name}/versions/1"] + ([""] if name == "toy" else [])))
    options = draw(
        st.lists(
            st.sampled_from(
                ['"time_steps":2', '"time_steps":0', '"seed":7', '"seed":8', '"stop":"decided"', '"stop":"confident"']
                + ['"stop":null', '"time_steps": 7']
                + (['"x":1', '"return":["raster"]', '"return":[]'] if odd else [])
            ),
            max_size=2 if odd else 1,
        )
    )
    if not is_v2:
        key = draw(st.sampled_from(['"inputs"', '"inpu\\u0074s"', '"input"'])) if odd else '"inputs"'
        fields = draw(st.permutations([f"{key}:{draw(SPACES) if odd else ' '}{array}", *options]))
        body = "{" + ", ".join(fields) + "}"
        return f"{path}/predict", _spoilt(draw, body, odd)
    shape = json.dumps(
        [samples, *MODELS[name]] if not odd else draw(st.sampled_from([[samples, 2], [samples, 12], [0]]))
    )
    datatype = draw(st.sampled_from(["FP32", "FP64", "FP16", "INT32", "UINT8", "BYTES"] if odd else ["FP32", "FP64"]))
    tensor = ['"name":"inputs"', f'"shape":{shape}', f'"datatype":"{datatype}"', f'"data":{array}']
    tensor = draw(st.permutations(tensor)) if odd else tensor
    fields = [f'"inputs":[{{{",".join(tensor)}}}]']
    if options:
        fields.append(f'"parameters":{{{",".join(options)}}}')
    fields += draw(st.lists(st.sampled_from(OF_V2), max_size=2))
    return f"/v2{path or '/models/toy'}/infer", _spoilt(draw, "{" + ",".join(fields) + "}", odd)


PLACES = {"t": 4, "unit": 12, "x": 3, "y": 2, "p": 2}  # of the camera, and in `raster` two units


@st.composite
def events(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a path and a body of events, most of them ordinary."""
    odd, space = draw(st.integers(0, 3)) == 0, draw(SPACES)
    name, count = draw(st.sampled_from([("camera", 12), ("camera", 12), ("raster", 2)]))
    samples = []
    for _ in range(draw(st.integers(1, 3))):
        pixels = (name == "camera" or odd) and draw(st.booleans())
        fields, many = ["t", "x", "y", "p"] if pixels else ["t", "unit"], draw(st.integers(0, 8))
        if odd:
            fields += draw(st.sampled_from([[], [], ["t"], ["x"], ["z"]]))
        lists = []
        for field in draw(st.permutations(fields)):
            limit = count if field == "unit" else PLACES.get(field, 2)
            number = st.one_of(NUMBERS, st.integers(0, limit).map(str)) if odd else st.integers(0, limit - 1).map(str)
            of = many + (draw(st.sampled_from([0, 0, 0, 0, 1])) if odd else 0)
            lists.append(f'"{field}":{space}[{f",{space}".join(draw(st.lists(number, min_size=of, max_size=of)))}]')
        samples.append(f"{{{space}{f',{space}'.join(lists)}{space}}}")
    if odd and draw(st.booleans()):
        samples.append(draw(st.sampled_from(["[[0,1]]", "{}", "[]", "0"])))
    options = draw(
        st.lists(st.sampled_from(['"time_steps":4', '"time_steps":7', '"stop":"decided"', '"seed":3']), max_size=1)
    )
    fields = draw(st.permutations([f'"inputs":[{space}{f",{space}".join(samples)}]', *options]))
    return f"/models/{name}/predict", _spoilt(draw, f"{{{','.join(fields)}}}", odd)


def _spoilt(draw: st.DrawFn, body: str, odd: bool) -> bytes:
    content = body.encode()
    if odd and draw(st.booleans()):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.sampled_from([b"", b",", b"]", b"[", b'"', b"\xff", b"0"])) + content[at + 1 :]
    return content


VALUES = st.sampled_from([0.0, -0.0, 1.0, 0.25, 1e-45, -1.0, 255.5, 300.0, np.nan, np.inf])


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, bytes, list[bytes]]:
    """Return a path, a body with values as bytes, an .npy or of the protocol v2, and the header lines that it needs."""
    odd = draw(st.integers(0, 3)) == 0
    name, samples = draw(st.sampled_from(list(MODELS))), draw(st.integers(1, 4))
    sizes = [samples, *MODELS[name]]
    count = int(np.prod(sizes))
    numbers = draw(st.lists(VALUES if odd else st.floats(0, 1, width=32), min_size=count, max_size=count))
    dtype = draw(st.sampled_from(["<f4", "<f4", ">f4", "<f8", "<f2", "<i2"] if odd else ["<f4"]))
    with np.errstate(invalid="ignore", over="ignore"):
        array = np.array(numbers).astype(dtype)
    if draw(st.booleans()):
        array = array.reshape(draw(st.sampled_from([sizes, [samples, -1], [count]] if odd else [sizes])))
        file = io.BytesIO()
        np.save(file, np.asfortranarray(array) if odd and draw(st.booleans()) else array)
        lines = [b"Content-Type: application/x-npy"]
        return f"/models/{name}/predict", _cut(draw, file.getvalue(), odd), lines
    datatype = draw(st.sampled_from(["FP32", "FP64", "INT32"])) if odd else "FP32"
    size = array.nbytes + (draw(st.sampled_from([0, 0, 4, -4])) if odd else 0)
    fields = [
        f'"inputs":[{{"name":"inputs","shape":{json.dumps(sizes)},"datatype":"{datatype}",'
        f'"parameters":{{"binary_data_size":{size}}}}}]'
    ]
    fields += draw(st.lists(st.sampled_from([*OF_V2, '"parameters":{"binary_data_output":true}']), max_size=2))
    text = f"{{{','.join(fields)}}}".encode()
    length = len(text) + (draw(st.sampled_from([0, 0, 1, -1, 10**6])) if odd else 0)
    lines = [b"Inference-Header-Content-Length: %d" % length]
    lines += draw(
        st.sampled_from([[], [b"Content-Type: application/octet-stream"], [b"Content-Type: application/json"]])
    )
    return f"/v2/models/{name}/infer", _cut(draw, text + array.tobytes(), odd), lines


def _cut(draw: st.DrawFn, content: bytes, odd: bool) -> bytes:
    at = draw(st.integers(0, len(content))) if odd else len(content)
    return draw(st.sampled_from([content[:at], content, content, content + b"0"])) if odd else content


HEADERS = st.lists(
    st.sampled_from(
        [
            b"Connection: keep-alive",
            b"Connection: close",
            b"Accept: */*",
            b"Accept-Encoding: gzip, deflate",
            b"User-Agent: test",
            b"Origin: http://elsewhere.example",
            b"X-Request-ID: odd id!",
            b"X-Request-ID: given.1",
            b"X-Request-Timeout-Ms: 60000",
            b"X-Request-Timeout-Ms: 0900",
            b"X-Request-Timeout-Ms: none",
            b"Expect: 100-continue",
            b"Content-Encoding: identity",
            b"Content-Type: text/plain",
            b"Authorization: Bearer none",
            b"Upgrade: websocket",
            b"Inference-Header-Content-Length: 1",
        ]
    ),
    max_size=1,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        path, body = draw(st.one_of(bodies(), events()))
        kind = [draw(st.sampled_from([b"Content-Type: application/json"] * 4 + [b"content-type: application/json "]))]
    else:
        path, body, kind = draw(tensors())
    lines = [b"POST %s HTTP/1.1" % path.encode(), b"Host: test", *kind]
    lines += [b"Authorization: Bearer " + KEY.encode()] if draw(st.integers(0, 9)) else []
    lines += draw(HEADERS) if draw(st.integers(0, 2)) == 0 else []
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Return a client's bytes, cut anywhere."""
    whole = b"".join(draw(st.lists(requests(), min_size=1, max_size=3))) + LAST
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@hypothesis_settings(max_examples=200)
@given(st.lists(conversations(), min_size=1, max_size=4), st.sampled_from([1, SEVERAL]))
def test_both_ways_answer_byte_for_byte_alike(pair: Pair, mix: list[list[bytes]], files: int) -> None:
    pair.gated.services.iteration.files = files
    pair.converse(*mix)
    pair.gated.services.iteration.files = SEVERAL


def post(body: bytes, *lines: bytes, path: bytes = b"/predict") -> bytes:
    """Return an ordinary request, with more header lines if they are given."""
    head = (b"POST %s HTTP/1.1" % path, b"Host: test", b"Content-Type: application/json", b"X-Request-ID: one")
    key = b"Authorization: Bearer " + KEY.encode()
    return b"\r\n".join([*head, key, *lines, b"Content-Length: %d" % len(body), b"", body])


BODY = b'{"inputs":[[1,0]]}'
NPY_LINE, BYTES_LINE = b"Content-Type: application/x-npy", b"Content-Type: application/octet-stream"
INFER = b"/v2/models/toy/infer"


@pytest.mark.parametrize(
    ("name", "sample", "ordinary"),
    [
        ("raster", '{"t":[1,0,1,1],"unit":[1,0,1,0]}', True),
        ("raster", '{"unit":[],"t":[]}', True),
        ("camera", '{"t":[3,0],"x":[2,0],"y":[1,1],"p":[0,1]}', True),
        ("camera", '{"t":[3,0],"unit":[11,0]} , { "t" : [ 1 ] , "x":[2],"y":[1],"p":[0]}', True),
        ("raster", '{"t":[1],"x":[0],"y":[0],"p":[0]}', False),
        ("raster", '{"t":[1],"unit":[2]}', False),
        ("raster", '{"t":[1,1],"unit":[0]}', False),
        ("raster", '{"t":[1],"unit":[0],"t":[1]}', False),
        ("camera", '{"t":[' + "0," * 999 + '0],"unit":[' + ",".join(str(k % 12) for k in range(1000)) + "]}", False),
        ("camera", '{"t":[' + "0," * 999 + '0],"unit":[' + "7," * 999 + "7]}", True),
    ],
    ids=str,
)
def test_events_are_ordinary_where_they_need_little_sorting(pair: Pair, name: str, sample: str, ordinary: bool) -> None:
    before = pair.gated.tick.answered
    pair.converse([post(f'{{"inputs":[{sample}]}}'.encode(), path=f"/models/{name}/predict".encode()) + LAST])
    assert pair.gated.tick.answered == before + ordinary


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (BODY, ()),
        (b'{"inputs":[[1,0],[0.5,2.5e-1]],"time_steps":2}', ()),
        (b'{ "stop" : null , "inputs" : [ [1,0] ] }'.replace(b"[ [", b"[[").replace(b"] ]", b"]]"), ()),
        (BODY, (b"Accept-Encoding: gzip", b"Connection: Keep-Alive", b"Cookie: a=b")),
        (BODY, (b"X-Request-Timeout-Ms: 1000",)),  # no such deadline passes within a tick
    ],
)
def test_a_plain_request_is_ordinary(pair: Pair, body: bytes, lines: Sequence[bytes]) -> None:
    before = pair.gated.tick.answered
    (received,) = pair.converse([post(body, *lines) + LAST])
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert pair.gated.tick.answered == before + 1


@pytest.mark.parametrize(
    ("body", "lines", "status"),
    [
        (b'{"inputs":[[1,0]],"inputs":[[1,0]]}', (), 400),
        (b'{"inputs":[[1,0]],"return":["spikes_per_node"]}', (), 200),
        (b'{"inputs":[[1,11]]}', (), 422),  # beyond the declared range
        (b'{"inputs":[[1,-0]]}', (), 200),  # the integer -0 is 0, and not the float -0.0
        (b'{"inputs":[[1,' + b"9" * 40 + b"]]}", (), 422),
        (b'{"x":"[[1,0]]","inputs":[[1,0]]}', (), 422),
        (BODY, (b"X-Request-Timeout-Ms: 0",), 400),
        (BODY, (b"X-Request-Timeout-Ms: 999",), 200),
        (BODY, (b"X-Request-Timeout-Ms: 1000000",), 200),
        (BODY, (b"X-Request-Timeout-Ms: +1000",), 400),
        (BODY, (b"Accept: a", b"Accept: b"), 200),  # a name that is there twice
        (BODY, (b"Authorization: Bearer none",), 401),  # the first would do, but the last of a name counts
    ],
)
def test_what_is_odd_goes_the_full_way(pair: Pair, body: bytes, lines: Sequence[bytes], status: int) -> None:
    before = pair.gated.tick.answered
    (received,) = pair.converse([post(body, *lines) + LAST])
    assert int(received.split()[1]) in (status, 200)
    assert pair.gated.tick.answered == before


def npy(values: Any, dtype: str = "<f4", order: str = "C") -> bytes:
    """Return an array as the bytes of an .npy."""
    file = io.BytesIO()
    np.save(file, np.array(values, dtype, order=order))  # type: ignore[call-overload]
    return file.getvalue()


def of_bytes(values: Any, *fields: str, size: int | None = None) -> tuple[bytes, bytes]:
    """Return a body of the protocol v2 whose values are bytes behind its JSON, and the header line with its length."""
    array = np.array(values, "<f4")
    told = {"binary_data_size": array.nbytes if size is None else size}
    tensor = {"name": "inputs", "shape": array.shape, "datatype": "FP32", "parameters": told}
    text = b"{%b}" % ",".join(['"inputs":' + json.dumps([tensor]), *fields]).encode()
    return text + array.tobytes(), b"Inference-Header-Content-Length: %d" % len(text)


ONE_AS_BYTES = '"outputs":[{"name":"label","parameters":{"binary_data":true}},{"name":"spike_counts"}]'
ALL_AS_BYTES = '"parameters":{"binary_data_output":true}'


@pytest.mark.parametrize(
    ("body", "line", "path", "ordinary"),
    [
        (npy([[1, 0], [0.5, 0]]), NPY_LINE, b"/predict", True),
        (npy([[1, 0], [0.5, 0]], ">f4"), NPY_LINE, b"/predict", False),
        (npy([[1, 0], [0.5, 0]], "<f8"), NPY_LINE, b"/predict", False),
        (npy([[1, 0], [0.5, 0]], order="F"), NPY_LINE, b"/predict", False),
        (npy([[1, np.nan]]), NPY_LINE, b"/predict", False),
        (npy([[1, np.inf]]), NPY_LINE, b"/predict", False),
        (npy([[1, 99]]), NPY_LINE, b"/predict", False),
        (npy([[1, 0]])[:-1], NPY_LINE, b"/predict", False),
        (npy([[1, 0]]) + bytes(4), NPY_LINE, b"/predict", False),
        (npy([[1, 0]])[:60], NPY_LINE, b"/predict", False),
        (*of_bytes([[1, 0], [0.5, 0]]), INFER, True),
        (*of_bytes([[1, 0], [0.5, 0]], ALL_AS_BYTES, '"id":"a%d"'), INFER, True),
        (*of_bytes([[1, 0]], ONE_AS_BYTES), INFER, True),
        (*of_bytes([[1, 0]], size=4), INFER, False),
        (*of_bytes([[1, np.nan]]), INFER, False),
    ],
)
def test_values_are_ordinary_as_float32_rows(pair: Pair, body: bytes, line: bytes, path: bytes, ordinary: bool) -> None:
    before = pair.gated.tick.answered
    kind = b"Content-Type: application/json"
    request = post(body, path=path).replace(kind, line if path == b"/predict" else b"%b\r\n%b" % (BYTES_LINE, line))
    (received,) = pair.converse([request + LAST])
    assert pair.gated.tick.answered == before + ordinary
    assert not ordinary or received.startswith(b"HTTP/1.1 200 ")


ODD = 1000


def odd(kind: str, number: int) -> bytes:
    """Return a request that is odd in its own way: no other of its kind is the same."""
    tensor = '"inputs":[{"name":"inputs","shape":[1,2],"datatype":"FP32","data":[1,0]}]'
    match kind:
        case "id":
            return post(b'{"id":"%d",%b}' % (number, tensor.encode()), path=INFER)
        case "bytes":
            body, line = of_bytes([[1, 0]], f'"id":"{"x" * (number % 900)}{number}"')
            return post(body, line, path=INFER).replace(b"application/json", b"application/octet-stream")
        case "head":
            return post(BODY, b"X-Own: %d" % number).replace(b"X-Request-ID: one\r\n", b"")
        case "name":
            return post(BODY, path=b"/models/m%d/predict" % number)
        case "load":
            return post(b"{}", path=b"/v2/repository/models/m%d/load" % number)
        case _:
            return post(b"{}", path=b"/v2/repository/models/m%d/unload" % number)


@pytest.mark.parametrize("kind", ["id", "bytes", "head", "name", "load", "unload"])
def test_a_thousand_odd_requests_leave_nothing_behind(pair: Pair, kind: str) -> None:
    def ask(numbers: range) -> None:
        for server in (pair.gated, pair.plain):
            server.runner.run(server.converse([*(odd(kind, number) for number in numbers), LAST]))
            server.services.metrics.settle()

    pair.gated.services.catalog.changes += 1  # so that its gate knows nothing yet
    ask(range(10))
    with held.no_growth(ODD // 2):
        ask(range(10, 10 + ODD))


def test_headers_that_were_admitted_are_known_by_their_bytes_and_each_body_is_read(pair: Pair) -> None:
    # All of one length, so that their headers are the same; the third is no JSON and the fourth is beyond the range.
    bodies = [b'{"inputs":[[%b,0]]}' % number for number in (b"01.5", b"1.25", b"2,5,", b"99.5", b"0.75", b"3.25")]
    whole = [post(body).replace(b"X-Request-ID: one\r\n", b"") for body in bodies]
    for again in range(2):
        before = pair.gated.tick.answered
        (received,) = pair.converse([*whole, LAST])
        statuses = [int(each) for each in re.findall(rb"HTTP/1.1 (\d+) ", received)]
        assert statuses == [400, 200, 400, 422, 200, 200, 200], again
        assert pair.gated.tick.answered == before + 3
        pair.converse([b"".join(whole) + LAST], [whole[1][:-1], whole[1][-1:] + whole[1], LAST])
    mixed = whole[1].replace(KEY.encode(), KEY.encode()[::-1])
    (received,) = pair.converse([whole[1], mixed, whole[1], LAST])
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"200", b"401", b"200", b"200"]


def test_a_connection_closes_once_it_was_idle_for_all_its_time(pair: Pair) -> None:
    async def ask(server: Server) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        server.server.config.timeout_keep_alive = 1
        for _ in range(4):
            writer.write(post(BODY).replace(b"X-Request-ID: one\r\n", b""))
            await reader.readuntil(b"}]}")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.4)  # together longer than it may be idle
        assert await reader.read() == b""
        writer.close()

    for server in (pair.gated, pair.plain):
        server.runner.run(ask(server))


def test_more_requests_than_may_wait_are_shed_at_once_and_the_others_answered(tmp_path: Path) -> None:
    publish(tmp_path, toy(), "toy")
    server = Server(tmp_path, gated=True)

    async def ask() -> None:
        server.tick.held, server.tick.limit = True, 2
        paths = [b"/predict", b"/predict", b"/predict", INFER, b"/models/toy/predict"]
        answers = [asyncio.create_task(server.converse([post(BODY, path=path) + LAST])) for path in paths]
        await until(lambda: len(server.tick.waiting) == 2 and sum(each.done() for each in answers) == 3)
        server.tick.held = False
        server.tick.answer_all()
        received = await asyncio.gather(*answers)
        shed = [each for each in received if each.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")]
        assert len(shed) == len(paths) - 2
        assert all(b"model 'toy' has 2 requests waiting, expected fewer than max_queue" in each for each in shed)
        assert all(b"\r\nretry-after: " in each for each in shed)
        assert all(b"HTTP/1.1 200 OK\r\n" in each for each in received)  # the connection goes on
        versions = server.services.catalog.version_records()
        metrics = server.services.metrics.exposition(versions, ready=True, labels={})
        assert 'spikeserve_requests_shed_total{model="toy"} 3.0' in metrics

    try:
        server.runner.run(server.start())
        server.runner.run(ask())
    finally:
        server.runner.run(server.stack.aclose())
        server.runner.close()


def test_a_request_that_waits_for_its_batch_at_the_end_of_the_grace_period_is_503(tmp_path: Path) -> None:
    publish(tmp_path, toy(), "toy")
    server = Server(tmp_path, gated=True)

    async def ask() -> bytes:
        server.tick.held = True
        answer = asyncio.create_task(server.converse([post(BODY)]))
        await until(lambda: server.has_ordinary)
        server.services.catalog.draining = True
        await asyncio.wait(await cancel_requests(server.server))
        return await answer

    try:
        server.runner.run(server.start())
        assert server.runner.run(ask()).startswith(b"HTTP/1.1 503 ")
    finally:
        server.runner.run(server.stack.aclose())
        server.runner.close()


def test_a_request_beyond_the_limits_is_not_ordinary(tmp_path: Path) -> None:
    publish(tmp_path, toy(), "toy")
    server = Server(tmp_path, gated=True, max_values=11)  # two samples of two neurons take three steps: 12
    try:
        server.runner.run(server.start())
        received = server.runner.run(server.converse([post(b'{"inputs":[[1,0],[1,0]]}') + LAST]))
    finally:
        server.runner.run(server.stack.aclose())
        server.runner.close()
    assert received.startswith(b"HTTP/1.1 413 ")
    assert server.tick.answered == 0


def test_a_body_that_comes_late_is_waited_for_and_a_client_that_leaves_is_counted_as_gone(pair: Pair) -> None:
    whole = post(BODY)

    async def ask(server: Server) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(whole[:-5])
        await until(lambda: server.in_flight == 1)
        await until(lambda: not server.has_ordinary)  # for it waits no longer than BODY_SECONDS
        writer.write(whole[-5:] + LAST)
        received = await reader.read()
        writer.close()
        for waits in (False, True):
            gone = server.gone
            _, writer = await asyncio.open_connection(*server.address)
            writer.write(whole[:-1])
            await until(lambda: server.in_flight == 1)
            if waits:
                await until(lambda: not server.has_ordinary)
            writer.close()
            await until(lambda: server.gone == gone + 1 and server.in_flight == 0)  # noqa: B023
        return OWN.sub(b"", received)

    ours, theirs = (server.runner.run(ask(server)) for server in (pair.gated, pair.plain))
    assert ours == theirs
    assert ours.startswith(b"HTTP/1.1 200 OK\r\n")


def test_requests_sent_ahead_are_answered_in_order_and_each_at_its_turn(pair: Pair) -> None:
    bodies = [b'{"inputs":[[%d,0]]}' % (index % 5) for index in range(200)]
    many = b"".join(post(body) for body in bodies) + LAST
    (received,) = pair.converse([many])
    assert received.count(b"HTTP/1.1 200 OK\r\n") == len(bodies) + 1


def test_a_flood_shares_runs_of_no_more_rows_than_there_are(pair: Pair) -> None:
    one = post(b'{"inputs":[%s]}' % b",".join([b"[1,0]"] * 40)) + LAST
    received = pair.converse(*[[one]] * 50)
    assert all(each.startswith(b"HTTP/1.1 200 OK\r\n") for each in received)


def test_bodies_of_sizes_that_double_are_answered_alike_however_long(pair: Pair) -> None:
    sizes = [2**power for power in range(10)]
    bodies = [b'{"inputs":[%s]}' % b",".join([b"[0.125,0.0625]"] * size) for size in sizes]
    pair.converse(*[[post(body), LAST] for body in bodies], [b"".join(map(post, bodies)) + LAST])


@pytest.mark.parametrize(("before", "status"), [(len(post(BODY)) - 5, b"200"), (0, b"503")], ids=["due", "in a buffer"])
def test_what_has_come_when_the_server_stops_is_answered_and_closes(pair: Pair, before: int, status: bytes) -> None:
    async def ask(server: Server) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        connections = server.server.server_state.connections
        writer.write(post(BODY)[:before])
        await until(lambda: server.in_flight == 1 if before else len(connections) == 1)
        server.services.catalog.draining = True
        writer.write(post(BODY)[before:])  # the server reads it in its next iteration
        for connection in list(connections):
            connection.shutdown()
        received = await reader.read()
        writer.close()
        server.services.catalog.draining = False
        return OWN.sub(b"", received)

    ours, theirs = (server.runner.run(ask(server)) for server in (pair.gated, pair.plain))
    assert ours == theirs
    assert ours.startswith(b"HTTP/1.1 %s " % status)
    assert ours.count(b"connection: close\r\n") == 1


def test_a_version_that_is_unloaded_or_a_server_that_drains_answers_no_ordinary_request(pair: Pair) -> None:
    path = b"/models/image/predict"
    body = b'{"inputs":[[1,0,0,0,0,0,0,0,0,0,0,0]]}'
    for server in (pair.gated, pair.plain):
        server.services.catalog.draining = True
    (received,) = pair.converse([post(BODY) + LAST])
    assert received.startswith(b"HTTP/1.1 503 ")
    for server in (pair.gated, pair.plain):
        server.services.catalog.draining = False
    (received,) = pair.converse([post(body, path=path) + LAST])
    assert received.startswith(b"HTTP/1.1 200 ")
    for server in (pair.gated, pair.plain):
        server.runner.run(server.services.loader.unload("image"))
    (received,) = pair.converse([post(body, path=path) + LAST])
    assert received.startswith(b"HTTP/1.1 404 ")
    for server in (pair.gated, pair.plain):
        server.runner.run(server.services.loader.load("image"))
    (received,) = pair.converse([post(body, path=path) + LAST])
    assert received.startswith(b"HTTP/1.1 200 ")


def test_a_batch_that_fails_goes_the_full_way_for_each_request(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for server in (pair.gated, pair.plain):
        monkeypatch.setattr(server.services.catalog.get("toy"), "run", _fail)
    received = pair.converse(*[[post(BODY) + LAST]] * 2)
    assert all(each.startswith(b"HTTP/1.1 500 ") for each in received)


@pytest.mark.parametrize(("of", "name"), [(RowReader, "read"), (NativeFormat, "frame")])
def test_an_early_failure_goes_the_full_way(pair: Pair, monkeypatch: pytest.MonkeyPatch, of: type, name: str) -> None:
    monkeypatch.setattr(of, name, _fail)
    never_seen = BODY.replace(b"{", b"{ \n", 1)  # so that its frame is not known
    received = pair.converse(*[[post(never_seen) + LAST]] * 3)
    assert all(each.startswith(b"HTTP/1.1 200 ") for each in received)


def _fail(*_: object) -> None:
    raise RuntimeError("nobody caught this")
