"""Infer requests of the Open Inference Protocol that no decent client sends, each with the statuses that it may get."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.soak.client import post
from benchmarks.soak.hostile import FINE, LONG, TOO_LARGE, Hostile, of

WRONG = 400
UNKNOWN_ENCODING = 415
TOO_LATE = 504
HEADER_LENGTH = "Inference-Header-Content-Length"
ODD_DATATYPES: list[Any] = [
    *("BYTES", "BF16", "FP8", "fp32", "float32", "INT4", "", "FP32 ", "x" * LONG),
    *(32, None, ["FP32"], {}),
]
ODD_FLAGS: list[Any] = [1, "yes", []]
ODD_COUNTS: list[Any] = [0, -1, 1.5, "3", True, [], {}]
ODD_TIMES: list[Any] = [-1, 2**63, 10**40, 0.5, "1", True, []]
BOMB = bytes(2**26)  # four times what a body may be; it compresses to a thousandth


def hostile_tensors(sound: dict[str, Any], model: str) -> list[Hostile]:
    """Return every kind, made from a native body that `model`, a network of flat inputs, answers."""
    tensor, path = tensor_of(sound), f"/v2/models/{model}/infer"
    return [
        *_inputs(tensor, path),
        *_datatypes(tensor, path),
        *_around_inputs(tensor, path),
        *_texts(tensor, path),
        *_binary(tensor, path),
        *_packed("native", "/predict", json.dumps(sound).encode()),
        *_packed("v2", path, json.dumps({"inputs": [tensor]}).encode()),
        *_packed_header(json.dumps({"inputs": [tensor]}).encode(), path),
    ]


def tensor_of(sound: dict[str, Any]) -> dict[str, Any]:
    """Return the input tensor of the same samples."""
    samples = sound["inputs"]
    data = [value for sample in samples for value in sample]
    return {"name": "inputs", "shape": [len(samples), len(samples[0])], "datatype": "FP32", "data": data}


def _asks(name: str, path: str, body: Any, *statuses: int) -> Hostile:
    return of(f"v2: {name}", post(path, json.dumps(body).encode()), *statuses)


def _inputs(tensor: dict[str, Any], path: str) -> Iterator[Hostile]:
    """Yield inputs that are none, too many or of a shape that is not the model's."""
    units, data = tensor["shape"][1], tensor["data"]
    lacking = {name: {key: value for key, value in tensor.items() if key != name} for name in tensor}
    wrong: dict[str, Any] = {
        "no inputs": [],
        "null for inputs": None,
        "a tensor for inputs": tensor,
        "a number for a tensor": [1],
        "an input said twice": [tensor, tensor],
        "an input too many": [tensor, tensor | {"name": "other"}],
        "an unknown input": [tensor | {"name": "other"}],
        "an input whose name is a number": [tensor | {"name": 1}],
        "an unknown field of an input": [tensor | {"strides": [1]}],
        "null for data": [tensor | {"data": None}],
        "an object for data": [tensor | {"data": {}}],
        "text for data": [tensor | {"data": "AAAA"}],
        "no data": [tensor | {"data": []}],
        "a value too few": [tensor | {"data": data[:-1]}],
        "a value too many": [tensor | {"data": [*data, 0]}],
        "rows of different lengths": [tensor | {"data": [data, data[:-1]]}],
        "rows where there should be values": [tensor | {"data": [[data]]}],
        "values and rows": [tensor | {"data": [data[0], data[1:]]}],
        "data nested deep": [tensor | {"data": _nested(150)}],
        **{f"an input without {name}": [left] for name, left in lacking.items()},
    }
    for name, inputs in wrong.items():
        yield _asks(name, path, {"inputs": inputs}, WRONG)
    shapes: dict[str, Any] = {
        "no extents": [],
        "an extent below zero": [-1, units],
        "extents below zero whose product is right": [-1, -units],
        "an extent of zero": [0, units],
        "zero units": [1, 0],
        "a unit too many": [1, units + 1],
        "extents the wrong way round": [units, 1],
        "an axis too many": [1, 1, units],
        "an axis too few": [units],
        "a hundred axes": [1] * 100,
        "thousands of axes": [1] * 10_000,
        "a product that overflows to zero": [2**32, 2**32],
        "a product that overflows to one": [3, 0x5555_5555_5555_5555],
        "extents of 2^63 - 1": [2**63 - 1, 2**63 - 1],
        "an extent of 2^64": [2**64, units],
        "an extent that is not whole": [1.5, units],
        "an extent that is whole and no integer": [1.0, units],
        "an extent that is text": ["1", units],
        "an extent that is a boolean": [True, units],
        "an extent that is null": [None, units],
        "an extent that is a list": [[1], units],
        "null": None,
        "a number": units,
    }
    for name, shape in shapes.items():
        yield _asks(f"shape: {name}", path, {"inputs": [tensor | {"shape": shape}]}, WRONG)
    for batch in (1025, 2**40, 2**62, 2**63 - 1):
        yield _asks(f"shape: {batch} samples", path, {"inputs": [tensor | {"shape": [batch, units]}]}, TOO_LARGE)


