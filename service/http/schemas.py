"""The JSON of the service's own routes beside predictions: what is served, how a model is described, health."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from models.spec import Coding, Readout
from models.spec.onnx_contract import OutputKind
from service.catalog.version import ModelStatus, VersionStatus


class ErrorBody(TypedDict):
    """The body of every error."""

    error: Annotated[str, Field(description="One sentence that names the field, the value and what was expected.")]


class ModelList(TypedDict):
    """What is served."""

    default: Annotated[str | None, Field(description="The model that POST /predict asks.")]
    models: list[ModelStatus]


class InputDescription(TypedDict):
    """What a sample looks like: its shape, and the range that its raw values must keep to."""

    shape: list[int]
    low: float
    high: float


class NodeDescription(TypedDict):
    """One node of a network, with the shape that leaves it at each step."""

    name: str
    type: str
    shape: list[int]


class ModelDescription(TypedDict):
    """A model's newest ready version."""

    name: str
    version: int
    versions: list[VersionStatus]
    engine: str
    created: Annotated[str, Field(description="When the bundle was exported, ISO 8601.")]
    input: InputDescription
    coding: Coding
    time_steps: int
    any_time_steps: Annotated[
        bool, Field(description="Whether a request may ask for other time steps, which some ONNX graphs cannot run.")
    ]
    readout: Annotated[
        Readout | Literal[OutputKind.SCORES],
        Field(description="What the class is read from; `scores` are those of a model that is only an ONNX graph."),
    ]
    labels: list[str]
    nodes: Annotated[
        list[NodeDescription], Field(description="The network; empty for a model that is only an ONNX graph.")
    ]
    metrics: Annotated[dict[str, float], Field(description="What training measured.")]
    card: Annotated[str, Field(description="The model card, Markdown.")]


class Health(TypedDict):
    """That all is well."""

    status: str
