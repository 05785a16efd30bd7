"""The protocol's endpoints. Where a path names no version, the newest that is ready is used."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from models.errors import InvalidInput
from models.version import VERSION
from service.catalog.registry import Registry
from service.catalog.version import Version as ModelVersion
from service.catalog.version import VersionState
from service.errors import ServiceError, UnsupportedMedia
from service.http.answers import PiecesResponse
from service.http.direct import DirectRoute
from service.http.middleware.requests import EXCHANGE, Exchange, exchange_of
from service.http.routes import ERRORS, NOT_LIVE, InServices, Name, Version, responses
from service.http.services import Services
from service.http.v2 import metadata, schemas
from service.inference.media import INFER_TYPES, JSON, media_type, unpacking
from service.inference.v2.codec import InferCodec
from service.inference.v2.errors import InvalidRequest
from service.inference.v2.parsing import parse_optional
from service.inference.v2.schemas import InferResponse
from service.telemetry.v2_statistics import Statistics

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "sequence",
    "statistics",
]
STATES = {VersionState.LOADING: "LOADING", VersionState.READY: "READY", VersionState.FAILED: "UNAVAILABLE"}


router = APIRouter(prefix="/v2", tags=["v2"])
inferring = APIRouter(prefix="/v2", tags=["v2"], route_class=DirectRoute)


_errors = partial(
    responses,
    ERRORS
    | {
        400: "The request breaks the protocol, or does not fit the model.",
        403: "A browser sent the request from a page of another origin, or the path needs an admin's key.",
    },
)

MODEL_ERRORS = _errors(401, 404, 503)
CONTROL_ERRORS = _errors(400, 401, 403, 404, 408, 413, 415, 503)


@router.get("", responses=_errors(401))
@router.get("/", include_in_schema=False)
async def server() -> schemas.ServerMetadata:
    """Name the server and the extensions that it supports."""
    return {"name": metadata.PLATFORM, "version": VERSION, "extensions": EXTENSIONS}


@router.get("/health/live", responses=responses(NOT_LIVE, 503))
async def live(services: InServices) -> schemas.ServerLive:
    """Say that the process is up, and that its threads are not stuck for good; restart it otherwise."""
    services.control.check_live()
    return {"live": True}


@router.get("/health/ready", responses=_errors(503))
async def ready(services: InServices) -> schemas.ServerReady:
    """Say that the models are loaded, verified and warmed up, in every worker."""
    await services.control.check_ready()
    return {"ready": True}


@router.get("/models/stats", responses=_errors(401))
async def stats(services: InServices) -> Statistics:
    """Return the statistics of this protocol's requests, for every version that is ready."""
    registry = services.registry
    return await services.control.statistics(
        (name, each) for name in registry.models for each in _ready(registry, name)
    )


@router.get("/models/{name}/stats", responses=MODEL_ERRORS)
async def model_stats(name: Name, services: InServices) -> Statistics:
    """Return the statistics of one model's versions."""
    services.registry.get(name)
    return await services.control.statistics((name, version) for version in _ready(services.registry, name))


@router.get("/models/{name}/versions/{version}/stats", responses=MODEL_ERRORS)
async def version_stats(name: Name, version: Version, services: InServices) -> Statistics:
    """Return the statistics of one version."""
    return await services.control.statistics([(name, services.registry.get(name, version).version)])


@router.get("/models/{name}", responses=MODEL_ERRORS)
async def model(name: Name, services: InServices) -> schemas.ModelMetadata:
    """Describe a model's tensors."""
    return metadata.metadata(services.registry.get(name), _versions(services.registry, name))


@router.get("/models/{name}/versions/{version}", responses=MODEL_ERRORS)
async def model_version(name: Name, version: Version, services: InServices) -> schemas.ModelMetadata:
    """Describe a version's tensors."""
    return metadata.metadata(services.registry.get(name, version), _versions(services.registry, name))


@router.get("/models/{name}/ready", responses=MODEL_ERRORS)
async def model_ready(name: Name, services: InServices) -> schemas.ModelReady:
    """Say that a model is ready."""
    return {"name": services.registry.get(name).name, "ready": True}


@router.get("/models/{name}/versions/{version}/ready", responses=MODEL_ERRORS)
async def version_ready(name: Name, version: Version, services: InServices) -> schemas.ModelReady:
    """Say that a version is ready."""
    return {"name": services.registry.get(name, version).name, "ready": True}


@router.get("/models/{name}/config", responses=MODEL_ERRORS)
async def config(name: Name, services: InServices) -> schemas.ModelConfig:
    """Return a model's configuration, with the field names of Triton's."""
    return metadata.config(services.registry.get(name))


