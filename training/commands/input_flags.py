"""The flags of every import: which raw values a client sends and what the network sees, and how an answer is read."""

from __future__ import annotations

import inspect
import json
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import ValidationError

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning, Input, OutOfRange, Readout, Scores
from spikeserve.models.spec.parameters import show
from spikeserve.models.spec.spec import describe_first_error
from spikeserve.training.commands.flags import Command, with_parameters
from spikeserve.training.commands.groups import console
from spikeserve.training.files import read_bytes

MAX_BYTES = 2**28  # of a file of numbers: JSON has some twenty for each
MAX_EVENTS_BYTES = 2**16  # of a file with the fields of input.events, which has some hundred
MAX_SHOWN = 100  # characters of what somebody wrote that a sentence shows
PANEL = "what a client sends"
OF_NUMBERS = ("low", "high", "mean", "std")
NUMBERS = "one number; or one for each channel or value, as in 0.5,0.4 or @file.npy or @file.json"


def _option(
    flag: str, said: str, shown: str, kind: Any = str, metavar: str | None = "<numbers>", panel: str | None = PANEL
) -> inspect.Parameter:
    metavar = metavar if kind is str else None
    option = typer.Option(flag, help=said, show_default=shown, metavar=metavar, rich_help_panel=panel)
    name = flag.removeprefix("--").replace("-", "_")
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


ANSWER = (
    _option(
        "--readout", "What the answer is read from.", "what the source says, or what fits the last layer", Readout,
        panel=None,
    ),
    _option("--labels", "Names of the classes or values, as in cat,dog.", "their numbers", metavar=None, panel=None),
    _option(
        "--scores", "What is read: scores of classes, probabilities already, or values.",
        "softmax; of an ONNX model, probabilities where they add up to 1", Scores, panel=None,
    ),
    _option("--units", "With --scores values: their units, as in rad,m/s.", "none", metavar=None, panel=None),
)  # fmt: skip
FLAGS = (
    _option("--low", f"The least raw value: {NUMBERS}.", "0"),
    _option("--high", "The greatest raw value, likewise.", "1"),
    _option("--mean", "The network sees (value - mean) / std: numbers as for --low.", "0"),
    _option("--std", "See --mean.", "1"),
    _option("--out-of-range", "What happens to a raw value outside the range.", "refuse", OutOfRange),
    _option(
        "--events",
        "How a sensor's events become steps, with coding spikes: the fields of the spec's input.events as JSON, such "
        'as {"step_us": 5000, "sensor": [12], "polarity": "merged"}, or as @file.json.',
        "the model takes no recordings",
        metavar="<json>",
    ),
)


def with_input_flags(command: Command, without: tuple[str, ...] = ()) -> Command:
    """Give a command the flags, but those of the names `without`, in place of its last parameter, `declared`.

    It gets there what the user said as fields of `Options`: {"low": -1.0, "scale": (0.5, 0.25), "labels": ("a", "b")}.
    """
    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "declared"]
    answer, inputs = ([flag for flag in flags if flag.name not in without] for flags in (ANSWER, FLAGS))

    @wraps(command)
    def wrapped(**values: Any) -> None:
        answer_values, declared = ({flag.name: values.pop(flag.name) for flag in flags} for flags in (answer, inputs))
        listed = {name: tuple(text.split(",")) for name, text in answer_values.items() if type(text) is str and text}
        said = {name: value for name, value in (answer_values | listed).items() if value}
        command(**values, declared=said | input_fields(**declared))

    return with_parameters(wrapped, [*own, *answer, *inputs])


def input_fields(**flags: Any) -> dict[str, Any]:
    """Return the fields of `Input` that the flags of these names say, None where absent; raises InvalidInput.

    A mean and a standard deviation are in raw units, and become scale = 1 / std and offset = -mean / std, worked out
    in float64 and rounded to float32 by `Input`.
    """
    flags = {name: value for name, value in flags.items() if value is not None}
    numbers = {name: _numbers(f"--{name}", flags.pop(name)) for name in OF_NUMBERS if name in flags}
    if {"mean", "std"} & numbers.keys():
        mean, std = numbers.pop("mean", np.zeros(())), numbers.pop("std", np.ones(()))
        numbers["scale"], numbers["offset"] = _standardised(mean, std)
    fields = {name: float(values) if values.ndim == 0 else tuple(values.tolist()) for name, values in numbers.items()}
    return fields | flags | ({"events": _events(flags["events"])} if "events" in flags else {})


def show_input(declared: Input) -> None:
    """Print what a client may send, what the network sees of it, and which flags say otherwise where none was used."""
    low, high = declared.normalised_range
    normalises = any(factor != neutral for factor, neutral in ((declared.scale, 1.0), (declared.offset, 0.0)))
    sees = f"; the network sees {low:g} to {high:g}" if normalises or declared.resolution is not None else ""
    clips = "clipped" if declared.out_of_range is OutOfRange.CLIP else "refused"
    said = f"Input: {show(declared.shape)} values from {declared.described_range}{sees}; others are {clips}"
    if declared == Input(shape=declared.shape):
        said += (
            ". For other data give --low and --high, and --mean and --std where the network was trained on normalised "
            "values"
        )
    console.print(said)


def _numbers(flag: str, text: str) -> NDArray[np.float64]:
    """Read the numbers of a flag: () for one number, else (n,), row by row."""
    source = f"{flag} is '{text}'"
    try:
        if text.startswith("@"):
            array = np.asarray(_read(Path(text[1:])), np.float64)
            return array.reshape(()) if array.size == 1 else array.reshape(-1)
        values = [float(number) for number in text.split(",")]
    except OSError as error:
        raise InvalidInput(f"{source}, which cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, EOFError, OverflowError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"{source}, expected {NUMBERS}") from error
    return np.array(values[0] if len(values) == 1 else values)


def _events(text: str) -> EventBinning:
    """Read the flag --events."""
    source = f"--events is '{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}'"
    try:
        content = read_bytes(Path(text[1:]), MAX_EVENTS_BYTES) if text.startswith("@") else text
        return EventBinning.model_validate_json(content)
    except OSError as error:
        raise InvalidInput(f"{source}, which cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidInput(f"{source}: {describe_first_error(error)}") from error


def _read(path: Path) -> Any:
    content = read_bytes(path, MAX_BYTES)
    if path.suffix != ".npy":
        return json.loads(content)
    try:
        return np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy lets out what Python's tokenizer and parser raise for a header
        raise ValueError("no .npy of numbers") from error


def _standardised(
    mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not (std > 0).all():
        raise InvalidInput(f"--std is {std[~(std > 0)].flat[0]:g}, expected more than 0")
    if mean.ndim and std.ndim and mean.size != std.size:
        raise InvalidInput(f"--mean has {mean.size} numbers and --std {std.size}, expected as many of both, or one")
    return 1 / std, -mean / std
