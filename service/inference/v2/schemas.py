"""The JSON of an infer request and its answer. A request is validated strictly; an answer is only described."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import FailFast, Field, field_validator
from typing_extensions import TypedDict

from models.coding import MAX_SEED
from service.inference.native.schemas import Strict
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
