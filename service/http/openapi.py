"""The OpenAPI document: FastAPI's, plus the request bodies, which FastAPI does not parse and so cannot describe."""

from __future__ import annotations

import math
from copy import copy, deepcopy
from typing import Any, TypeAlias

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.routing import BaseRoute
from typing_extensions import TypeAliasType

from spikeserve.models.spec import Coding, Spec
from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.http.access import is_control
from spikeserve.service.http.schemas import ErrorBody
from spikeserve.service.inference.decoding import media
from spikeserve.service.inference.decoding.compression import Encoding
from spikeserve.service.inference.protocols.native.schemas import Options, PixelEvents, PredictRequest, UnitEvents
from spikeserve.service.inference.protocols.v2.decode import HEADER_LENGTH
from spikeserve.service.inference.protocols.v2.schemas import IndexRequest, InferRequest, LoadRequest, UnloadRequest
from spikeserve.service.inference.protocols.v2.tensors import INPUT
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.keys import KeyRing

REFERENCE = "#/components/schemas/{model}"
PATH_PARAMETERS = {"name": "The model's name.", "version": "The number of one of the model's versions, from 1 on."}

Json: TypeAlias = dict[str, Any]
KEY = {"type": "http", "scheme": "bearer", "description": "A key whose digest is in the server's settings."}
NestedNumbers = TypeAliasType("NestedNumbers", "list[float] | list[NestedNumbers]")

BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
BYTES: Json = {media.BYTES.decode(): BINARY}
# One .npy array, or event records by either of their types.
ARRAYS: Json = {kind.decode(): BINARY for kind in (media.NPY, media.RECORDS, media.BYTES)}


def _header(name: str, description: str, **schema: Any) -> Json:
    return {"name": name, "description": description, "schema": schema}


REQUEST_ID = _header(
    "X-Request-ID",
    "An id that the answer and the log repeat: 1 to 128 letters, digits and any of `._-`. Else they have a new one.",
    type="string",
)
TIMEOUT = _header(
    "X-Request-Timeout-Ms",
    "How many milliseconds the request may take; never more than the server's own limit.",
    type="integer",
    minimum=1,
)
JSON_LENGTH = _header(
    HEADER_LENGTH, "The bytes of the JSON, after which the tensors' bytes follow.", type="integer", minimum=0
)
TIMING_WANTED = _header("X-Server-Timing", "Whatever it says, the answer has `Server-Timing`.", type="string")
SERVER_TIMING = _header(
    "Server-Timing",
    "Where the time went, in milliseconds, if X-Server-Timing was sent: decode, queue, encode, run, render.",
    type="string",
)
CONTENT_ENCODING = _header("Content-Encoding", "How the body is compressed.", type="string", enum=list(Encoding))

TAGS = [
    {"name": "predict", "description": "Samples in, spike counts and classes out: the native API."},
    {"name": "v2", "description": "The Open Inference Protocol, which clients of Triton and KServe speak."},
    {"name": "stream", "description": "Sessions: events or values as they happen, an answer for each window of time."},
    {"name": "models", "description": "Which models are served, what they take, and examples to send."},
    {"name": "health", "description": "Checks for an orchestrator, and metrics for Prometheus."},
]

# What a session takes: messages of JSON, one a line; or the bytes of events or values.
STREAMED: Json = {
    "required": False,
    "description": "Messages of JSON, one a line; or event records; or, for a model that takes no events, float32 "
    "values, little-endian.",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}, media.RECORDS.decode(): BINARY, **BYTES},
}
PREDICT = "The samples as JSON, as one .npy array, or as event records."
INFER = "The input tensors: JSON, after which the bytes of tensors may follow."
# What the Open Inference Protocol takes beside inputs, by the last segment of the path, with an example.
CONTROL: dict[str, tuple[Any, str, Json]] = {
    "index": (IndexRequest, "Which versions to list; without a body, all of them.", {"ready": True}),
    "load": (LoadRequest, "Nothing, or an object without parameters.", {"parameters": {}}),
    "unload": (
        UnloadRequest,
        "Nothing, or an object whose parameters are accepted and ignored.",
        {"parameters": {"unload_dependents": False}},
    ),
}
# The request headers of an operation, by the last segment of its path.
REQUEST_HEADERS = {
    "predict": (TIMEOUT, TIMING_WANTED, CONTENT_ENCODING),
    "infer": (TIMEOUT, TIMING_WANTED, JSON_LENGTH, CONTENT_ENCODING),
}