@router.get("/models/{name}/versions/{version}/config", responses=MODEL_ERRORS)
async def version_config(name: Name, version: Version, services: InServices) -> schemas.ModelConfig:
    """Return a version's configuration."""
    return metadata.config(services.registry.get(name, version))


INFERS: dict[str, Any] = {
    "response_model": InferResponse,
    "responses": _errors(400, 401, 403, 404, 408, 413, 415, 503, 504),
}


@inferring.post("/models/{name}/infer", **INFERS)
async def infer(request: Request, name: Name) -> Response:
    """Classify each sample with a model's newest version that is ready; every request starts from rest."""
    return await _infer(request, name, None)


@inferring.post("/models/{name}/versions/{version}/infer", **INFERS)
async def infer_with_version(request: Request, name: Name, version: Version) -> Response:
    """Classify each sample with one version of a model."""
    return await _infer(request, name, version)


async def _infer(request: Request, name: str, version: str | None) -> Response:
    services: Services = request.app.state.services
    exchange: Exchange = request.scope[EXCHANGE]
    model = services.registry.get(name, version)
    began = perf_counter()
    try:
        kind, unpack = media_type(exchange.headers, *INFER_TYPES), unpacking(exchange.headers, exchange.body)
        codec = InferCodec(model, exchange.headers, unpack, services.blobs, kind)
        answer = await services.pipeline.answer(model, codec, exchange.headers, exchange.body, exchange.record)
    except InvalidInput as error:
        services.infer_statistics.count_failure(model.name, model.version, perf_counter() - began)
        raise InvalidRequest(str(error)) from error  # where the native routes say 422, the protocol says 400
    except ServiceError:
        services.infer_statistics.count_failure(model.name, model.version, perf_counter() - began)
        raise
    content = answer.content
    services.infer_statistics.count_success(model, answer.record, content.decode_seconds, content.render_seconds)
    return PiecesResponse(content.pieces, content.headers)


@router.post("/repository/index", responses=_errors(400, 401, 403, 408, 413, 415, 503))
async def index(request: Request, services: InServices) -> list[schemas.IndexEntry]:
    """List every version with its state and, if it is not ready, the reason; and the models that were unloaded.

    With several workers, the one that answers lists its own; they differ only while they load.
    """
    wanted = parse_optional(await _control_body(request), schemas.IndexRequest)
    entries = [_entry(version) for versions in services.registry.models.values() for version in versions.values()]
    entries += [_unloaded(name) for name in sorted(services.registry.unloaded)]
    return [entry for entry in entries if entry["state"] == STATES[VersionState.READY] or not wanted.ready]


@router.post("/repository/models/{name}/load", responses=CONTROL_ERRORS)
async def load(request: Request, name: Name, services: InServices) -> schemas.Controlled:
    """Load a model's versions again; those that are ready go on answering until the new ones are ready."""
    parse_optional(await _control_body(request), schemas.LoadRequest)
    await services.control.load(name)
    return {"name": name, "load": True}


@router.post("/repository/models/{name}/unload", responses=CONTROL_ERRORS)
async def unload(request: Request, name: Name, services: InServices) -> schemas.Controlled:
    """Unload a model; requests that have already arrived are still answered."""
    parse_optional(await _control_body(request), schemas.UnloadRequest)
    await services.control.unload(name)
    return {"name": name, "load": False}


async def _control_body(request: Request) -> bytes:
    """Return the body of a request that controls models; one without a body may have any Content-Type."""
    exchange = exchange_of(request)
    if exchange.body.complete:
        return b""
    media_type(exchange.headers, JSON)
    if unpacking(exchange.headers, exchange.body) is not None:
        raise UnsupportedMedia("Content-Encoding says that the body is compressed, expected one that is not, here")
    return await exchange.body.read()


def _ready(registry: Registry, name: str) -> list[int]:
    return [each.version for each in registry.versions_of(name).values() if each.state is VersionState.READY]


def _versions(registry: Registry, name: str) -> list[str]:
    return [str(version) for version in _ready(registry, name)]


def _entry(version: ModelVersion) -> schemas.IndexEntry:
    reason = "" if version.state is VersionState.READY else version.why_not_ready
    return {"name": version.name, "version": str(version.version), "state": STATES[version.state], "reason": reason}


def _unloaded(name: str) -> schemas.IndexEntry:
    return {"name": name, "state": STATES[VersionState.FAILED], "reason": "unloaded"}
