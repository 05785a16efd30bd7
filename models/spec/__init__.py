"""The network as data: nodes, parameters, their validation, and the contract of an external ONNX model."""

from spikeserve.models.spec.events import EventBinning, EventRule, Origin, Polarity
from spikeserve.models.spec.input import Input, OutOfRange
from spikeserve.models.spec.readouts import Readout
from spikeserve.models.spec.scores import Scores
from spikeserve.models.spec.spec import (
    INPUT,
    Coding,
    Spec,
    Task,
    describe_first_error,
)

__all__ = [
    "INPUT",
    "Coding",
    "EventBinning",
    "EventRule",
    "Input",
    "Origin",
    "OutOfRange",
    "Polarity",
    "Readout",
    "Scores",
    "Spec",
    "Task",
    "describe_first_error",
]
