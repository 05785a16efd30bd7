"""The network as data: nodes, parameters, their validation, and the contract of an external ONNX model."""

from models.spec.events import EventBinning, EventRule, Origin, Polarity
from models.spec.input import Input, OutOfRange
from models.spec.readouts import Readout
from models.spec.scores import Scores
from models.spec.spec import (
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
