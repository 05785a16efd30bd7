"""The methods of the protocol's service that have one request and one answer, and the health check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from spikeserve.models.version import VERSION
from spikeserve.plugins.grpc import messages
from spikeserve.plugins.grpc.call import Call
from spikeserve.plugins.grpc.codec import plain
from spikeserve.plugins.grpc.health import HealthCheckRequest, HealthCheckResponse
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedBody, ModelNotFound, NotReady, ShuttingDown, shown
from spikeserve.service.inference.protocols.v2 import metadata
from spikeserve.service.inference.protocols.v2.parsing import MAX_CONTROL_BYTES, validated
from spikeserve.service.inference.protocols.v2.schemas import LoadRequest, UnloadRequest
from spikeserve.service.services import Services

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

Kind = TypeVar("Kind", bound=Any)


async def server_live(call: Call) -> bytes:
    """Say that the process is up, and that its threads are not stuck for good."""
    return messages.ServerLiveResponse(live=_passes(call.services.readiness.check_live)).SerializeToString()


async def server_ready(call: Call) -> bytes:
    """Say whether the models are loaded, verified and warmed up, in every worker."""
    return messages.ServerReadyResponse(ready=await _is_ready(call.services)).SerializeToString()


async def check(call: Call) -> bytes:
    """Answer a health check of the server, or of its one service, by whether the server is ready."""
    request = await _read(call, HealthCheckRequest)
    if request.service not in ("", SERVICE):
        raise ModelNotFound(f"service is {shown(request.service)}, expected '{SERVICE}' or none")
    ready = await _is_ready(call.services)
    return HealthCheckResponse(status="SERVING" if ready else "NOT_SERVING").SerializeToString()


async def server_metadata(_: Call) -> bytes:
    """Name the server and the extensions that it supports."""
    return messages.ServerMetadataResponse(
        name=metadata.PLATFORM, version=VERSION, extensions=metadata.EXTENSIONS
    ).SerializeToString()


async def model_ready(call: Call) -> bytes:
    """Say whether a model, or one version of it, is ready. Raises ModelNotFound."""
    request = await _read(call, messages.ModelReadyRequest)
    ready = _passes(lambda: _model(call.services, request))
    return messages.ModelReadyResponse(ready=ready).SerializeToString()


async def model_metadata(call: Call) -> bytes:
    """Describe a model's tensors."""
    model = _model(call.services, await _read(call, messages.ModelMetadataRequest))
    told: Any = metadata.metadata(model, call.services.catalog)
    return messages.ModelMetadataResponse(**told).SerializeToString()


async def model_config(call: Call) -> bytes:
    """Return a model's configuration, with the fields of Triton's."""
    model = _model(call.services, await _read(call, messages.ModelConfigRequest))
    told: Any = metadata.config(model, call.services.settings.session_idle_seconds)
    parameters = told.pop("parameters")
    config = messages.ModelConfig(**told)
    for name, value in parameters.items():
        config.parameters[name].string_value = value["string_value"]
    return messages.ModelConfigResponse(config=config).SerializeToString()


async def repository_index(call: Call) -> bytes:
    """List every version with its state; see `metadata.index`."""
    request = await _read(call, messages.RepositoryIndexRequest)
    entries: Any = metadata.index(call.services.catalog, ready=request.ready)
    return messages.RepositoryIndexResponse(models=entries).SerializeToString()


async def repository_load(call: Call) -> bytes:
    """Load a model's versions again. Raises ModelNotFound, LoadFailed, NotReady and ShuttingDown."""
    request = await _read(call, messages.RepositoryModelLoadRequest)
    validated({"parameters": plain(request.parameters)}, LoadRequest)
    name = request.model_name or request.repository_name  # KServe names it `model_name`
    await call.services.control.load(name)
    return messages.RepositoryModelLoadResponse(model_name=name, isLoaded=True).SerializeToString()


async def repository_unload(call: Call) -> bytes:
    """Unload a model. Raises ModelNotFound and NotReady."""
    request = await _read(call, messages.RepositoryModelUnloadRequest)
    validated({"parameters": plain(request.parameters)}, UnloadRequest)
    name = request.model_name or request.repository_name
    await call.services.control.unload(name)
    return messages.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True).SerializeToString()


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except NotReady:
        return False
    return True


async def _is_ready(services: Services) -> bool:
    try:
        await services.control.check_ready()
    except (NotReady, ShuttingDown):
        return False
    return True


def _model(services: Services, request: Any) -> LoadedModel:
    return services.catalog.get(request.name, request.version or None)


async def _read(call: Call, kind: type[Kind]) -> Kind:
    """Return the request, which is short. Raises MalformedBody."""
    content = (await call.read()).content
    if len(content) > MAX_CONTROL_BYTES:
        raise MalformedBody(f"the message has {len(content)} bytes, expected at most {MAX_CONTROL_BYTES} here")
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise MalformedBody(f"the message is not a {kind.__name__}: a field is malformed, or is not UTF-8") from error
