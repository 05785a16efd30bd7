"""Requests and their answers, before and after they are sent."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray

from spikeserve.answers import Json
from spikeserve.errors import InvalidEvents, answer_error
from spikeserve.records import EventsLike, events, is_events, read_events

JSON, NPY = "application/json", "application/x-npy"
RECORDS = "application/vnd.spikeserve.events"
DEFLATED_BYTES = 2**14  # smaller bodies are not compressed: a packet or a few, whatever they hold
SPARSE = 8  # an array with a value in fewer than one place of 8 is compressed
INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.int32)

Inputs: TypeAlias = NDArray[Any] | EventsLike | Sequence[Any] | str | PathLike[str]


@dataclass(frozen=True)
class Call:
    """An HTTP request: `path` has its query."""

    path: str
    content: bytes | None = None  # a POST's; None is a GET
    headers: Mapping[str, str] = field(default_factory=dict)


def predict_calls(inputs: Inputs, model: str | None, version: int | None, choice: Json) -> list[Call]:
    """Return the requests that predict `inputs`; see `Client.predict` for what is sent how. Raises InvalidEvents.

    `choice` has the fields of a request beside its inputs, or of its query where the body holds nothing but these.
    """
    path = f"{model_path(model, version)}/predict"
    if isinstance(inputs, (str, PathLike)):
        file = Path(inputs)
        inputs = _array_in(file) if file.suffix.lower() == ".npy" else read_events(file)
    if is_events(inputs):
        return [_records(path, inputs, choice)]  # type: ignore[arg-type]
    if isinstance(inputs, Mapping):
        return [_json(path, [inputs], choice)]
    if isinstance(inputs, (list, tuple)) and inputs and all(map(is_events, inputs)):
        return [_records(path, each, choice) for each in inputs]
    if isinstance(inputs, (list, tuple)) and any(isinstance(each, Mapping) for each in inputs):
        return [_json(path, inputs, choice)]
    try:
        array = np.asarray(inputs)
    except ValueError:  # of samples of different lengths
        return [_json(path, list(inputs), choice)]  # type: ignore[arg-type]
    return [_array(path, array, choice)]


def read_json(status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """Return an answer's JSON; raises AnswerError."""
    if status != 200:
        raise answer_error(status, headers, body)
    return json.loads(body)


def headers_of(key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def model_path(model: str | None, version: int | None = None) -> str:
    """Return where a model lies; the default model lies at the root."""
    if model is None:
        if version is not None:
            raise InvalidEvents(f"version is {version}, but no model is named, expected both")
        return ""
    return f"/models/{quote(model, safe='')}" + (f"/versions/{version}" if version is not None else "")


def with_query(path: str, query: Json) -> str:
    """Return a path with parameters."""
    texts = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in query.items()}
    return f"{path}?{urlencode(texts, safe=',.', quote_via=quote)}" if texts else path


def _json(path: str, samples: Iterable[Any], choice: Json) -> Call:
    listed = [_listed(each) for each in samples]
    try:
        content = json.dumps({"inputs": listed, **choice}, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise InvalidEvents(f"inputs cannot be written as JSON: {error}") from error
    return Call(path, content.encode(), {"content-type": JSON})


def _listed(sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return {name: np.asarray(column).tolist() for name, column in sample.items()}
    return np.asarray(sample).tolist()


def _records(path: str, source: EventsLike, choice: Json) -> Call:
    return _binary(path, events(source).in_order().records.tobytes(), RECORDS, choice)


def _array(path: str, array: NDArray[Any], choice: Json) -> Call:
    content = io.BytesIO()
    array = smallest(array)
    np.lib.format.write_array(content, array, allow_pickle=False)
    few = array.nbytes > DEFLATED_BYTES and int(np.count_nonzero(array)) * SPARSE < array.size
    return _binary(path, content.getvalue(), NPY, choice, deflate=few)


def smallest(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as the server is sent it: in the smallest type of integers that holds all values, or as float32.

    The server computes in float32, so that nothing is lost that it would keep. Raises InvalidEvents for other things
    than numbers.
    """
    if array.dtype.kind not in "biuf":
        raise InvalidEvents(f"inputs are an array of {array.dtype}, expected numbers")
    array = np.ascontiguousarray(array)
    if array.dtype.itemsize == 1 or not array.size:
        return array
    least, most = array.min().item(), array.max().item()  # Python's numbers: float16 does not hold the bounds below
    whole = array.dtype.kind != "f" or (np.isfinite(least) and np.isfinite(most) and (array == np.floor(array)).all())
    if whole:
        for kind in INTEGERS:
            if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
                return array.astype(kind) if np.dtype(kind).itemsize < array.dtype.itemsize else array
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype.itemsize > 4 else array


def _binary(path: str, content: bytes, kind: str, choice: Json, *, deflate: bool = False) -> Call:
    headers = {"content-type": kind}
    if deflate:
        content, headers["content-encoding"] = zlib.compress(content, 1), "deflate"
    return Call(with_query(path, choice), content, headers)


def _array_in(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InvalidEvents(f"'{path}': cannot be read as .npy: {why}") from error
