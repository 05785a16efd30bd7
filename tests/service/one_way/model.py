"""What is asked of a server, by any way in, and what the one way of a request promises of its answer."""

import gzip
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeserve.models.coding.records import make_records
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.plugins.grpc.wire import delimited, varint
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from spikeserve.service.keys import new_key
from tests.networks import network_of, task, toy
from tests.plugins.grpc.rpc import infer_request
from tests.service.http.recordings import npy
from tests.service.infer_requests import binary_request, request
from tests.service.sessions.conftest import pairs

KEY, DIGEST = new_key()
APP, ELSEWHERE, OWN = "https://app.example", "https://elsewhere.example", "http://test"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # a client's trace
GRPC = f"/{SERVICE}/ModelInfer"
MANY = "&".join(f"p{index}=" for index in range(17))
MAX_BODY = 20_000
SETTINGS = {"api_keys": DIGEST, "allowed_origins": APP, "max_body_bytes": MAX_BODY, "max_values": 200}
STEPS = 4  # of what is sent as spikes


def seen(weights: Any, *of_input: Any, **own: Any) -> Network:
    """Return a network of two channels of 2 × 3, which four steps long are summed by these weights."""
    layers: list[dict[str, Any]] = [
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": 12, "out_features": 3, "bias": False},
        {"type": "LIF", "name": "out", "decay": 0.5},
    ]
    return network_of(layers, {"fc.weight": weights}, **task([2, 2, 3], STEPS, *of_input, **own))


def stronger(network: Network) -> Network:
    """Return the same network with weights four times as large."""
    return replace(network, tensors={name: 4 * each for name, each in network.tensors.items()})


# Values that are normalised, some of which are drawn as spikes; and events, on and off, each of half a current.
IMAGE = seen(np.eye(3, 12).tolist(), ["a", 'b"', "é"], low=-1, high=255, scale=0.25, out_of_range="clip")
CAMERA = seen((np.arange(36).reshape(3, 12) / 8).tolist(), "abc", "spikes", scale=0.5)
OF_SPIKES = {"pairs": pairs(), "camera": CAMERA}
OF_VALUES = {"toy": toy(), "rate": toy(Coding.RATE), "late": toy(Coding.LATENCY, time_steps=5), "image": IMAGE}
NETWORKS = {name: (each, stronger(each)) for name, each in (OF_VALUES | OF_SPIKES).items()}  # by the version's weights

OF_NUMBERS = ["json", "charset", "untyped", "gzip", "<f4", "<f8", "|u1", "<i4", ">f8"]  # the last by columns
OF_EVENTS = {"pairs": ["events", "records"], "camera": ["events"]}
DATATYPES = ["FP32", "FP64", "UINT8"] * 2 + sorted(set(Datatype) - {Datatype.BYTES, Datatype.FP16})
OF_TENSORS = [f"{way} {datatype}" for way in ("v2", "bytes", "both") for datatype in [*DATATYPES, "FP16"]]
OF_CALLS = [f"{way} {datatype}" for way in ("raw", "typed") for datatype in ["FP32", *DATATYPES]]
USUAL = ["json", "<f4", "v2 FP32", "v2 FP64", "bytes FP32", "both FP32", "raw FP32", "typed FP32"]
TYPES = ["application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON; version=1"]