def document(app: FastAPI, catalog: Catalog, keys: KeyRing) -> Json:
    """Return the document; its examples can be sent as they are to the default model, once that is ready.

    The document is public even where clients need keys; then it names no model, and its examples are of digits.
    """
    written = _of_routes(app)
    schema = TypeAdapter(PredictRequest[NestedNumbers | UnitEvents | PixelEvents]).json_schema(ref_template=REFERENCE)
    written["components"]["schemas"].update(schema.pop("$defs"))
    schema["title"] = "PredictRequest"
    served = {} if keys.clients else catalog.models
    name = catalog.default if catalog.default in served else next(iter(served), None)
    versions = {} if name is None else served[name]
    spec = next((each.model.spec for each in reversed(versions.values()) if each.model is not None), None)
    place = {"name": name, "version": str(max(versions))} if versions else {}
    body = {"schema": schema, "example": example(spec)}
    of_v2 = _v2_bodies(written, v2_example(spec))
    for path, operations in written["paths"].items():
        last = path.rpartition("/")[2]
        if last == "predict":
            content = {"application/json": body, **ARRAYS}
            operations["post"]["requestBody"] = {"required": True, "description": PREDICT, "content": content}
            operations["post"].setdefault("parameters", []).extend(_options(written, Options, of="not JSON"))
        elif last == "stream":
            operations["post"]["requestBody"] = STREAMED
            operations["post"]["parameters"].extend(_options(written, StreamOptions))
        elif path.startswith("/v2/") and last in of_v2:
            operations["post"]["requestBody"] = of_v2[last]
        for operation in operations.values():
            _describe_headers(operation, last)
            if path.startswith("/v2") or last not in ("predict", "stream"):
                operation["responses"].pop("422", None)  # FastAPI adds it for parameters, which cannot be invalid here
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] in place:
                    parameter["example"] = place[parameter["name"]]
            needs_key = keys if is_control(path) else keys.clients
            if needs_key and "401" in operation["responses"]:
                operation["security"] = [{"key": []}]
    if keys:
        written["components"]["securitySchemes"] = {"key": KEY}
    for unused in ("HTTPValidationError", "ValidationError"):
        written["components"]["schemas"].pop(unused, None)
    return written


def _describe_headers(operation: Json, last: str) -> None:
    """Add the request and response headers of an operation; `last` is the last segment of its path."""
    headers = (*REQUEST_HEADERS.get(last, ()), REQUEST_ID)
    operation["parameters"] = [*operation.get("parameters", ()), *({"in": "header"} | each for each in headers)]
    for response in operation["responses"].values():
        response["headers"] = _response_headers(REQUEST_ID)
    answer = operation["responses"]["200"]
    if last in ("predict", "infer"):
        answer["headers"] |= _response_headers(SERVER_TIMING)
    if last == "infer":
        answer["content"] |= BYTES
        answer["headers"] |= _response_headers(JSON_LENGTH)


def _response_headers(*headers: Json) -> Json:
    return {header["name"]: {"description": header["description"], "schema": header["schema"]} for header in headers}


