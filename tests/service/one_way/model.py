"""What is asked of a server, by any way in, and what the one way of a request promises of its answer."""

import gzip
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import urlencode

import numpy as np
from hypothesis import strategies as st

from spikeserve.models.coding import encode
from spikeserve.models.coding.records import make_records
from spikeserve.models.engines.anytime import StopRule, run_anytime
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.plugins.grpc.wire import delimited, varint
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from spikeserve.service.keys import new_key
from tests.networks import network_of, task, toy
from tests.plugins.grpc.rpc import infer_request
from tests.service.infer_requests import binary_request, request
from tests.service.sessions.conftest import pairs

KEY, DIGEST = new_key()
APP, ELSEWHERE, OWN = "https://app.example", "https://elsewhere.example", "http://test"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # a client's trace
GRPC = f"/{SERVICE}/ModelInfer"
MANY = "&".join(f"p{index}=" for index in range(17))


def stronger(network: Network) -> Network:
    """Return the same network with weights four times as large."""
    return replace(network, tensors={name: 4 * each for name, each in network.tensors.items()})


def seen(weights: Any, *of_input: Any, **own: Any) -> Network:
    """Return a network of two channels of 2 × 3, which four steps long are summed by these weights."""
    layers: list[dict[str, Any]] = [
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": 12, "out_features": 3, "bias": False},
        {"type": "LIF", "name": "out", "decay": 0.5},
    ]
    return network_of(layers, {"fc.weight": weights}, **task([2, 2, 3], 4, *of_input, **own))


# Values that are normalised, some of which are drawn as spikes; and events, on and off, each of half a current.
IMAGE = seen(np.eye(3, 12).tolist(), ["a", 'b"', "é"], low=-1, high=255, scale=0.25, out_of_range="clip")
CAMERA = seen((np.arange(36).reshape(3, 12) / 8).tolist(), "abc", "spikes", scale=0.5)
OF_SPIKES = {"pairs": pairs(), "camera": CAMERA}
OF_VALUES = {"toy": toy(), "rate": toy(Coding.RATE), "late": toy(Coding.LATENCY, time_steps=5), "image": IMAGE}
NETWORKS = {name: (each, stronger(each)) for name, each in (OF_VALUES | OF_SPIKES).items()}  # by the version's weights
OF_NUMBERS = ["json", "charset", "untyped", "gzip", "<f4", "<f8", "|u1", "<i4", ">f8"]  # the last by columns
DATATYPES = ["FP32", "FP64", "UINT8"] * 2 + sorted(set(Datatype) - {Datatype.BYTES, Datatype.FP16})
OF_TENSORS = [f"{way} {datatype}" for way in ("v2", "bytes", "both") for datatype in [*DATATYPES, "FP16"]]
OF_CALLS = [f"{way} {datatype}" for way in ("raw", "typed") for datatype in ["FP32", *DATATYPES]]
USUAL = ["json", "<f4", "v2 FP32", "v2 FP64", "bytes FP32", "both FP32", "raw FP32", "typed FP32"]
TYPES = ["application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON; version=1"]
OF_EVENTS = ["events", "records"]

# What may be wrong with a request, in the order in which it is refused: by fault, the status of the native routes, that
# of the protocol v2, and what the sentence says.
FAULTS = {
    "fields": (422, 422, "the query has more than 16 parameters"),
    "origin": (403, 403, f"the header Origin is '{ELSEWHERE}'"),
    "no key": (401, 401, "this path takes a key"),
    "wrong key": (401, 401, "the key in the header Authorization is not one"),
    "drains": (503, 503, "the server is shutting down"),
    "model": (404, 404, "model '"),
    "type": (415, 415, "Content-Type is 'text/plain'"),
    "encoding": (415, 415, "Content-Encoding is 'br'"),
    "time": (400, 400, "X-Request-Timeout-Ms is '0'"),
    "size": (413, 413, "bytes, expected at most"),
    "cut": (400, 400, "the body is"),
    "unknown": (422, 400, "x is not a field here"),
    "shape": (422, 400, "shape"),
    "late": (504, 504, "did not answer within the time"),
}
EARLY = ("fields", "origin", "no key", "wrong key")  # before there is a route
UNNAMED = (*EARLY, "drains", "model", "type", "encoding")  # before there is a version
MAX_BODY = 20_000
OPTIONS: dict[str, list[Any]] = {"seed": [7, 8], "stop": ["decided"], "time_steps": [2, 5], "timeout": [10**7]}
HEADERS = [
    ("Origin", OWN),
    ("Origin", APP),
    ("X-Server-Timing", "1"),
    ("Connection", "close"),
    ("Expect", "100-continue"),
    ("X-Request-Timeout-Ms", "60000"),
    ("traceparent", SAMPLED[:-2] + "00"),
    ("traceparent", SAMPLED),
]


