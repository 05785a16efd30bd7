"""The protocol's endpoints. A version may be left out everywhere: it is the newest that is ready."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from models.version import VERSION
from service.catalog.registry import Registry
from service.catalog.slots import Slot
from service.http.direct import DirectRoute
from service.http.routes import ERRORS, InControl, InRegistry, Name, Version, responses
from service.inference.schemas import State
from service.inference.v2 import contract, schemas
from service.inference.v2.infer import infer as answer
from service.inference.v2.parsing import parse_optional

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
]
STATES = {State.LOADING: "LOADING", State.READY: "READY", State.FAILED: "UNAVAILABLE"}


router = APIRouter(prefix="/v2", tags=["v2"])
inferring = APIRouter(prefix="/v2", tags=["v2"], route_class=DirectRoute)


_errors = partial(
    responses,
    ERRORS
    | {
        400: "A request that does not keep to the protocol, or that the model does not take.",
        403: "A page of another origin, or a client's key where an admin's is needed.",
        415: "A body that is compressed in a way that is not known here.",
    },
)

MODEL_ERRORS = _errors(401, 404, 503)
CONTROL_ERRORS = _errors(400, 401, 403, 404, 408, 413, 503)


@router.get("", responses=_errors(401))
@router.get("/", include_in_schema=False)
async def server() -> schemas.ServerMetadata:
    """Name the server and the extensions that it knows."""
    return {"name": contract.PLATFORM, "version": VERSION, "extensions": EXTENSIONS}


@router.get("/health/live")
async def live() -> schemas.ServerLive:
    """Say that the process is up."""
    return {"live": True}


@router.get("/health/ready", responses=_errors(503))
async def ready(control: InControl) -> schemas.ServerReady:
    """Say that the models are loaded, verified and warm, in every worker."""
    await control.check_ready()
    return {"ready": True}


@router.get("/models/stats", responses=_errors(401))
async def stats(registry: InRegistry, control: InControl) -> schemas.Statistics:
    """Tell where the time of this protocol's requests went, for every version that is ready."""
    return await control.statistics((name, version) for name in registry.slots for version in _ready(registry, name))


@router.get("/models/{name}/stats", responses=MODEL_ERRORS)
async def model_stats(name: Name, registry: InRegistry, control: InControl) -> schemas.Statistics:
    """Tell the same of one model's versions."""
    registry.get(name)
    return await control.statistics((name, version) for version in _ready(registry, name))


@router.get("/models/{name}/versions/{version}/stats", responses=MODEL_ERRORS)
async def version_stats(name: Name, version: Version, registry: InRegistry, control: InControl) -> schemas.Statistics:
    """Tell the same of one version."""
    return await control.statistics([(name, registry.get(name, version).version)])


@router.get("/models/{name}", responses=MODEL_ERRORS)
async def model(name: Name, registry: InRegistry) -> schemas.ModelMetadata:
    """Describe a model's tensors."""
    return contract.metadata(registry.get(name), _versions(registry, name))


@router.get("/models/{name}/versions/{version}", responses=MODEL_ERRORS)
async def model_version(name: Name, version: Version, registry: InRegistry) -> schemas.ModelMetadata:
    """Describe a version's tensors."""
    return contract.metadata(registry.get(name, version), _versions(registry, name))


@router.get("/models/{name}/ready", responses=MODEL_ERRORS)
async def model_ready(name: Name, registry: InRegistry) -> schemas.ModelReady:
    """Say that a model answers."""
    return {"name": registry.get(name).name, "ready": True}


@router.get("/models/{name}/versions/{version}/ready", responses=MODEL_ERRORS)
async def version_ready(name: Name, version: Version, registry: InRegistry) -> schemas.ModelReady:
    """Say that a version answers."""
    return {"name": registry.get(name, version).name, "ready": True}


@router.get("/models/{name}/config", responses=MODEL_ERRORS)
async def config(name: Name, registry: InRegistry) -> schemas.ModelConfig:
    """Return a model's configuration, in the words of Triton's."""
    return contract.config(registry.get(name))


@router.get("/models/{name}/versions/{version}/config", responses=MODEL_ERRORS)
async def version_config(name: Name, version: Version, registry: InRegistry) -> schemas.ModelConfig:
    """Return a version's configuration."""
    return contract.config(registry.get(name, version))


INFERS: dict[str, Any] = {
    "response_model": schemas.InferResponse,
    "responses": _errors(400, 401, 403, 404, 408, 413, 415, 503, 504),
}


@inferring.post("/models/{name}/infer", **INFERS)
async def infer(request: Request, name: Name) -> Response:
    """Classify each sample with a model's newest version that is ready; every request starts from rest."""
    return await answer(request, request.app.state.registry.get(name))


@inferring.post("/models/{name}/versions/{version}/infer", **INFERS)
async def infer_with_version(request: Request, name: Name, version: Version) -> Response:
    """Classify each sample with one version of a model."""
    return await answer(request, request.app.state.registry.get(name, version))


@router.post("/repository/index", responses=_errors(400, 401, 403, 408, 413, 503))
async def index(request: Request, registry: InRegistry) -> list[schemas.IndexEntry]:
    """List every version, its state and, where it does not answer, why; and the models that were unloaded.

    Of several workers it is the one that answers which tells of itself. They differ while they load.
    """
    asked = parse_optional(await request.body(), schemas.IndexRequest)
    entries = [_entry(slot) for versions in registry.slots.values() for slot in versions.values()]
    entries += [_unloaded(name) for name in sorted(registry.unloaded)]
    return [entry for entry in entries if entry["state"] == STATES[State.READY] or not asked.ready]


@router.post("/repository/models/{name}/load", responses=CONTROL_ERRORS)
async def load(request: Request, name: Name, control: InControl) -> schemas.Controlled:
    """Read a model's versions again and serve them once they are ready; until then, what serves goes on."""
    parse_optional(await request.body(), schemas.LoadRequest)
    await control.load(name)
    return {"name": name, "load": True}


@router.post("/repository/models/{name}/unload", responses=CONTROL_ERRORS)
async def unload(request: Request, name: Name, control: InControl) -> schemas.Controlled:
    """Have a model answer no more; what it was asked before is still answered."""
    parse_optional(await request.body(), schemas.UnloadRequest)
    await control.unload(name)
    return {"name": name, "load": False}


def _ready(registry: Registry, name: str) -> list[int]:
    return [version for version, slot in registry.slots_of(name).items() if slot.state is State.READY]


def _versions(registry: Registry, name: str) -> list[str]:
    return [str(version) for version in _ready(registry, name)]


def _entry(slot: Slot) -> schemas.IndexEntry:
    reason = "" if slot.state is State.READY else slot.why_not_ready
    return {"name": slot.name, "version": str(slot.version), "state": STATES[slot.state], "reason": reason}


def _unloaded(name: str) -> schemas.IndexEntry:
    return {"name": name, "state": STATES[State.FAILED], "reason": "unloaded"}