# What may be wrong with a request, in the order in which it is refused: by fault, the status of the native routes, that
# of the protocol v2, what the sentence says, the kinds of requests that may have it, and its header.
HTTP, JSON, V2 = "(?!raw|typed).*", "json|charset|untyped|events|v2 .*", ".* .*"
FAULTS: dict[str, tuple[int, int, str, str, dict[str, str]]] = {
    "fields": (422, 422, "the query has more than 16 parameters", HTTP, {}),
    "origin": (403, 403, f"the header Origin is '{ELSEWHERE}'", HTTP, {"Origin": ELSEWHERE}),
    "no key": (401, 401, "this path takes a key", ".*", {}),
    "wrong key": (401, 401, "the key in the header Authorization is not one", ".*", {"Authorization": "Bearer none"}),
    "drains": (503, 503, "the server is shutting down", "", {}),
    "model": (404, 404, "model '", ".*", {}),
    "type": (415, 415, "Content-Type is 'text/plain'", HTTP, {"Content-Type": "text/plain"}),
    "encoding": (415, 415, "Content-Encoding is 'br'", HTTP, {"Content-Encoding": "br"}),
    "time": (400, 400, "X-Request-Timeout-Ms is '0'", ".*", {"X-Request-Timeout-Ms": "0"}),
    "size": (413, 413, "bytes, expected at most", JSON, {}),
    "cut": (400, 400, "the body is", JSON, {}),
    "unknown": (422, 400, "x is not a field here", JSON, {}),
    "shape": (422, 400, "shape", "(?!events|records).*", {}),
    "late": (504, 504, "did not answer within the time", V2, {}),
    "": (200, 200, "", "", {}),
}
EARLY = ("fields", "origin", "no key", "wrong key")  # before there is a route
UNNAMED = (*EARLY, "drains", "model", "type", "encoding")  # before there is a version
OPTIONS = [("seed", 7), ("seed", 8), ("stop", "decided"), ("time_steps", 2), ("time_steps", 5), ("timeout", 10**7)]
HEADERS = [("Origin", OWN), ("Origin", APP), ("X-Server-Timing", "1"), ("Connection", "close")]
HEADERS += [("Expect", "100-continue"), ("X-Request-Timeout-Ms", "60000")]
HEADERS += [("traceparent", SAMPLED[:-2] + "00"), ("traceparent", SAMPLED)]
ANYWHERE, BYTE, NUMBER, LINE = b"", rb"(?s:.)", rb"[0-9][0-9.]*", rb"(?<=\r\n)"  # where something odd may be