def _datatypes(tensor: dict[str, Any], path: str) -> Iterator[Hostile]:
    """Yield datatypes that are none or not for this model, and values that are not of theirs."""
    data = tensor["data"]
    for kind in ODD_DATATYPES:
        body = {"inputs": [tensor | {"datatype": kind}]}
        yield _asks(f"datatype {json.dumps(kind)[:20]}", path, body, WRONG)
    for kind, value in (
        ("UINT8", -1),
        ("UINT8", 256),
        ("INT8", -129),
        ("UINT64", 2**64),
        ("INT64", -(2**63) - 1),
        ("INT64", 2**24 + 1),
        ("INT32", 1.0),
        ("INT32", True),
        ("BOOL", 1),
        ("BOOL", "true"),
        ("FP16", 65520),
        ("FP32", 1e39),
        ("FP32", "1"),
        ("FP32", True),
        ("FP32", None),
        ("FP32", []),
        ("FP32", float("nan")),
        ("FP32", float("inf")),
        ("FP64", 1e300),
        ("FP64", 10**400),
        ("FP32", -1e30),
    ):
        # The others are 0 or false, which all datatypes but BYTES can hold.
        values = [False if kind == "BOOL" else 0] * (len(data) - 1)
        body = {"inputs": [tensor | {"datatype": kind, "data": [*values, value]}]}
        yield _asks(f"{kind} of {json.dumps(value)[:12]}", path, body, WRONG)
    yield _asks("FP16 as numbers", path, {"inputs": [tensor | {"datatype": "FP16", "data": [0] * len(data)}]}, FINE)


def _around_inputs(tensor: dict[str, Any], path: str) -> Iterator[Hostile]:
    """Yield right inputs beside outputs, parameters and names that are odd or wrong."""
    counts = {"name": "spike_counts"}
    wrong: dict[str, Any] = {
        "outputs": [
            [{"name": "other"}],
            [counts, counts],
            [counts] * 1000,
            [{"name": None}],
            [{}],
            ["spike_counts"],
            counts,
            None,
            [counts | {"shape": [1, 10]}],
            *([counts | {"parameters": {"classification": each}}] for each in ODD_COUNTS),
            [{"name": "class_index", "parameters": {"classification": 1}}],
            *([counts | {"parameters": {"binary_data": each}}] for each in ODD_FLAGS),
            [counts | {"parameters": {"binary_data_size": 4}}],
            [counts | {"parameters": [1]}],
        ],
        "parameters": [
            {"temperature": 1},
            {"sequence_id": 1},
            {"binary_data_output": 1},
            {"time_steps": 0},
            {"time_steps": -1},
            {"time_steps": 1.5},
            {"time_steps": "5"},
            {"time_steps": 2**62},
            {"time_steps": 2**64},
            {"seed": -1},
            {"seed": 2**64},
            {"priority": -1},
            {"priority": "high"},
            *({"timeout": each} for each in ODD_TIMES),
            {"a": {"b": {}}},
            {f"parameter{index}": index for index in range(1000)},
            [],
            "seed",
            None,
        ],
        "id": [7, 1.5, True, [], {}, "\ud800"],
        "model_name": ["other", 1, [], "../other"],
        "model_version": ["1"],
        "raw_output_contents": [[]],
    }
    for field, values in wrong.items():
        for value in values:
            body = {"inputs": [tensor], field: value}
            yield _asks(f"{field}: {json.dumps(value)[:60]}", path, body, WRONG)
    for classes in (10**9, 2**63, 2**70):  # more than there are: all of them
        body = {"inputs": [tensor], "outputs": [counts | {"parameters": {"classification": classes}}]}
        yield _asks(f"classification of {classes}", path, body, FINE)
    yield _asks("a time-out of a microsecond", path, {"inputs": [tensor], "parameters": {"timeout": 1}}, TOO_LATE, FINE)
    yield _asks("a time-out of 300,000 years", path, {"inputs": [tensor], "parameters": {"timeout": 2**63 - 1}}, FINE)
    yield _asks("a long id", path, {"inputs": [tensor], "id": "\x00\u2028" * LONG}, FINE)
    work = tensor | {"shape": [1024, tensor["shape"][1]]}
    yield _asks("a time-out beside too much work", path, {"inputs": [work], "parameters": {"time_steps": 10**6}}, WRONG)


