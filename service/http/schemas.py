"""The JSON of the native API's other answers: the list of models, a model's description, health and errors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from spikeserve.models.spec import Coding, EventBinning, OutOfRange, Readout, Scores
from spikeserve.service.catalog.catalog import ModelStatus, VersionStatus


class ErrorBody(TypedDict):
    """The body of every error."""

    error: Annotated[str, Field(description="One sentence that names the field, the value and what was expected.")]


class ModelList(TypedDict):
    """The models that are loaded, loading or failed."""

    default: Annotated[str | None, Field(description="The model that POST /predict uses.")]
    models: list[ModelStatus]


class InputDescription(TypedDict):
    """A sample's shape, and the range of its raw values: one for all, or one for each value of a step, row by row."""

    shape: list[int]
    low: float | list[float]
    high: float | list[float]
    out_of_range: Annotated[
        OutOfRange, Field(description="What happens to a value outside: the request is refused, or the end is taken.")
    ]
    events: Annotated[
        EventBinning | None,
        Field(description="How a sensor's events become steps; null where the model takes no event records."),
    ]
    feature_names: Annotated[list[str] | None, Field(description="The names of a step's values, row by row.")]


class NodeDescription(TypedDict):
    """One node of a network, with the shape of its output at each step."""

    name: str
    type: str
    shape: list[int]
    fires: Annotated[bool, Field(description="Whether its neurons fire.")]
    threshold: Annotated[
        float | list[float] | None,
        Field(
            description="Where its neurons fire, before any adaptation: one number for all, or one for each. Null "
            "where none fire, and for a layer of more than 20,000 neurons that each have their own."
        ),
    ]
    weight_bits: Annotated[
        int | None,
        Field(description="The bits of its weights, or of its recurrent ones. Null where there are none, or float32."),
    ]


class DenseOperations(TypedDict):
    """A sample's synaptic operations if no input of any connection were zero."""

    once: Annotated[int, Field(description="Of connections whose input is the same at every step.")]
    per_step: int


class ModelDescription(TypedDict):
    """One version of a model, by default its newest that is ready."""

    name: str
    version: int
    versions: list[VersionStatus]
    engine: str
    created: Annotated[str, Field(description="When the bundle was exported, ISO 8601.")]
    input: InputDescription
    coding: Coding
    time_steps: int
    readout: Annotated[Readout, Field(description="What the answer is read from.")]
    labels: Annotated[list[str], Field(description="The names of the classes, or of the values.")]
    scores: Annotated[
        Scores,
        Field(
            description="What is read out: scores of classes, whose softmax are the probabilities; probabilities "
            "already; or values, of which no class is made."
        ),
    ]
    units: Annotated[list[str] | None, Field(description="The units of the values, in the order of the labels.")]
    nodes: list[NodeDescription]
    dense_operations: DenseOperations
    expected_ms: Annotated[
        float, Field(description="The milliseconds of the engine that a sample of `time_steps` is expected to take.")
    ]
    calibration: Annotated[
        dict[str, float] | None,
        Field(description="What `stop` `confident` does, and what it saved and lost; null where it is not there."),
    ]
    metrics: Annotated[
        dict[str, float],
        Field(
            description="What training measured: the accuracies, the mean synaptic operations of a sample, the seconds "
            "of training, and `firing_rate.<layer>`, a layer's spikes per neuron and step on the test split."
        ),
    ]
    card: Annotated[str, Field(description="The model card, Markdown.")]


class EventsExample(TypedDict):
    """A sample as events: at step t[k], input unit[k] spikes once."""

    t: list[int]
    unit: list[int]


class Examples(TypedDict):
    """A model's golden samples, as the body of a request.

    They are events, or raw values, flat and row by row; for `current` coding, the values of each step.
    """

    inputs: list[EventsExample] | list[list[float]] | list[list[list[float]]]


class Health(TypedDict):
    """The answer of a health check that passes."""

    status: str
