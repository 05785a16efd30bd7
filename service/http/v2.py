"""The protocol's endpoints. Where a path names no version, the newest that is ready is used."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from spikeserve.models.version import VERSION
from spikeserve.service.errors import UnsupportedMedia
from spikeserve.service.http.access import sender_of
from spikeserve.service.http.answers import PiecesResponse, server_timing
from spikeserve.service.http.requests import EXCHANGE, Exchange, exchange_of
from spikeserve.service.http.routes import ERRORS, NOT_LIVE, NOT_READY, InServices, Name, Version, responses
from spikeserve.service.inference.decoding.media import INFER_TYPES, JSON, media_type, unpacking
from spikeserve.service.inference.protocols.v2 import metadata, schemas
from spikeserve.service.inference.protocols.v2.codec import InferCodec
from spikeserve.service.inference.protocols.v2.codec import infer as v2_infer
from spikeserve.service.inference.protocols.v2.parsing import parse_optional
from spikeserve.service.inference.protocols.v2.schemas import InferResponse
from spikeserve.service.services import Services
from spikeserve.service.telemetry.v2_statistics import Statistics

router = APIRouter(prefix="/v2", tags=["v2"])
inferring = APIRouter(prefix="/v2", tags=["v2"])


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

STATISTICS = "How many requests succeeded and failed, and the time that their parts took, for each version."
TENSORS = "The names, datatypes and shapes of the input and the outputs; -1 is an extent that varies."
READY = "It is ready."
CONFIG = "The configuration, with the field names of Triton's."


@router.get("", responses=_errors(401), response_description="The server's name, version and extensions.")
@router.get("/", include_in_schema=False)
async def server() -> schemas.ServerMetadata:
    """Name the server and the protocol's extensions that it supports."""
    return {"name": metadata.PLATFORM, "version": VERSION, "extensions": metadata.EXTENSIONS}


@router.get("/health/live", responses=responses(NOT_LIVE, 503), response_description="The process is live.")
async def live(services: InServices) -> schemas.ServerLive:
    """Tell whether the process is live.

    It is live unless its threads are stuck for good; then restart it.
    """
    services.readiness.check_live()
    return {"live": True}


@router.get(
    "/health/ready", responses=responses(NOT_READY, 503), response_description="The server is ready for requests."
)
async def ready(services: InServices) -> schemas.ServerReady:
    """Tell whether the server is ready for requests.

    It is ready once its models are loaded, verified and warmed up, in every worker.
    """
    await services.control.check_ready()
    return {"ready": True}


@router.get("/models/stats", responses=_errors(401), response_description=STATISTICS)
async def stats(services: InServices) -> Statistics:
    """Return the statistics of every version that is ready.

    They count the requests of this protocol.
    """
    catalog = services.catalog
    return await services.control.statistics(
        (name, each) for name in catalog.models for each in metadata.ready_versions(catalog, name)
    )


@router.get("/models/{name}/stats", responses=MODEL_ERRORS, response_description=STATISTICS)
async def model_stats(name: Name, services: InServices) -> Statistics:
    """Return the statistics of a model's versions that are ready.

    They count the requests of this protocol.
    """
    services.catalog.get(name)
    return await services.control.statistics(
        (name, version) for version in metadata.ready_versions(services.catalog, name)
    )


@router.get("/models/{name}/versions/{version}/stats", responses=MODEL_ERRORS, response_description=STATISTICS)
async def version_stats(name: Name, version: Version, services: InServices) -> Statistics:
    """Return the statistics of one version of a model.

    They count the requests of this protocol.
    """
    return await services.control.statistics([(name, services.catalog.get(name, version).version)])


@router.get("/models/{name}", responses=MODEL_ERRORS, response_description=TENSORS)
async def model(name: Name, services: InServices) -> schemas.ModelMetadata:
    """Describe the tensors of a model's newest version that is ready."""
    return metadata.metadata(services.catalog.get(name), services.catalog)


@router.get("/models/{name}/versions/{version}", responses=MODEL_ERRORS, response_description=TENSORS)
async def model_version(name: Name, version: Version, services: InServices) -> schemas.ModelMetadata:
    """Describe the tensors of one version of a model."""
    return metadata.metadata(services.catalog.get(name, version), services.catalog)