@dataclass(frozen=True)
class Ask:
    """A request: of which model, how it is written, and what else its headers say. Version 0 is the default model's."""

    name: str = "toy"
    version: int | None = None
    kind: str = "json"
    samples: int = 1
    seed: int = 0  # of the values
    options: tuple[tuple[str, Any], ...] = ()
    faults: tuple[str, ...] = ()
    id: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    odd: tuple[tuple[str, float, bytes], ...] = ()  # what else is written, by its kind and where, and nobody expects

    @property
    def is_call(self) -> bool:
        """Whether it comes by gRPC."""
        return self.kind in OF_CALLS

    @property
    def is_v2(self) -> bool:
        """Whether it is in the protocol v2."""
        return " " in self.kind

    @property
    def values(self) -> FloatArray:
        """Its samples, such as its number type and its model have."""
        rng, shape = np.random.default_rng(self.seed), NETWORKS.get(self.name, NETWORKS["toy"])[0].spec.input.shape
        if self.name in OF_SPIKES:
            samples = 1 if self.kind in OF_EVENTS else self.samples
            raster = rng.integers(0, 2, (samples, 4, *shape)).astype(np.float32)
            raster[:, 0].flat[0] = 1  # a recording begins at its first event
            return raster
        whole = self.kind in ("|u1", "<i4") or (self.is_v2 and " FP" not in self.kind)
        unit = self.name in ("rate", "late") or "BOOL" in self.kind
        most, scale = (1 if unit else 9, 1) if whole else (8, 8 if unit else 4)
        return (rng.integers(0, most + 1, (self.samples, *shape)) / scale).astype(np.float32)

    @property
    def path(self) -> str:
        """The path, and its template."""
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

    def answer_of(self, ready: Mapping[str, Mapping[int, int]], *, drains: bool) -> tuple[str, int | None, int]:
        """Return the fault that it is refused for, if any, the version that it is logged for, and its weights."""
        versions = ready.get(self.name, {})
        number = self.version or max(versions, default=0)
        faults = {*self.faults, *(["drains"] if drains else []), *([] if number in versions else ["model"])}
        first = next((each for each in FAULTS if each in faults), "")
        return first, None if first in UNNAMED else number, versions.get(number, 0)

    def status(self, fault: str) -> int:
        """Return the status for a fault, or for none."""
        native, v2, _ = FAULTS.get(fault, (200, 200, ""))
        return v2 if self.is_v2 else native

    @property
    def parameters(self) -> dict[str, Any]:
        """Its options, among them those of its fault."""
        return dict(self.options) | ({"timeout": 1} if "late" in self.faults else {})

    def message(self) -> bytes:
        """Write it as a message of gRPC."""
        way, datatype = self.kind.split()
        values, version = self._broken(self.values), str(self.version or "")
        name = "nobody" if "model" in self.faults else self.name
        own = {"model_version": version, "id": self.id, "parameters": self.parameters}
        return self._with_odd(b"", infer_request(values, name, datatype, raw=way == "raw", **own).SerializeToString())[
            1
        ]

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What it says beside its message."""
        return [(name.lower(), value) for name, value in self._headers.items()]

    @property
    def _headers(self) -> dict[str, str]:
        own = {"X-Request-ID": self.id} if self.id else {}
        own |= {"Authorization": f"Bearer {KEY}"} | dict(self.headers) | self.broken_headers
        return {name: own[name] for name in own if name != "Authorization" or "no key" not in self.faults}

    def request(self) -> bytes:
        """Write it as a request of HTTP."""
        kind, body, query = self._body()
        query = MANY if "fields" in self.faults else query
        lines = [f"POST {self.path}{'?' * bool(query)}{query} HTTP/1.1", "Host: test"]
        lines += [f"{name}: {value}" for name, value in (kind | self._headers).items()]
        head, body = self._with_odd("\r\n".join(lines).encode(), body)
        return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def _with_odd(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        for what, place, text in self.odd:
            numbers = list(re.finditer(rb"[0-9][0-9.]*", body)) if what == "number" else []
            start = stop = round(len(body) * place)
            if numbers:
                start, stop = numbers[round(place * (len(numbers) - 1))].span()
            if what == "header":  # before its own ones, or behind them
                head = head.replace(b"\r\n", b"\r\n" + text + b"\r\n", 1) if place < 0.5 else head + b"\r\n" + text
            elif what == "end":  # in place of so many bytes
                body = body[: len(body) - round(place)] + text
            else:
                body = body[:start] + text + body[stop + (what == "in place") :]
        return head, body

    @property
    def broken_headers(self) -> dict[str, str]:
        """The headers of its fault."""
        faults = {"origin": ("Origin", ELSEWHERE), "wrong key": ("Authorization", "Bearer none")}
        faults |= {"type": ("Content-Type", "text/plain"), "time": ("X-Request-Timeout-Ms", "0")}
        faults |= {"encoding": ("Content-Encoding", "br")}
        return dict(faults[each] for each in self.faults if each in faults)

    def _broken(self, values: FloatArray) -> FloatArray:
        return np.concatenate([values, values[..., :1]], axis=-1) if "shape" in self.faults else values

    def _body(self) -> tuple[dict[str, str], bytes, str]:
        """Return the headers that say what the body is, the body, and the query of its URL."""
        values, query = self._broken(self.values), urlencode(self.parameters)
        if self.kind[0] in "<|>":
            file = io.BytesIO()
            np.save(file, values.astype(self.kind, "F" if self.kind[0] == ">" else "C"))
            return {"Content-Type": "application/x-npy"}, file.getvalue(), query
        if self.kind == "records":
            kind = {"Content-Type": "application/vnd.spikeserve.events"}
            t, unit = values[0].nonzero()
            return kind, make_records(1000 * t, unit).tobytes(), query
        more: dict[str, Any] = {"x": 1} if "unknown" in self.faults else {}
        if self.is_v2:
            way, datatype = self.kind.split()
            values = values.astype(DTYPES[Datatype(datatype)])
            more |= {"parameters": self.parameters} | ({"id": self.id} if self.id else {})
            more["parameters"] |= {"binary_data_output": True} if way == "both" else {}
            if way != "v2":
                body, kind = binary_request(values, datatype, **more)
                return kind | {"Content-Type": "application/octet-stream"}, body, ""
            body = json.dumps(request(values, datatype, **more)).encode()
        else:
            inputs: list[Any] = values.tolist()
            if self.kind == "events":
                t, *places = (each.tolist() for each in values[0].nonzero())
                pixels = len(places) > 1 and self.seed % 2
                names, units = ("p", "y", "x"), values[0].reshape(4, -1).nonzero()[1].tolist()
                inputs = [{"t": t} | (dict(zip(names, places, strict=True)) if pixels else {"unit": units})]
            body = json.dumps({"inputs": inputs} | self.parameters | more).encode()
        body = (body[:-1] if "cut" in self.faults else body).ljust((MAX_BODY + 1) * ("size" in self.faults))
        if self.kind == "gzip":
            return {"Content-Encoding": "gzip"}, gzip.compress(body, mtime=0), ""
        json_type = TYPES[self.seed % len(TYPES)] if self.kind == "charset" else "application/json"
        return {} if self.kind == "untyped" else {"Content-Type": json_type}, body, ""


def faults_of(kind: str) -> list[str]:
    """List the faults of a request of a kind, in the order in which they are refused."""
    without = {"drains", *([] if " " in kind else ["late"]), *(["shape"] if kind in OF_EVENTS else [])}
    without |= {"fields", "origin", "type", "encoding", "size"} if kind in OF_CALLS else set()
    is_json = kind in (*OF_NUMBERS[:3], "events") or kind.startswith("v2")
    return [each for each in FAULTS if each not in without and (is_json or each not in ("size", "cut", "unknown"))]


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    """Return a request of HTTP or a call of gRPC, one in four with faults."""
    name = draw(st.sampled_from(list(NETWORKS)))
    kinds = [*OF_NUMBERS, *OF_TENSORS, *{"pairs": 2 * OF_EVENTS, "camera": 3 * OF_EVENTS[:1]}.get(name, []), *OF_CALLS]
    kind = draw(st.sampled_from(kinds + 3 * USUAL))
    ask = Ask(name, draw(st.sampled_from([None, None, 1, 2])), kind, draw(st.integers(1, 3)), draw(st.integers(0, 99)))
    if name == "toy" and not ask.is_v2 and ask.version is None and draw(st.booleans()):
        ask = replace(ask, version=0)
    options = ["seed", "stop", *([] if name in OF_SPIKES else ["time_steps"]), *(["timeout"] if ask.is_v2 else [])]
    option = draw(st.sampled_from([None, None, *options]))
    faults = [each for each in faults_of(kind) if each != "size" and (ask.version != 0 or each != "model")]
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2, unique_by=lambda each: each[0]))
    return replace(
        ask,
        options=() if option is None else ((option, draw(st.sampled_from(OPTIONS[option]))),),
        faults=tuple(draw(st.lists(st.sampled_from(faults), max_size=2))) if draw(st.integers(0, 3)) == 0 else (),
        id=draw(st.sampled_from(["", "", "own.1", "own-2"])),
        headers=() if ask.is_call else tuple(headers),
    )


ODD = "0 1 0.5 1.0 -0 -0.0 10 11 1e0 1E-3 2.5e+0 01 1. .5 +1 NaN Infinity -Infinity true [] 1e400 92233720368547758080"
NUMBERS = st.one_of(
    st.sampled_from([*ODD.split(), '"1"', "9" * 30, "0." + "9" * 30, "1" + "0" * 400, "0." + "0" * 30 + "1"]),
    st.floats(0, 10, width=32).map(repr),
    st.floats(-300, 300).map(repr),
    st.integers(0, 255).map(str),
    st.decimals(0, 10, places=20).map(str),
)
ODD_HEADERS = (
    b"Connection: keep-alive|X-Request-ID: odd id!|X-Request-Timeout-Ms: 0900|Inference-Header-Content-Length: 1"
    b"|X-Request-Timeout-Ms: +900|Content-Encoding: identity|content-type: application/json |Authorization: Bearer none"
    b"|Accept: a|Accept: b"
).split(b"|")
ODD_BYTES = st.sampled_from([b"", b",", b"]", b"[", b'"', b"\xff", b"0", b" ", b"\n", b"\t \r\n", b"\f"])
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
PLACES = st.one_of(st.sampled_from([0.0, 1.0, 1.0]), st.floats(0, 1))


@st.composite
def odd_asks(draw: st.DrawFn) -> Ask:
    """Return a request with another number, byte or header in it, or a call with another byte or field."""
    ask = draw(asks())
    of_http = {"number": NUMBERS.map(str.encode), "byte": ODD_BYTES, "in place": ODD_BYTES | st.sampled_from(TWICE)}
    of_http["header"] = st.sampled_from(ODD_HEADERS)
    of_calls = {"byte": st.sampled_from(FIELDS), "in place": st.binary(max_size=1)}
    texts = of_calls if ask.is_call else of_http
    whats = draw(st.lists(st.sampled_from(list(texts)), min_size=1, max_size=2))
    return replace(ask, odd=tuple((what, draw(PLACES), draw(texts[what])) for what in whats))


@cache
def reference(name: str, weights: int, values: bytes, samples: int, options: tuple[tuple[str, Any], ...]) -> Any:
    """Return the outputs of samples, by what the protocol v2 calls them, as the reference engine has them."""
    asked, network = dict(options), NETWORKS[name][weights]
    task = network.spec
    array = np.frombuffer(values, np.float32)
    array = array.reshape(samples, *((-1,) if task.coding.per_step else ()), *task.input.shape)
    inputs = encode(array, task, asked.get("time_steps"), asked.get("seed", 0))
    engine = ReferenceEngine(network)
    stops = "stop" in asked
    result = run_anytime(engine, inputs, StopRule.DECIDED) if stops else engine.run(inputs)[0]
    return {
        "class_index": result.class_index[:, np.newaxis].tolist(),
        "label": [[task.labels[index]] for index in result.class_index],
        "spike_counts": result.spike_counts.tolist(),
        "probabilities": np.float32(task.scores.probabilities(result.readout)).tolist(),
    } | ({} if result.steps_used is None else {"steps_used": result.steps_used[:, np.newaxis].tolist()})