@dataclass(frozen=True)
class Ask:
    """A request: of which model, how it is written, and what else its headers say. Version 0 is the default model's."""

    name: str = "toy"
    version: int | None = None
    kind: str = "json"
    samples: int = 1
    seed: int = 0  # of the values
    options: Sequence[tuple[str, Any]] = ()
    faults: Sequence[str] = ()
    id: str = ""
    headers: Sequence[tuple[str, str]] = ()
    # What else is written that nobody expects: in place of which pattern, of LINE in the headers and of others in the
    # body, at which of the places where that is found, from 0 to 1, and the text.
    odd: Sequence[tuple[bytes, float, bytes]] = ()

    @property
    def is_call(self) -> bool:
        """Whether it comes by gRPC."""
        return self.kind in OF_CALLS

    @property
    def is_v2(self) -> bool:
        """Whether it is in the protocol v2."""
        return " " in self.kind

    @property
    def _values(self) -> NDArray[Any]:
        is_spikes, shape = self.name in OF_SPIKES, NETWORKS.get(self.name, NETWORKS["toy"])[0].spec.input.shape
        most = 1 if is_spikes or self.name in ("rate", "late") or "BOOL" in self.kind else 4
        whole = is_spikes or self.kind in ("|u1", "<i4") or (self.is_v2 and " FP" not in self.kind)
        parts, size = 1 if whole else 8, (self.samples, *([STEPS] if is_spikes else []), *shape)
        values = np.random.default_rng(self.seed).integers(0, parts * most + 1, size) / parts
        if is_spikes:
            values[:, 0].flat[0] = 1  # a recording begins at its first event
        return np.concatenate([values, values[..., :1]], axis=-1) if "shape" in self.faults else values

    @property
    def path(self) -> str:
        """The path."""
        last = "/infer" if self.is_v2 else "/predict"
        model = "nobody" if "model" in self.faults else self.name
        version = f"/versions/{self.version}" if self.version else ""
        return last if self.version == 0 else f"{'/v2' * self.is_v2}/models/{model}{version}{last}"

    @property
    def route(self) -> str:
        """The template of its route, as the log has it."""
        if self.is_call:
            return GRPC
        route = re.sub("/models/[a-z]+", "/models/{name}", re.sub("/versions/.", "/versions/{version}", self.path))
        return route if set(EARLY).isdisjoint(self.faults) else "unmatched"

    def answer_of(self, ready: Mapping[str, Collection[int]], *, drains: bool) -> tuple[int, str, int | None]:
        """Return the status of its answer, what the sentence says, and the version that it is logged for."""
        versions = ready.get(self.name, ())
        number = self.version or max(versions, default=0)
        faults = {"", *self.faults, *(["drains"] if drains else []), *([] if number in versions else ["model"])}
        first = next(each for each in FAULTS if each in faults)
        native, v2, sentence, *_ = FAULTS[first]
        return v2 if self.is_v2 else native, sentence, None if first in UNNAMED else number

    @property
    def _options(self) -> dict[str, Any]:
        return dict(self.options) | ({"timeout": 1} if "late" in self.faults else {})

    def message(self) -> bytes:
        """Write it as a message of gRPC."""
        way, datatype = self.kind.split()
        name = "nobody" if "model" in self.faults else self.name
        own = {"model_version": str(self.version or ""), "id": self.id, "parameters": self._options}
        message = infer_request(self._values, name, datatype, raw=way == "raw", **own)
        return self._with_odd(message.SerializeToString())

    @property
    def metadata(self) -> dict[str, str]:
        """What it says beside its body."""
        own = {"Authorization": f"Bearer {KEY}"} | ({"X-Request-ID": self.id} if self.id else {}) | dict(self.headers)
        for fault in self.faults:
            own |= FAULTS[fault][-1]
        return {name: own[name] for name in own if name != "Authorization" or "no key" not in self.faults}

    def request(self) -> bytes:
        """Write it as a request of HTTP."""
        kind, body, query = self._body()
        query = MANY if "fields" in self.faults else query
        lines = [f"POST {self.path}{'?' * bool(query)}{query} HTTP/1.1", "Host: test"]
        lines += [f"{name}: {value}" for name, value in (kind | self.metadata).items()]
        head, body = self._with_odd("\r\n".join([*lines, ""]).encode(), of_head=True), self._with_odd(body)
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _with_odd(self, part: bytes, *, of_head: bool = False) -> bytes:
        for pattern, place, text in self.odd:
            if (pattern == LINE) == of_head and (found := list(re.finditer(pattern, part))):
                start, stop = found[round(place * (len(found) - 1))].span()
                part = part[:start] + text + part[stop:]
        return part

    def _body(self) -> tuple[dict[str, str], bytes, str]:
        """Return the headers that say what the body is, the body, and the query of its URL."""
        values, query = self._values, urlencode(self._options)
        if self.kind[0] in "<|>":
            array = values.astype(self.kind, "F" if self.kind[0] == ">" else "C")
            return {"Content-Type": "application/x-npy"}, npy(array), query
        if self.kind == "records":
            t, unit = values[0].nonzero()
            return {"Content-Type": "application/vnd.spikeserve.events"}, make_records(1000 * t, unit).tobytes(), query
        fields: dict[str, Any] = {"x": 1} if "unknown" in self.faults else {}
        if self.is_v2:
            way, datatype = self.kind.split()
            values = values.astype(DTYPES[Datatype(datatype)])
            fields |= {"parameters": self._options} | ({"id": self.id} if self.id else {})
            if way != "v2":
                fields["parameters"] |= {"binary_data_output": True} if way == "both" else {}
                body, kind = binary_request(values, datatype, **fields)
                return kind | {"Content-Type": "application/octet-stream"}, body, ""
            fields = request(values, datatype, **fields)
        elif self.kind == "events":
            pixels = self.name == "camera" and self.seed % 2
            columns = (values[0] if pixels else values[0].reshape(STEPS, -1)).nonzero()
            names = "tpyx" if pixels else ("t", "unit")
            fields |= {"inputs": [{name: each.tolist() for name, each in zip(names, columns, strict=True)}]}
        else:
            fields |= {"inputs": values.tolist()}
        body = json.dumps(fields if self.is_v2 else fields | self._options).encode()
        body = (body[:-1] if "cut" in self.faults else body).ljust((MAX_BODY + 1) * ("size" in self.faults))
        if self.kind == "gzip":
            return {"Content-Encoding": "gzip"}, gzip.compress(body, mtime=0), ""
        json_type = TYPES[self.seed % len(TYPES)] if self.kind == "charset" else "application/json"
        return {} if self.kind == "untyped" else {"Content-Type": json_type}, body, ""


