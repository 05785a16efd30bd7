"""The protocol's JSON. A request is validated strictly; an answer is made here and so only described."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import FailFast, Field, field_validator
from typing_extensions import TypedDict

from models.coding import MAX_SEED
from service.inference.schemas import Strict
from service.inference.v2.tensors import Datatype

MOST_AXES = 8
Extent = Annotated[int, Field(ge=0, le=2**63 - 1)]


class InputParameters(Strict):
    """What may be said of an input."""

    binary_data_size: int | None = Field(
        default=None, ge=0, description="How many bytes it has after the JSON, in place of `data`."
    )


class InputTensor(Strict):
    """An input tensor: its values in `data`, or its bytes after the JSON."""

    name: str
    shape: Annotated[list[Extent], FailFast()] = Field(max_length=MOST_AXES)
    datatype: Datatype = Field(
        strict=False,
        description="FP32, or other numbers: integers within ±16777216, which FP32 holds exactly, and FP64, which is "
        "rounded to FP32 as any number in JSON is. Not BYTES.",
    )
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(default=None, description="The values, nested like `shape` or flat, row by row.")


class OutputParameters(Strict):
    """How an output is wanted."""

    binary_data: bool | None = Field(default=None, description="As bytes after the JSON; it wins over the request's.")
    classification: int | None = Field(
        default=None, ge=1, description='The greatest k values as text, each "value:index:label", in place of all.'
    )


class OutputTensor(Strict):
    """An output that is wanted."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Strict):
    """What may be said of a request."""

    time_steps: int | None = Field(
        default=None, ge=1, description="How many steps to run; by default as many as the model was trained with."
    )
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="What `rate` coding draws from: the same seed, the same spikes."
    )
    binary_data_output: bool = Field(default=False, description="All outputs as bytes after the JSON.")
    priority: int | None = Field(default=None, ge=0, description="Taken and not used: requests run as they come.")
    timeout: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="The microseconds, from its arrival, that the request may take, as far as the server allows; "
        "0 is as long as that.",
    )


class InferRequest(Strict):
    """What a model is asked."""

    id: str | None = Field(default=None, description="Comes back with the answer.")
    model_name: str | None = Field(default=None, description="Some clients repeat the name; it must be the path's.")
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[InputTensor], FailFast()]
    outputs: Annotated[list[OutputTensor], FailFast()] = Field(
        default=[], description="The outputs that are wanted; none means all."
    )

    @field_validator("id")
    @classmethod
    def _is_text(cls, said: str | None) -> str | None:
        if said is not None and any("\ud800" <= character <= "\udfff" for character in said):
            raise ValueError("text that UTF-8 can hold")  # half a surrogate pair, which only an escape in JSON can be
        return said


class ResultTensor(TypedDict):
    """An output tensor; without `data`, its bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: NotRequired[dict[str, int]]
    data: NotRequired[list[Any]]


class InferResponse(TypedDict):
    """The answer."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[ResultTensor]


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


class Duration(TypedDict):
    """How often, and for how many nanoseconds in all."""

    count: int
    ns: int


class InferenceStats(TypedDict):
    """Where the time of the requests went."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStats(TypedDict):
    """The same of the requests of one batch size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStats(TypedDict):
    """What one version has answered over this protocol since the server's workers started."""

    name: str
    version: str
    last_inference: Annotated[int, Field(description="Milliseconds since 1970; 0 is never.")]
    inference_count: Annotated[int, Field(description="Samples.")]
    execution_count: Annotated[int, Field(description="Requests; some may have shared a run of the engine.")]
    inference_stats: InferenceStats
    batch_stats: list[BatchStats]


class Statistics(TypedDict):
    """The statistics of some versions."""

    model_stats: list[ModelStats]


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
