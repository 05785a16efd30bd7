"""No parser takes much longer than in proportion to what it is given, whatever that is.

Each case makes inputs of one kind that a stranger may send, of any size up to the largest that the server takes. One of
16 times the size may take 16 times as long, and some more on a busy machine, but nowhere near 256. A refusal is as good
as an answer.
"""

import gc
import gzip
import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import process_time
from typing import Any

import numpy as np
import pytest
from websockets.server import ServerProtocol

from spikeserve.models.coding.records import make_records
from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec import Coding
from spikeserve.plugins.grpc.codec import MessageCodec
from spikeserve.plugins.grpc.messages import ModelInferRequest
from spikeserve.plugins.grpc.wire import part
from spikeserve.service.inference.decoding.binary import read_npy
from spikeserve.service.inference.decoding.json_events import EventReader
from spikeserve.service.inference.decoding.media import media_type
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.native.schemas import read_options, refuse_options
from spikeserve.service.inference.protocols.v2.codec import InferCodec
from spikeserve.service.inference.sessions.messages import StreamOptions, read_message
from spikeserve.service.inference.sessions.windows import Windows
from spikeserve.service.keys import KeyRing, bearer_key
from spikeserve.service.process.backlog import Backlog
from spikeserve.service.process.websockets import frame_bytes, handshake_error
from spikeserve.service.telemetry.access import request_id_of
from tests.bundles import published
from tests.inside import Inside
from tests.networks import toy
from tests.service.sessions.conftest import pairs
from tests.serving import serving

HEADER, SMALL, BODY = 2**16, 2**17, 2**20  # bytes: of headers, of what may hold the event loop, of a body
TIMES = 16  # the size of the large input beside that of the small one
MOST = 96.0  # the large one's time beside the small one's: 16 in proportion, 256 by the square
QUICK_SECONDS = 0.01  # what is read so quickly may grow as it likes
LONG_SECONDS = 1.0  # of a small input, beyond which the large one is not tried


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    root = published(tmp_path_factory, toy=toy(), spikes=toy(Coding.SPIKES), pairs=pairs())
    with serving(root, engine="reference", default_model="toy") as client:
        yield Inside(client.app)


Read = Callable[[Inside, bytes], object]
Make = Callable[[int], bytes]