def faults_of(kind: str) -> list[str]:
    """List the faults of a request of a kind, in the order in which they are refused."""
    return [fault for fault, (*_, kinds, _) in FAULTS.items() if re.fullmatch(kinds, kind)]


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    """Return a request of HTTP or a call of gRPC, one in four with faults."""
    name = draw(st.sampled_from(list(NETWORKS)))
    kind = draw(st.sampled_from([*OF_NUMBERS, *OF_TENSORS, *3 * OF_EVENTS.get(name, []), *OF_CALLS, *3 * USUAL]))
    version = draw(st.sampled_from([None, None, 1, 2, *([0] if name == "toy" and " " not in kind else [])]))
    without = {"time_steps" if name in OF_SPIKES else "", "timeout" if " " not in kind else ""}
    options = [each for each in OPTIONS if each[0] not in without]
    faults = [each for each in faults_of(kind) if each != "size" and (version != 0 or each != "model")]
    headers = st.lists(st.sampled_from(HEADERS), max_size=0 if kind in OF_CALLS else 2, unique_by=lambda each: each[0])
    return Ask(
        name,
        version,
        kind,
        samples=1 if kind in OF_EVENTS["pairs"] else draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 99)),
        options=draw(st.lists(st.sampled_from(options), max_size=2, unique_by=lambda each: each[0])),
        faults=draw(st.lists(st.sampled_from(faults), max_size=2)) if draw(st.integers(0, 3)) == 0 else (),
        id=draw(st.sampled_from(["", "", "own.1", "own-2"])),
        headers=draw(headers),
    )


ODD_NUMBERS = (
    "0 1 0.5 1.0 -0 -0.0 10 11 1e0 1E-3 2.5e+0 01 1. .5 +1 NaN Infinity -Infinity true [] 1e400 92233720368547758080"
)
NUMBERS = st.one_of(
    st.sampled_from([*ODD_NUMBERS.split(), '"1"', "9" * 30, "0." + "9" * 30, "1" + "0" * 400, "0." + "0" * 30 + "1"]),
    st.floats(0, 10, width=32).map(repr),
    st.floats(-300, 300).map(repr),
    st.integers(0, 255).map(str),
    st.decimals(0, 10, places=20).map(str),
)
ODD_LINES = (
    b"Connection: keep-alive|X-Request-ID: odd id!|X-Request-Timeout-Ms: 0900|Inference-Header-Content-Length: 1"
    b"|X-Request-Timeout-Ms: +900|Content-Encoding: identity|content-type: application/json |Authorization: Bearer none"
    b"|Accept: a|Accept: b|Content-Type:"
).split(b"|")
ODD_BYTES = [b"", b",", b"]", b"[", b'"', b"\xff", b"0", b" ", b"\n", b"\t \r\n", b"\f"]
TWICE = [b'{"inputs":[[1,0]],', b'{"return":["spikes_per_node"],']  # for the beginning of a body, one in its place
OUTPUTS = [["label"], ["probabilities", "spike_counts"], ["values"], ["steps_used"], ["no"], ["label"] * 2]
FIELDS = [
    varint(9 << 3) + b"\x01",  # unknown
    delimited(7, b"\x00" * 8),  # raw contents once more
    delimited(5, b""),  # an input more
    varint(5 << 3) + b"\x05",  # the inputs as a number
    varint(7 << 3 | 5) + b"\x00" * 4,  # the raw contents as a float
    varint(1 << 3 | 3),  # a group
    delimited(1, b"toy"),
    *(b"".join(delimited(6, delimited(1, name.encode())) for name in names) for names in OUTPUTS),
]
OF_HTTP = {
    NUMBER: NUMBERS.map(str.encode),
    ANYWHERE: st.sampled_from(ODD_BYTES),
    BYTE: st.sampled_from(ODD_BYTES + TWICE),
    LINE: st.sampled_from([line + b"\r\n" for line in ODD_LINES]),
}
OF_GRPC = {ANYWHERE: st.sampled_from(FIELDS), BYTE: st.binary(max_size=1)}
PLACES = st.one_of(st.sampled_from([0.0, 1.0, 1.0]), st.floats(0, 1))