@router.get("/models/{name}/ready", responses=MODEL_ERRORS, response_description=READY)
async def model_ready(name: Name, services: InServices) -> schemas.ModelReady:
    """Tell whether a version of a model is ready."""
    return {"name": services.catalog.get(name).name, "ready": True}


@router.get("/models/{name}/versions/{version}/ready", responses=MODEL_ERRORS, response_description=READY)
async def version_ready(name: Name, version: Version, services: InServices) -> schemas.ModelReady:
    """Tell whether one version of a model is ready."""
    return {"name": services.catalog.get(name, version).name, "ready": True}


@router.get("/models/{name}/config", responses=MODEL_ERRORS, response_description=CONFIG)
async def config(name: Name, services: InServices) -> schemas.ModelConfig:
    """Return the configuration of a model's newest version that is ready."""
    return metadata.config(services.catalog.get(name), services.settings.session_idle_seconds)


@router.get("/models/{name}/versions/{version}/config", responses=MODEL_ERRORS, response_description=CONFIG)
async def version_config(name: Name, version: Version, services: InServices) -> schemas.ModelConfig:
    """Return the configuration of one version of a model."""
    return metadata.config(services.catalog.get(name, version), services.settings.session_idle_seconds)


INFERS: dict[str, Any] = {
    "response_model": InferResponse,
    "response_description": "The output tensors, whose first extent is the batch.",
    "responses": _errors(400, 401, 403, 404, 408, 413, 415, 503, 504),
}


@inferring.post("/models/{name}/infer", **INFERS)
async def infer(request: Request, name: Name) -> Response:
    """Classify samples with a model's newest version that is ready.

    Every sample starts from rest, unless the request belongs to a sequence.
    """
    return await _infer(request, name, None)


@inferring.post("/models/{name}/versions/{version}/infer", **INFERS)
async def infer_with_version(request: Request, name: Name, version: Version) -> Response:
    """Classify samples with one version of a model.

    Every sample starts from rest, unless the request belongs to a sequence.
    """
    return await _infer(request, name, version)


async def _infer(request: Request, name: str, version: str | None) -> Response:
    services: Services = request.app.state.services
    exchange: Exchange = request.scope[EXCHANGE]
    model = services.catalog.get(name, version)

    def codec() -> InferCodec:
        kind, unpack = media_type(exchange.headers, *INFER_TYPES), unpacking(exchange.headers, exchange.body)
        return InferCodec(model, services.blobs, exchange.headers, unpack, kind)

    pipeline, statistics = services.pipeline, services.infer_statistics
    sender = sender_of(request.scope)
    answer = await v2_infer(
        pipeline, statistics, model, codec, exchange.headers, exchange.body, exchange.record, sender
    )
    timing = server_timing(exchange.headers, answer.record.times)
    return PiecesResponse(answer.content.pieces, [*answer.content.headers, *timing])


@router.post(
    "/repository/index",
    responses=_errors(400, 401, 403, 408, 413, 415, 503),
    response_description="Every version with its state and, if it is not ready, the reason.",
)
async def index(request: Request, services: InServices) -> list[schemas.IndexEntry]:
    """List every version with its state, and the models that were unloaded.

    With several workers, the one that answers lists its own; they differ only while they load.
    """
    wanted = parse_optional(await _control_body(request), schemas.IndexRequest)
    return metadata.index(services.catalog, ready=wanted.ready)


@router.post(
    "/repository/models/{name}/load",
    responses=CONTROL_ERRORS,
    response_description="Its versions are loaded, in every worker.",
)
async def load(request: Request, name: Name, services: InServices) -> schemas.Controlled:
    """Load a model's versions from the repository.

    Those that are ready go on answering until the new ones are ready.
    """
    parse_optional(await _control_body(request), schemas.LoadRequest)
    await services.control.load(name)
    return {"name": name, "load": True}


@router.post(
    "/repository/models/{name}/unload",
    responses=CONTROL_ERRORS,
    response_description="No new request is answered by the model, in any worker.",
)
async def unload(request: Request, name: Name, services: InServices) -> schemas.Controlled:
    """Unload a model.

    Requests that have already arrived are still answered.
    """
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
