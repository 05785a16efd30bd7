"""The endpoints of the native API. Errors are exceptions that carry their own status (`service.errors`).

In the OpenAPI document, the first line of an endpoint's docstring is its summary, and the rest its description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import HTTPConnection

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.http.adapter import answered
from spikeserve.service.http.describe import described, examples
from spikeserve.service.http.openapi import REFERENCE
from spikeserve.service.http.page import FILES, page, page_file
from spikeserve.service.http.requests import exchange_of
from spikeserve.service.http.schemas import ErrorBody, Examples, Health, ModelDescription, ModelList
from spikeserve.service.inference.decoding.media import PREDICT_TYPES, media_type, unpacking
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.native.schemas import PredictResponse
from spikeserve.service.services import Services

router = APIRouter()
predicting = APIRouter()


async def services_of(request: Request) -> Services:  # async, since FastAPI runs a plain function on another thread
    """Return the services of the app that handles a request."""
    services: Services = request.app.state.services
    return services


InServices = Annotated[Services, Depends(services_of)]


async def model_of(connection: HTTPConnection) -> LoadedModel:
    """Return the version that the path names, else the newest that is ready of its model, or of the default one."""
    services: Services = connection.app.state.services
    return services.catalog.get(connection.path_params.get("name"), connection.path_params.get("version"))


Model = Annotated[LoadedModel, Depends(model_of)]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def of_model(router: APIRouter, method: str, path: str = "", **described: Any) -> Callable[[Endpoint], Endpoint]:
    """Add an endpoint at a path below a model, and below one version of it; `model_of` says which is meant."""

    def add(endpoint: Endpoint) -> Endpoint:
        for version in ("", "/versions/{version}"):
            router.add_api_route(f"/models/{{name}}{version}{path}", endpoint, methods=[method], **described)
        return endpoint

    return add


ERRORS = {
    400: "The body is not JSON, an object names a field twice, or a header is malformed.",
    401: "The key is missing or unknown; only where keys are set.",
    403: "A browser sent the request from a page of an origin that is not allowed.",
    404: "There is no such model or version.",
    408: "The body took longer to arrive than the settings allow.",
    413: "The request has more bytes, samples or work than the limits allow.",
    415: "The Content-Type or Content-Encoding is not supported.",
    422: "A field is missing, unknown or of the wrong type, shape or value.",
    503: "The model is loading or failed to load, or the server is overloaded or shutting down; see Retry-After.",
    504: "The request's time ran out before there was an answer.",
}

NOT_READY = {503: "A model is loading or failed to load, a worker does not answer, or the server is shutting down."}
NOT_LIVE = {503: "No worker thread has become free for longer than any request may take; restart the server."}


def responses(described: Mapping[int, str], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` for a route that answers these error `statuses`, with their descriptions.

    They refer to the schema that `service.http.openapi` adds: FastAPI would build one for each status of each route.
    """
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=ErrorBody.__name__)}}}
    return {status: {"content": content, "description": described[status]} for status in statuses}


_errors = partial(responses, ERRORS)

PREDICTS: dict[str, Any] = {
    "response_model": PredictResponse,
    "response_description": "The prediction of each sample, in the order in which they were sent.",
    "responses": _errors(400, 401, 403, 404, 408, 413, 415, 422, 503, 504),
    "tags": ["predict"],
}


@predicting.post("/predict", **PREDICTS)
@of_model(predicting, "POST", "/predict", **PREDICTS)
async def predict(request: Request) -> Response:
    """Classify samples with the default model, a model's newest version that is ready, or one version.

    Every sample starts from rest. A model whose scores are values answers values, and no class.
    """
    exchange, model = exchange_of(request), await model_of(request)
    kind, unpack = media_type(exchange.headers, *PREDICT_TYPES), unpacking(exchange.headers, exchange.body)
    return await answered(request, model, NativeCodec(model, unpack, kind, request.scope["query_string"]))


@router.get(
    "/models",
    responses=_errors(401),
    response_description="Every model with the state of its versions, and the name of the default model.",
    tags=["models"],
)
async def models(services: InServices) -> ModelList:
    """List the models and the state of each version.

    With several workers, the one that answers lists its own; they differ only while they load.
    """
    return {"default": services.catalog.default, "models": services.catalog.model_statuses()}


@of_model(
    router,
    "GET",
    responses=_errors(401, 404, 503),
    response_description="The version's input, network, metrics and model card, and the states of all versions.",
    tags=["models"],
)
async def model(model: Model, services: InServices) -> ModelDescription:
    """Describe a model's newest version that is ready, or one version."""
    return described(model, services.catalog.version_statuses(model.name))


@router.get(
    "/models/{name}/examples",
    responses=_errors(401, 404, 503),
    response_description="A body that can be sent to predict as it is.",
    tags=["models"],
)
async def model_examples(model: Model) -> Examples:
    """Return a model's golden samples as the body of a request.

    Golden samples are those that every engine must answer as recorded before the version is served.
    """
    return {"inputs": examples(model)}


@router.get(
    "/health/live", responses=responses(NOT_LIVE, 503), response_description="The process is live.", tags=["health"]
)
async def live(services: InServices) -> Health:
    """Tell whether the process is live.

    It is live unless its threads are stuck for good; then restart it.
    """
    services.readiness.check_live()
    return {"status": "live"}


@router.get(
    "/health/ready",
    responses=responses(NOT_READY, 503),
    response_description="The server is ready for requests.",
    tags=["health"],
)
async def ready(services: InServices) -> Health:
    """Tell whether the server is ready for requests.

    It is ready once its models are loaded, verified and warmed up, in every worker.
    """
    await services.control.check_ready()
    return {"status": "ready"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **_errors(401)},
    response_description="The metrics of all workers in Prometheus' text format.",
    tags=["health"],
)
async def metrics(services: InServices) -> Response:
    """Return the metrics for Prometheus."""
    return Response(await services.control.exposition(), media_type=CONTENT_TYPE_LATEST)


router.add_api_route("/", page, include_in_schema=False)
router.add_api_route(f"{FILES}/{{name}}", page_file, include_in_schema=False)
