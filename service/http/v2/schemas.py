"""The protocol's JSON beside inference: the server, its models, and the repository's index and control."""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import Field, field_validator
from typing_extensions import TypedDict

from service.inference.native.schemas import Strict


class ServerLive(TypedDict):
    """That the process is up."""

    live: bool


class ServerReady(TypedDict):
    """That every model answers."""

    ready: bool


class ServerMetadata(TypedDict):
    """What serves, and which extensions of the protocol it knows."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(TypedDict):
    """That a model answers."""

    name: str
    ready: bool


class TensorMetadata(TypedDict):
    """A tensor; -1 is an extent that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(TypedDict):
    """A tensor, its extents without the batch."""

    name: str
    data_type: str
    dims: list[int]


class ParameterConfig(TypedDict):
    """A parameter's value."""

    string_value: str


class ModelConfig(TypedDict):
    """A model's configuration."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    parameters: dict[str, ParameterConfig]


class IndexRequest(Strict):
    """Which versions to list."""

    ready: bool = Field(default=False, description="Only those that answer.")


class LoadRequest(Strict):
    """Nothing can be said of a load: what a bundle holds is all there is."""

    parameters: dict[str, Any] = Field(default={})

    @field_validator("parameters")
    @classmethod
    def _are_none(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if parameters:
            raise ValueError("none, since a model is what its bundle holds: neither a config nor files are taken")
        return parameters


class UnloadParameters(Strict):
    """What clients say of an unload."""

    unload_dependents: bool = Field(default=False, description="Taken and not used: no model depends on another.")


class UnloadRequest(Strict):
    """How to unload."""

    parameters: UnloadParameters = UnloadParameters()


class IndexEntry(TypedDict):
    """One version as it stands: READY, LOADING or UNAVAILABLE, and why; without one, a model that was unloaded."""

    name: str
    version: NotRequired[str]
    state: str
    reason: str


class Controlled(TypedDict):
    """What was done to a model."""

    name: str
    load: bool