@st.composite
def odd_asks(draw: st.DrawFn) -> Ask:
    """Return a request with another number, byte or header in it, or a call with another byte or field."""
    ask = draw(asks())
    texts = OF_GRPC if ask.is_call else OF_HTTP
    patterns = draw(st.lists(st.sampled_from(list(texts)), min_size=1, max_size=2))
    return replace(ask, odd=[(pattern, draw(PLACES), draw(texts[pattern])) for pattern in patterns])


def ending(size: int, text: bytes) -> list[tuple[bytes, float, bytes]]:
    """Write a text in place of the last bytes of a body."""
    return [(rb"(?s:.{%d})\Z" % size, 1, text)]


# A usual request, what is odd of another one, and the status of that.
ODD: list[tuple[Ask, dict[str, Any], int]] = [
    (Ask(), {"odd": [(BYTE, 0, TWICE[0])]}, 400),
    (Ask(), {"odd": [(BYTE, 0, TWICE[1])]}, 200),
    (Ask(), {"odd": [(LINE, 0, b"Accept: a\r\n"), (LINE, 1, b"Accept: b\r\n")]}, 200),
    *((Ask(kind=kind), {"odd": [(LINE, 0, b"Content-Type:\r\n")]}, 200) for kind in ("untyped", "gzip")),
    (Ask(), {"odd": [(LINE, 1, b"Authorization: Bearer %s\r\n" % KEY.encode())]}, 400),  # a second one
    (Ask("image"), {"odd": ending(0, b""), "samples": 5}, 413),  # 5 × 12 values at each of 4 steps
    (Ask(kind="v2 FP32", samples=2), {"odd": [(NUMBER, 1, b"1, 1, 1")]}, 400),  # three samples where the shape says two
    (Ask(kind="bytes BOOL"), {"odd": ending(1, b"\x02")}, 400),  # which is neither 0 nor 1
    (Ask("image", kind="bytes FP32", samples=2), {"odd": ending(48, b"")}, 400),  # a sample where the shape says two
    (Ask("image", kind="<f4", samples=2), {"odd": ending(48, b"")}, 400),
    (Ask("image", kind="bytes INT32", samples=2), {"odd": ending(4, b"\1\0\0\1")}, 400),  # no float32 is 2**24 + 1
    (Ask("image", kind="<f8", samples=2), {"odd": ending(0, bytes(4))}, 400),
    (Ask("image", kind="gzip", samples=2), {"odd": ending(0, b"x")}, 400),
    (Ask("image", kind="gzip", samples=2), {"odd": ending(4, b"")}, 400),
    (Ask(kind="raw FP32"), {"faults": ["time"]}, 400),
    (
        Ask("image", kind=">f8", samples=2, odd=ending(192, bytes(192))),
        {"odd": []},
        200,
    ),  # zeros, by columns or by rows
]

# Requests that are answered without the application; those by gRPC from the third of their like on.
OF_PAGE = [("Origin", OWN), ("X-Server-Timing", "1")]
CHEAP_KINDS = ["charset", "gzip", "<f4", "<f8", "|u1", "<i4", "v2 FP64", "bytes UINT8"]
CHEAP = [Ask(kind=kind, samples=3, headers=OF_PAGE) for kind in CHEAP_KINDS]
CHEAP += [Ask("pairs", kind="events", headers=OF_PAGE), Ask(kind="raw FP32"), Ask(kind="typed FP32")]
CHEAP += [Ask("rate", kind="raw FP32", options=[("seed", 3)])]
