"""The protocol's JSON. Requests are validated strictly; answers are typed but not validated."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, cast

from pydantic import FailFast, Field, field_validator
from typing_extensions import TypedDict

from spikeserve.service.inference.decoding.validation import Strict
from spikeserve.service.inference.protocols.v2.tensors import Datatype
from spikeserve.service.inference.scheduling.query import RunFields

MAX_AXES = 8
Extent = Annotated[int, Field(ge=0, le=2**63 - 1)]


class InputParameters(Strict):
    """The parameters of an input."""

    binary_data_size: int | None = Field(
        default=None, ge=0, description="The number of its bytes after the JSON, in place of `data`."
    )


class InputTensor(Strict):
    """An input tensor: its values in `data`, or its bytes after the JSON."""

    name: str
    shape: Annotated[list[Extent], FailFast()] = Field(max_length=MAX_AXES)
    datatype: Datatype = Field(
        strict=False,
        description="FP32 or another datatype of numbers; not BYTES. Integers must be within ±16777216, which FP32 "
        "holds exactly; FP64 is rounded to FP32.",
    )
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(default=None, description="The values, nested like `shape` or flat, row by row.")


class OutputParameters(Strict):
    """The parameters of a requested output."""

    binary_data: bool | None = Field(
        default=None, description="Whether it is sent as bytes after the JSON; overrides `binary_data_output`."
    )
    classification: int | None = Field(
        default=None, ge=1, description='Only the k greatest values, as text: "value:index:label" each.'
    )


class OutputTensor(Strict):
    """An output that is requested."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(RunFields):
    """The parameters of a request."""

    binary_data_output: bool = Field(default=False, description="Whether all outputs are sent as bytes after the JSON.")
    priority: int | None = Field(default=None, ge=0, description="Accepted and ignored: there are no priorities.")
    sequence_id: Annotated[int, Field(ge=0, lt=2**64)] | Annotated[str, Field(max_length=128)] = Field(
        default=0, description="The sequence that the request belongs to; 0 and an empty text mean none."
    )
    sequence_start: bool = Field(default=False, description="Whether it begins its sequence, at rest.")
    sequence_end: bool = Field(default=False, description="Whether it ends its sequence.")
    sequence_state: bool | Annotated[str, Field(max_length=2**26)] = Field(
        default=False,
        description="Whether the answer's `parameters` hold the sequence's state after this request, as text; or, with "
        "`sequence_start`, such a text, from which the sequence goes on. The answer then holds the next one.",
    )
    timeout: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="How many microseconds the request may take from its arrival; never more than the server's own "
        "limit. 0 means that limit.",
    )


class InferRequest(Strict):
    """An infer request."""

    id: str | None = Field(default=None, description="An id, which the answer repeats.")
    model_name: str | None = Field(default=None, description="Some clients send it; it must be the name in the path.")
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[InputTensor], FailFast()]
    outputs: Annotated[list[OutputTensor], FailFast()] = Field(
        default=cast("list[OutputTensor]", ()),  # no list, which pydantic would copy for each request
        description="The requested outputs; an empty list means all.",
    )


class ResultTensor(TypedDict):
    """An output tensor; without `data`, its bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: NotRequired[dict[str, int]]
    data: NotRequired[list[Any]]


class ResponseParameters(TypedDict):
    """What an answer holds of its sequence."""

    sequence_state: Annotated[str, Field(description="The state after this request.")]


class InferResponse(TypedDict):
    """The answer."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    parameters: NotRequired[ResponseParameters]
    outputs: list[ResultTensor]


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


class ControlAnswer(TypedDict):
    """The answer to a load or an unload."""

    name: str
    load: bool