def filled(start: bytes, unit: bytes, end: bytes = b"") -> Make:
    """Make a function from a size to an input: a part is repeated between a beginning and an end."""
    return lambda size: start + unit * ((size - len(start) - len(end)) // len(unit)) + end


def numbered(start: bytes, unit: bytes, between: bytes, end: bytes = b"") -> Make:
    """Return the same of parts that each hold their number."""
    return lambda size: start + between.join(unit % number for number in range(size // (len(unit) + 6))) + end


def native(models: Inside, body: bytes, name: str = "toy") -> None:
    NativeCodec(models.model(name)).decode(body)


def v2(models: Inside, body: bytes) -> None:
    InferCodec(models.model("toy"), models.services.blobs, {}, None).decode(body)


def v2_binary(models: Inside, body: bytes) -> None:
    headers = {b"inference-header-content-length": b"%d" % (len(body) // 2)}
    InferCodec(models.model("toy"), models.services.blobs, headers, None).decode(body)


def grpc(models: Inside, body: bytes) -> None:
    parted = part(body)
    MessageCodec(models.model("toy"), models.services.blobs, parted).decode(b"")


def message(_: Inside, text: bytes) -> None:
    read_message(text.decode(), None)


def values_message(_: Inside, text: bytes) -> None:
    read_message(text.decode(), 1)


def ordinary_events(models: Inside, body: bytes) -> None:
    reader = EventReader(models.model("spikes").spec, 4)
    reader.read(body, 0, len(body), 0, reader.rows)


def windows(models: Inside, content: bytes) -> None:
    spec = models.model("pairs").network.spec
    assert spec.input.events is not None
    closing = Windows(spec.input.events, 2)
    closing.add(closing.read(content))
    while closing.close() is not None:
        pass


def state(models: Inside, text: bytes) -> None:
    models.services.blobs.read(models.model("pairs"), text.decode())


def events(models: Inside, content: bytes) -> None:
    NativeCodec(models.model("pairs"), kind=b"application/vnd.spikeserve.events").decode(content)


def handshake(_: Inside, headers: bytes) -> None:
    lines = [tuple(line.split(b": ", 1)) for line in headers.split(b"\r\n") if b": " in line]
    handshake_error(b"/models/pairs/stream", lines)  # type: ignore[arg-type]
    protocol = ServerProtocol(max_size=None)
    protocol.receive_data(b"GET / HTTP/1.1\r\n" + headers + b"\r\n")
    for request in protocol.events_received():
        protocol.accept(request)  # type: ignore[arg-type]


def backlog(models: Inside, content: bytes) -> None:
    received = Backlog(models.services.budget)
    received.add(content)
    while received.take(0):
        pass


def frames(_: Inside, content: bytes) -> None:
    at = 0
    while size := frame_bytes(content, at):
        at += size


def key(_: Inside, header: bytes) -> None:
    KeyRing((b"x" * 32,), ()).refusal(bearer_key(header), control=False)


def npy(shape: tuple[int, ...]) -> Make:
    """Make a function from a number of values to an .npy whose header has that shape."""

    def make(size: int) -> bytes:
        file = io.BytesIO()
        np.save(file, np.zeros((size // 4 // int(np.prod(shape)), *shape), np.float32))
        return file.getvalue()

    return make


def tensor(kind: str, size: int, *, raw: bool) -> bytes:
    """Return an infer request of gRPC with so many bytes of values."""
    count = size // 8
    request: Any = ModelInferRequest(model_name="toy")
    request.inputs.add(name="inputs", datatype=kind, shape=[count // 2, 2])
    if raw:
        request.raw_input_contents.append(bytes(size // 16 * 16))
    else:
        request.inputs[0].contents.int64_contents.extend([2**40] * (count // 2 * 2))
    return bytes(request.SerializeToString())


BEGUN = b'{"inputs": ['
V2_BEGUN = b'{"inputs": [{"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": ['
CASES: dict[str, tuple[Read, int, Make]] = {
    # The query, and headers.
    "a query of many names": (lambda _, query: StreamOptions.read(query), HEADER, numbered(b"", b"%x=", b"&")),
    "a query of empty names": (lambda _, query: StreamOptions.read(query), HEADER, filled(b"", b"&")),
    "a query of escapes": (lambda _, query: StreamOptions.read(query), HEADER, filled(b"seed=", b"%41")),
    "a query of half escapes": (lambda _, query: StreamOptions.read(query), HEADER, filled(b"seed=", b"%")),
    "a query of digits": (lambda _, query: StreamOptions.read(query), HEADER, filled(b"seed=", b"1")),
    "a query of lists": (lambda _, query: read_options(query), HEADER, filled(b"return=", b"raster,")),
    "a query beside JSON": (lambda _, query: refuse_options(query), HEADER, numbered(b"", b"%x=", b"&")),
    "a key": (key, HEADER, filled(b"Bearer ", b"k")),
    "a key of spaces": (key, HEADER, filled(b"Bearer ", b" ")),
    "a request id": (lambda _, value: request_id_of({b"x-request-id": value}), HEADER, filled(b"", b"a")),
    "a media type": (
        lambda _, value: media_type({b"content-type": value}, b"application/json"),
        HEADER,
        filled(b"application/json", b";a=b"),
    ),
    "a handshake of many headers": (handshake, HEADER, numbered(b"", b"X-%x: ", b"\r\n", b"\r\n")),
    "a handshake of extensions": (handshake, 2**13, filled(b"Sec-WebSocket-Extensions: ", b"a;b=c,", b"\r\n")),
    "a handshake of connections": (handshake, HEADER, filled(b"", b"Connection: a, b\r\n")),
    "headers": (backlog, SMALL, filled(b"GET / HTTP/1.1\r\n", b"a: b\r\n")),
    "empty lines": (backlog, SMALL, filled(b"", b"\r\n")),
    "lines that end with CR": (backlog, SMALL, filled(b"", b"\r")),
    "frames without payload": (frames, SMALL, filled(b"", b"\x89\x80" + bytes(4))),
    "frames": (frames, SMALL, filled(b"", b"\x82\x85" + bytes(9))),
    # JSON of the native protocol.
    "samples": (native, BODY, filled(BEGUN, b"[0,1],", b"[0,1]]}")),
    "samples of long numbers": (native, BODY, filled(BEGUN + b"[0,", b"1", b"]]}")),
    "samples of fractions": (native, BODY, filled(BEGUN + b"[0,0.", b"1", b"]]}")),
    "samples that are open": (native, SMALL, filled(BEGUN, b"[")),
    "samples of open rows": (native, BODY, filled(BEGUN, b"[0,")),
    "samples of strings": (native, SMALL, filled(BEGUN, b'"a",', b'"a"]}')),
    "a string": (native, BODY, filled(BEGUN + b'"', b"a", b'"]}')),
    "a string of escapes": (native, SMALL, filled(BEGUN + b'"', b'\\"', b'"]}')),
    "a string without an end": (native, SMALL, filled(BEGUN + b'"', b'\\"')),
    "empty samples": (native, BODY, filled(BEGUN, b"[],", b"[]]}")),
    "ragged samples": (native, BODY, filled(BEGUN, b"[0,1],[0],", b"[0,1]]}")),
    "fields": (native, SMALL, numbered(b"{", b'"%x":0', b",", b"}")),
    "a field many times": (native, SMALL, filled(b"{", b'"seed":0,', b'"inputs":[[0,1]]}')),
    "whitespace": (native, BODY, filled(b"{", b" \n", b'"inputs":[[0,1]]}')),
    "commas": (native, BODY, filled(BEGUN, b",")),
    "events": (
        lambda models, body: native(models, body, "spikes"),
        BODY,
        lambda size: json.dumps({"inputs": [{"t": [0] * (size // 6), "unit": [0] * (size // 6)}]}).encode(),
    ),
    "samples of events": (
        lambda models, body: native(models, body, "spikes"),
        SMALL,
        filled(BEGUN, b'{"t":[],"unit":[]},', b'{"t":[],"unit":[]}]}'),
    ),
    # Other bodies.
    "records": (events, BODY, lambda size: make_records(np.arange(size // 8), [0] * (size // 8)).tobytes()),
    "records in disorder": (
        events,
        BODY,
        lambda size: make_records(np.arange(size // 8)[::-1], [0] * (size // 8)).tobytes(),
    ),
    "an array": (lambda models, body: native(models, body), BODY, npy((2,))),
    "a header of an array": (lambda _, body: read_npy(body), 10_000, filled(b"\x93NUMPY\x01\x00\x10'", b"(")),
    "a shape of an array": (
        lambda _, body: read_npy(body),
        9_900,
        lambda size: (
            b"\x93NUMPY\x01\x00"
            + len(text := filled(b"{'descr':'<f4','fortran_order':False,'shape':(", b"9,", b")}")(size)).to_bytes(
                2, "little"
            )
            + text
        ),
    ),
    "compressed members": (
        lambda models, body: NativeCodec(models.model("toy"), unpack=_unpack).decode(body),
        SMALL,
        filled(b"", gzip.compress(b" ")),
    ),
    # The protocol v2, over HTTP and gRPC.
    "a tensor": (v2, BODY, filled(V2_BEGUN, b"0,", b"1]}]}")),
    "a nested tensor": (v2, BODY, filled(V2_BEGUN, b"[0,1],", b"[0,1]]}]}")),
    "a tensor of long numbers": (v2, BODY, filled(V2_BEGUN, b"1", b",1]}]}")),
    "a tensor that is open": (v2, SMALL, filled(V2_BEGUN, b"[")),
    "a tensor with many axes": (
        v2,
        BODY,
        filled(
            b'{"inputs": [{"name":"inputs","datatype":"FP32","shape":[', b"9223372036854775807,", b'1],"data":[1]}]}'
        ),
    ),
    "tensors": (v2, SMALL, filled(b'{"inputs": [', b"{},", b"{}]}")),
    "quotation marks in brackets": (v2, HEADER, filled(b"[" * 65 + b'"', b'\\"')),
    "strings in brackets": (v2, HEADER, filled(b"[" * 65, b'"",')),
    "an open string in brackets": (v2, BODY, filled(b"[" * 65 + b'"', b"\\\\")),
    "parameters": (v2, SMALL, numbered(b'{"inputs": [], "parameters": {', b'"%x":0', b",", b"}}")),
    "JSON in front of bytes": (v2_binary, BODY, filled(b"", b" ")),
    "raw contents": (grpc, BODY, lambda size: tensor("FP64", size, raw=True)),
    "typed contents": (grpc, BODY, lambda size: tensor("INT64", size, raw=False)),
    "fields of a message": (grpc, BODY, filled(b"", b"\x2a\x00")),
    "unknown fields of a message": (grpc, BODY, filled(b"", b"\x78\x01")),
    "numbers without an end": (grpc, BODY, filled(b"", b"\xff")),
    "a message with many axes": (
        grpc,
        HEADER,
        lambda size: ModelInferRequest(
            inputs=[ModelInferRequest.InferInputTensor(name="inputs", datatype="FP32", shape=[2**62] * (size // 9))]
        ).SerializeToString(),
    ),
    "events in descending order": (
        ordinary_events,
        SMALL,
        lambda size: json.dumps(
            [{"t": [0, 0] * (size // 12), "unit": [1, 0] * (size // 12)}], separators=(",", ":")
        ).encode(),
    ),
    # Sessions.
    "a message of events": (
        message,
        BODY,
        lambda size: json.dumps({"type": "events", "t": [0] * (size // 6), "unit": [0] * (size // 6)}).encode(),
    ),
    "a message of fields": (message, SMALL, numbered(b'{"type":"time","t":0,', b'"%x":0', b",", b"}")),
    "a message of long numbers": (message, BODY, filled(b'{"type":"time","t":', b"1", b"}")),
    "a message that is open": (message, BODY, filled(b'{"type":"events","t":', b"[")),
    "a message of escapes": (message, BODY, filled(b'{"type":"', b"\\u0041", b'"}')),
    "a message of values": (values_message, BODY, filled(b'{"type":"values","values":[', b"[0,1],", b"[0,1]]}")),
    # So long that the allocator maps the small one's names too, which takes eight times as long as finding room.
    "a message of names": (values_message, 4 * BODY, filled(b'{"type":"values",', b'"values":[],', b'"values":[]}')),
    "windows": (windows, SMALL, lambda size: make_records(np.arange(size // 8) * 2000, [0] * (size // 8)).tobytes()),
    "a state": (state, BODY, filled(b"", b"AAAA")),
    "a state of spaces": (state, BODY, filled(b"", b" ")),
}


def _unpack(packed: bytes) -> bytes:
    return gzip.decompress(packed)


def seconds(read: Read, models: Inside, given: bytes) -> float:
    """Return the processor time of reading an input, the least of several, or a limit that it exceeds."""
    least = LONG_SECONDS * TIMES
    gc.collect()
    gc.disable()  # or the large input would have all looked at that other tests left in this process
    for _ in range(3):
        began = process_time()
        with suppress(SpikeserveError, UnicodeDecodeError):
            read(models, given)
        least = min(least, process_time() - began)
        if least > LONG_SECONDS:
            break
    gc.enable()
    return least


@pytest.mark.parametrize("case", CASES)
def test_the_time_to_read_it_grows_no_faster_than_what_is_read(models: Inside, case: str) -> None:
    read, largest, make = CASES[case]
    small, large = make(largest // TIMES), make(largest)
    tried = []
    for _ in range(3):  # a busy machine's caches can make one reading slow; a slow parser is slow each time
        tried.append((seconds(read, models, small), seconds(read, models, large)))
        if tried[-1][1] < max(QUICK_SECONDS, MOST * tried[-1][0]):
            return
    pytest.fail(f"seconds of the small and of the large input: {tried}")