def _texts(tensor: dict[str, Any], path: str) -> Iterator[Hostile]:
    """Yield bodies that are not JSON as it should be."""
    text = json.dumps({"inputs": [tensor]})
    for name, body, *statuses in (
        ("nothing", b"", WRONG),
        ("white space", b" " * LONG, WRONG),
        ("an array", b"[]", WRONG),
        ("null", b"null", WRONG),
        ("no fields", b"{}", WRONG),
        ("half of it", text[: len(text) // 2].encode(), WRONG),
        ("twice", (text * 2).encode(), WRONG),
        ("a byte order mark", b"\xef\xbb\xbf" + text.encode(), WRONG),
        ("UTF-16", text.encode("utf-16"), WRONG),
        ("no UTF-8", text.replace("FP32", "\xff").encode("latin-1"), WRONG),
        ("a field said twice", text.replace("{", '{"id": "a", "id": "b", ', 1).encode(), WRONG),
        ("a field of an input said twice", text.replace('"name"', '"name": "inputs", "name"').encode(), WRONG),
        ("lists nested deep", b'{"inputs": ' + b"[" * LONG, WRONG, TOO_LARGE),
        ("objects nested deep", b'{"inputs":' * 10_000, WRONG),
        ("parameters nested deep", text[:-1].encode() + b', "parameters": ' + b'{"a":' * LONG, WRONG, TOO_LARGE),
        ("a million lists", b'{"inputs": [' + b"[]," * 2**20, TOO_LARGE),
        ("a million strings", b'{"inputs": [' + b'"",' * 2**19, TOO_LARGE),
        ("a number of many digits", b'{"inputs": [' + b"9" * LONG + b"]}", WRONG),
        ("Infinity", text.replace('"data": [', '"data": [Infinity, ').encode(), WRONG),
        ("zeros", bytes(1000), WRONG),
    ):
        yield of(f"v2: {name}", post(path, body), *statuses)


def _binary(tensor: dict[str, Any], path: str) -> Iterator[Hostile]:
    """Yield bytes after the JSON that are not what one of the two says, or JSON that ends elsewhere than is said."""
    units = tensor["shape"][1]
    blob = np.array(tensor["data"][:units], "<f4").tobytes()

    def bare(**changes: Any) -> bytes:
        kept = {"name": "inputs", "shape": [1, units], "datatype": "FP32"}
        return json.dumps({"inputs": [kept | {"parameters": {"binary_data_size": len(blob)}} | changes]}).encode()

    def sends(name: str, head: bytes, tail: bytes, *statuses: int) -> Hostile:
        return of(f"v2 bytes: {name}", post(path, head + tail, {HEADER_LENGTH: str(len(head))}), *statuses)

    yield sends("as they should be", bare(), blob, FINE)
    sizes: list[Any] = [-1, 0, len(blob) - 1, len(blob) + 1, 2**31, 2**63, 2**70, 1.5, str(len(blob)), True, [], {}]
    for size in sizes:
        odd = bare(parameters={"binary_data_size": size})
        yield sends(f"a size of {json.dumps(size)[:12]}", odd, blob, WRONG)
    yield sends("fewer than it says", bare(), blob[:-1], WRONG)
    yield sends("more than it says", bare(), blob + b"\0", WRONG)
    yield sends("none", bare(), b"", WRONG)
    yield sends("without a size", bare(parameters={}), blob, WRONG)
    yield sends("data as well", bare(data=[0] * units), blob, WRONG)
    yield sends("a size that fits its bytes and not its shape", bare(shape=[2, units]), blob, WRONG)
    yield sends("of half the length, as FP16 has", bare(datatype="FP16"), blob, WRONG)
    yield sends("of BF16", bare(datatype="BF16"), blob, WRONG)
    yield sends("of BYTES", bare(datatype="BYTES"), blob, WRONG)
    yield sends("NaN", bare(), b"\xff" * len(blob), WRONG)
    yield sends("infinity", bare(), b"\x00\x00\x80\x7f" * units, WRONG)
    of_bool = bare(datatype="BOOL", parameters={"binary_data_size": units})
    yield sends("a BOOL of 2", of_bool, b"\2" * units, WRONG)
    of_fp64 = bare(datatype="FP64", parameters={"binary_data_size": 8 * units})
    yield sends("an FP64 beyond FP32", of_fp64, np.full(units, 1e300, "<f8").tobytes(), WRONG)
    of_int64 = bare(datatype="INT64", parameters={"binary_data_size": 8 * units})
    yield sends("the least INT64", of_int64, np.full(units, -(2**63), "<i8").tobytes(), WRONG)
    no_bytes = {"binary_data_size": 0}
    for shape in ([2**62, 4], [2**32, 2**32], [0, units], [-1, units]):
        yield sends(f"none, for the shape {shape}", bare(shape=shape, parameters=no_bytes), b"", WRONG, TOO_LARGE)

    whole, length = bare() + blob, len(bare())
    lengths = [
        "-1",
        "1e3",
        "0x10",
        "nan",
        "",
        "+16",
        f"{length}.0",
        f"{length},{length}",
        "99999999999",
        "9" * 400,
        "²",
    ]
    lengths += [str(length - 1), str(length + 1), str(len(whole)), str(len(whole) + 1), "1"]
    for said in lengths:
        yield of(f"v2 header length: {said[:12]}", post(path, whole, {HEADER_LENGTH: said}), WRONG)
    for name, raw, status in (
        ("a raw body", blob, FINE),
        ("a raw body that is too short", blob[:-1], WRONG),
        ("a raw body that is too long", blob + blob, WRONG),
        ("a raw body of nothing", b"", WRONG),
        ("a raw body of NaN", b"\xff" * len(blob), WRONG),
        ("a raw body that is JSON", json.dumps({"inputs": [tensor]}).encode(), WRONG),
    ):
        yield of(f"v2: {name}", post(path, raw, {HEADER_LENGTH: "0"}), status)


def _packed(protocol: str, path: str, body: bytes) -> Iterator[Hostile]:
    """Yield compressed bodies that are broken, or very long once they are not."""
    packed, deflated = gzip.compress(body, mtime=0), zlib.compress(body)
    raw = zlib.compressobj(wbits=-15)
    for encoding, name, content, status in (
        ("gzip", "as it should be", packed, FINE),
        ("GZIP", "in capitals", packed, FINE),
        ("deflate", "as it should be", deflated, FINE),
        ("deflate", "without zlib's frame", raw.compress(body) + raw.flush(), FINE),
        ("identity", "as it should be", body, FINE),
        ("gzip", "not compressed", body, WRONG),
        ("gzip", "nothing", b"", WRONG),
        ("gzip", "its first bytes alone", packed[:10], WRONG),
        ("gzip", "cut short", packed[:-1], WRONG),
        ("gzip", "with a wrong checksum", packed[:-8] + bytes(8), WRONG),
        ("gzip", "with a byte after it", packed + b"\0", WRONG),
        ("gzip", "twice in a row", packed + packed, WRONG),
        ("gzip", "in two members", gzip.compress(body[:9]) + gzip.compress(body[9:]), FINE),
        ("gzip", "in very many members", gzip.compress(b"") * LONG, TOO_LARGE),
        ("gzip", "twice, one in the other", gzip.compress(packed, mtime=0), WRONG),
        ("gzip", "deflate instead", deflated, WRONG),
        ("gzip", "a bomb", gzip.compress(BOMB, 9), TOO_LARGE),
        ("gzip", "a bomb of white space", gzip.compress(body + b" " * len(BOMB), 9), TOO_LARGE),
        ("deflate", "not compressed", body, WRONG),
        ("deflate", "cut short", deflated[:-1], WRONG),
        ("deflate", "gzip instead", packed, WRONG),
        ("deflate", "with a wrong checksum", deflated[:-4] + bytes(4), WRONG),
        ("deflate", "a bomb", zlib.compress(BOMB, 9), TOO_LARGE),
        ("zstd", "unknown", packed, UNKNOWN_ENCODING),
        ("br", "unknown", packed, UNKNOWN_ENCODING),
        ("gzip, gzip", "several", packed, UNKNOWN_ENCODING),
        ("x" * 5000, "unknown, and long", packed, UNKNOWN_ENCODING),
    ):
        yield of(f"{protocol} {encoding[:12]}: {name}", post(path, content, {"Content-Encoding": encoding}), status)


def _packed_header(body: bytes, path: str) -> Iterator[Hostile]:
    """Yield compressed bodies with the length of the JSON in a header."""
    packed = gzip.compress(body, mtime=0)
    unpacked = {"Content-Encoding": "gzip", HEADER_LENGTH: str(len(body))}
    yield of("v2 gzip: a header length that counts what is unpacked", post(path, packed, unpacked), FINE)
    beyond = {"Content-Encoding": "gzip", HEADER_LENGTH: str(len(body) + 1)}
    yield of("v2 gzip: a header length beyond what is unpacked", post(path, packed, beyond), WRONG)


def _nested(depth: int) -> list[Any]:
    found: list[Any] = [1]
    for _ in range(depth):
        found = [found]
    return found
