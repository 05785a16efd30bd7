"""The protocol's JSON except inference: the server, its models, and the repository's index and control."""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import Field, field_validator
from typing_extensions import TypedDict

from spikeserve.service.inference.decoding.validation import Strict


class ServerLive(TypedDict):
    """Whether the process is up."""

    live: bool


class ServerReady(TypedDict):
    """Whether every model is ready."""

    ready: bool


class ServerMetadata(TypedDict):
    """The server's name and version, and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(TypedDict):
    """Whether a model is ready."""

    name: str
    ready: bool


class TensorMetadata(TypedDict):
    """A tensor; -1 in its shape is an extent that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """A model's input and output tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(TypedDict):
    """A tensor; `dims` leaves out the batch."""

    name: str
    data_type: str
    dims: list[int]


class ParameterConfig(TypedDict):
    """A parameter's value."""

    string_value: str


class SequenceConfig(TypedDict):
    """That the requests of a sequence go on with its state."""

    max_sequence_idle_microseconds: int
    direct: dict[str, int]


class ModelConfig(TypedDict):
    """A model's configuration. A model that has no sequences has no `sequence_batching`."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    parameters: dict[str, ParameterConfig]
    sequence_batching: NotRequired[SequenceConfig]


class IndexRequest(Strict):
    """Which versions to list."""

    ready: bool = Field(default=False, description="Only those that are ready.")


class LoadRequest(Strict):
    """How to load: there are no parameters, since a model is what its bundle holds."""

    parameters: dict[str, Any] = Field(default={})

    @field_validator("parameters")
    @classmethod
    def _are_none(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if parameters:
            raise ValueError("none, since a model is what its bundle holds: neither a config nor files are taken")
        return parameters


class UnloadParameters(Strict):
    """The parameters of an unload."""

    unload_dependents: bool = Field(default=False, description="Accepted and ignored: no model depends on another.")


class UnloadRequest(Strict):
    """How to unload."""

    parameters: UnloadParameters = UnloadParameters()


class IndexEntry(TypedDict):
    """A version's state, READY, LOADING or UNAVAILABLE, and the reason; without a version, an unloaded model."""

    name: str
    version: NotRequired[str]
    state: str
    reason: str


class Controlled(TypedDict):
    """The answer to a load or an unload."""

    name: str
    load: bool