def _of_routes(app: FastAPI) -> Json:
    """Return a copy of FastAPI's document, which is made once, without the HEAD operations."""
    if app.openapi_schema is None:
        routes = [_without_head(route) for route in app.routes]
        written = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=routes, tags=TAGS
        )
        for path, operations in written["paths"].items():
            for operation in operations.values():
                _summarise(operation)
                operation["parameters"] = [_in_path(name) for name in PATH_PARAMETERS if f"{{{name}}}" in path]
        errors = TypeAdapter(ErrorBody).json_schema(ref_template=REFERENCE)
        written["components"]["schemas"][ErrorBody.__name__] = errors
        app.openapi_schema = written
    return deepcopy(app.openapi_schema)


def _summarise(operation: Json) -> None:
    """Make the first paragraph of an operation's description, which is its docstring's, the summary."""
    operation["summary"], _, rest = operation.pop("description").partition("\n\n")
    if rest:
        operation["description"] = rest


def _in_path(name: str) -> Json:
    schema = {"type": "string", "title": name.title()}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": PATH_PARAMETERS[name]}


def _without_head(route: BaseRoute) -> BaseRoute:
    shown = copy(route)
    if isinstance(shown, APIRoute) and shown.methods:
        shown.methods = shown.methods - {"HEAD"}
    return shown


def _options(written: Json, model: type[BaseModel], of: str | None = None) -> list[Json]:
    """Return the query's parameters that `model` reads, and add the schemas that they refer to.

    `of` says of which bodies they are, where others have them as fields.
    """
    schema = model.model_json_schema(ref_template=REFERENCE)
    written["components"]["schemas"].update(schema.pop("$defs", {}))
    parameters = []
    for name, field in schema["properties"].items():
        about = field.pop("description")
        # An option that may be left out has null as its default; a query cannot say null.
        kind = next((each for each in field.get("anyOf", ()) if each.get("type") != "null"), field)
        parameter = {"in": "query", "name": name, "description": about, "schema": kind}
        if of is not None:
            parameter["description"] = f"{about} Only where the body is {of}."
            kind.pop("default", None)  # a client that sends defaults would send them beside other bodies too
        if kind.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter)
    return parameters


def _v2_bodies(written: Json, infer: Json) -> dict[str, Json]:
    """Return the request bodies of the Open Inference Protocol, by the last segment of their paths."""
    bodies: dict[str, Json] = {}
    for last, (kind, about, shown) in {"infer": (InferRequest, INFER, infer), **CONTROL}.items():
        schema = kind.model_json_schema(ref_template=REFERENCE)
        written["components"]["schemas"].update(schema.pop("$defs", {}))
        content = {"application/json": {"schema": schema, "example": shown}}
        bodies[last] = {"required": last not in CONTROL, "description": about, "content": content}
    bodies["infer"]["content"] |= BYTES
    return bodies


def v2_example(spec: Spec | None) -> Json:
    """Return an infer request for a model of `spec`; for None, one for the digits model."""
    if spec is not None and spec.coding is Coding.SPIKES:  # a tensor cannot hold events
        silence = np.maximum(0.0, spec.input.range[0])
        values = np.broadcast_to(silence, (1, spec.time_steps, *spec.input.shape)).astype(np.float64)
    else:
        values = np.array(example(spec)["inputs"], np.float64)
    tensor = {"name": INPUT, "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}
    return {"inputs": [tensor]}


def example(spec: Spec | None) -> Json:
    """Return a request for a model of `spec`, of values that rise from unit to unit; for None, one for the digits."""
    if spec is not None and spec.coding is Coding.SPIKES:
        return {"inputs": [{"t": [0], "unit": [0]}]}
    shape, (low, high) = ((64,), (0.0, 16.0)) if spec is None else (spec.input.shape, spec.input.range)
    rising = np.arange(math.prod(shape)).reshape(shape) / math.prod(shape)
    step = (low + np.subtract(high, low, dtype=np.float64) * rising).tolist()
    return {"inputs": [[step] * spec.time_steps if spec is not None and spec.coding.per_step else step]}
