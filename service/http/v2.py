"""The protocol's endpoints. Where a path names no version, the newest that is ready is used."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from spikeserve.models.version import VERSION
from spikeserve.service.errors import UnsupportedMedia
from spikeserve.service.http.adapter import answered
from spikeserve.service.http.requests import exchange_of
from spikeserve.service.http.routes import ERRORS, NOT_LIVE, NOT_READY, InServices, Model, model_of, of_model, responses
from spikeserve.service.inference.decoding.media import INFER_TYPES, JSON, media_type, unpacking
from spikeserve.service.inference.protocols.v2 import metadata, schemas
from spikeserve.service.inference.protocols.v2.codec import InferCodec
from spikeserve.service.inference.protocols.v2.parsing import parse_optional
from spikeserve.service.inference.protocols.v2.schemas import InferResponse
from spikeserve.service.services import Services

router = APIRouter(prefix="/v2", tags=["v2"])
inferring = APIRouter(prefix="/v2", tags=["v2"])


REASONS = ERRORS | {
    400: "The request breaks the protocol, or does not fit the model.",
    403: "A browser sent the request from a page of another origin, or the path needs an admin's key.",
}
_errors = partial(responses, REASONS)

MODEL_ERRORS = _errors(401, 404, 503)
CONTROL_ERRORS = _errors(400, 401, 403, 404, 408, 413, 415, 503)


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


@of_model(
    router,
    "GET",
    responses=MODEL_ERRORS,
    response_description="The names, datatypes and shapes of the input and the outputs; -1 is an extent that varies.",
)
async def model(model: Model, services: InServices) -> schemas.ModelMetadata:
    """Describe the tensors of a model's newest version that is ready, or of one version."""
    return metadata.metadata(model, services.catalog)


@of_model(router, "GET", "/ready", responses=MODEL_ERRORS, response_description="It is ready.")
async def model_ready(model: Model) -> schemas.ModelReady:
    """Tell whether a version of a model is ready, or one version."""
    return {"name": model.name, "ready": True}


@of_model(
    router,
    "GET",
    "/config",
    responses=MODEL_ERRORS,
    response_description="The configuration, with the field names of Triton's.",
)
async def config(model: Model, services: InServices) -> schemas.ModelConfig:
    """Return the configuration of a model's newest version that is ready, or of one version."""
    return metadata.config(model, services.settings.session_idle_seconds)


@of_model(
    inferring,
    "POST",
    "/infer",
    response_model=InferResponse,
    response_description="The output tensors, whose first extent is the batch.",
    responses=_errors(400, 401, 403, 404, 408, 413, 415, 503, 504),
)
async def infer(request: Request) -> Response:
    """Classify samples with a model's newest version that is ready, or with one version.

    Every sample starts from rest, unless the request belongs to a sequence.
    """
    services: Services = request.app.state.services
    exchange, model = exchange_of(request), await model_of(request)
    media_type(exchange.headers, *INFER_TYPES)
    unpack = unpacking(exchange.headers, exchange.body)
    return await answered(request, model, InferCodec(model, services.blobs, exchange.headers, unpack))


@router.post(
    "/repository/index",
    responses=_errors(400, 401, 403, 408, 413, 415, 503),
    response_description="Every version with its state and, if it is not ready, the reason.",
)
async def index(request: Request, services: InServices) -> list[schemas.IndexEntry]:
    """List every version with its state, and the models that were unloaded.

    With several workers, the one that answers lists its own; they differ only while they load.
    """
    asked = parse_optional(await _control_body(request), schemas.IndexRequest)
    return metadata.index(services.catalog, ready=asked.ready)


@router.post(
    "/repository/models/{name}/load",
    responses=CONTROL_ERRORS,
    response_description="Its versions are loaded, in every worker.",
)
async def load(request: Request, name: str, services: InServices) -> schemas.ControlAnswer:
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
async def unload(request: Request, name: str, services: InServices) -> schemas.ControlAnswer:
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
