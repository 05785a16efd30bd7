"""The options of an importer, each of which is a flag, and what it returns: a network and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, EventBinning, Input, OutOfRange, Readout, Scores, describe_first_error
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.files import read_bytes

MAX_BYTES = 2**28  # of a file of numbers: JSON has some twenty for each
MAX_EVENTS_BYTES = 2**16  # of a file with the fields of input.events, which has some hundred
MAX_SHOWN = 100  # characters of what somebody wrote that a sentence shows
OF_FILE = "what the file says"
NUMBERS = "one number; or one for each channel or value, as in 0.5,0.4 or @file.npy or @file.json"
CLIENT = {"panel": "what a client sends"}
OF_CLIENT = CLIENT | {"metavar": "<numbers>"}
EVENTS = (
    "How a sensor's events become steps, with coding spikes: the fields of the spec's input.events as JSON, such as "
    '{"step_us": 5000, "sensor": [12], "polarity": "merged"}, or as @file.json.'
)


@dataclass(frozen=True)
class ImportedNetwork:
    """A network from elsewhere, and what its card says of it: half a sentence on its origin, facts and sections.

    `warnings` and `notes` are shown too. With a `refusal` it is not published; it is the end of the sentence on why.
    """

    network: Network
    origin: str
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    refusal: str = ""


def flag(said: str, chosen: str, default: Any = None, **more: Any) -> Any:
    """Return a field that is a flag: what `--help` says of it, and of its default."""
    return Field(default=default, description=said, json_schema_extra={"chosen": chosen, **more})


def _text(read: Callable[[str, str], Any]) -> BeforeValidator:
    """Return the function that reads a flag's text for the field of that name; any other value is taken as it is."""

    def of_text(value: Any, info: ValidationInfo) -> Any:
        return read(value, info.field_name or "") if isinstance(value, str) else value

    return BeforeValidator(of_text)


def _shape(value: str, _: str) -> Shape:
    try:
        shape = tuple(int(size) for size in value.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InvalidInput(f"--input-shape is '{value}', expected sizes with commas between them, such as 2,34,34")
    return shape


def _numbers(value: str, name: str) -> float | tuple[float, ...]:
    """Read the numbers of a flag: one, or a tuple, row by row."""
    source = f"--{name} is '{value}'"
    try:
        array = np.asarray(_read(Path(value[1:])) if value.startswith("@") else value.split(","), np.float64)
    except OSError as error:
        raise InvalidInput(f"{source}, which cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, EOFError, OverflowError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"{source}, expected {NUMBERS}") from error
    if name == "std" and not (array > 0).all():
        raise InvalidInput(f"--std is {array[~(array > 0)].flat[0]:g}, expected more than 0")
    return float(array.item()) if array.size == 1 else tuple(array.ravel().tolist())


def _read(path: Path) -> Any:
    content = read_bytes(path, MAX_BYTES)
    if path.suffix != ".npy":
        return json.loads(content)
    try:
        return np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy lets out what Python's tokenizer and parser raise for a header
        raise ValueError("no .npy of numbers") from error


def _events(value: str, _: str) -> EventBinning:
    source = f"--events is '{value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + '…'}'"
    try:
        content = read_bytes(Path(value[1:]), MAX_EVENTS_BYTES) if value.startswith("@") else value
        return EventBinning.model_validate_json(content)
    except OSError as error:
        raise InvalidInput(f"{source}, which cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidInput(f"{source}: {describe_first_error(error)}") from error


InputShape = Annotated[Shape, _text(_shape)]
Numbers = Annotated[float | tuple[float, ...], _text(_numbers)]


class Options(BaseModel):
    """What a source does not say of itself; None is the default, or what the source says after all.

    An importer's own options extend it. Each field is a flag of its command, and is read from that flag's text too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_shape: InputShape | None = flag("Such as 2,34,34.", OF_FILE, metavar="<str>")
    time_steps: int | None = flag("Steps per sample.", "100")
    coding: Coding | None = flag("How a sample becomes steps.", "spikes")
    readout: Readout | None = flag("What the answer is read from.", "what the source says, or what fits the last layer")
    labels: tuple[str, ...] | None = flag("Names of the classes or values, as in cat,dog.", "their numbers")
    scores: Scores | None = flag("What is read: scores of classes, probabilities already, or values.", "softmax")
    units: tuple[str, ...] | None = flag("With --scores values: their units, as in rad,m/s.", "none")
    low: Numbers | None = flag(f"The least raw value: {NUMBERS}.", "0", **OF_CLIENT)
    high: Numbers | None = flag("The greatest raw value, likewise.", "1", **OF_CLIENT)
    mean: Numbers | None = flag("The network sees (value - mean) / std: numbers as for --low.", "0", **OF_CLIENT)
    std: Numbers | None = flag("See --mean.", "1", **OF_CLIENT)
    out_of_range: OutOfRange | None = flag("What happens to a raw value outside the range.", "refuse", **CLIENT)
    events: Annotated[EventBinning, _text(_events)] | None = flag(
        EVENTS, "the model takes no recordings", **CLIENT, metavar="<json>"
    )
    # As a spec says them, where there is one already; no flag does.
    scale: Numbers | None = flag("As in the spec.", "1", file=True)
    offset: Numbers | None = flag("As in the spec.", "0", file=True)
    resolution: float | None = flag("As in the spec.", "none", file=True)
    by_deviation: bool | None = flag("As in the spec.", "none", file=True)
    feature_names: tuple[str, ...] | None = flag("As in the spec.", "none", file=True)

    @classmethod
    def read(cls, typed: Mapping[str, Any]) -> Self:
        """Return the options that were typed; raises InvalidInput with one sentence."""
        try:
            return cls.model_validate(typed)
        except ValidationError as error:
            own = error.errors()[0].get("ctx", {}).get("error")  # a sentence of ours
            raise own if isinstance(own, InvalidInput) else InvalidInput(describe_first_error(error)) from error

    @property
    def declared(self) -> dict[str, Any]:
        """The fields of the spec's input that are given, but for its shape.

        A mean and a standard deviation are in raw units, and become scale = 1 / std and offset = -mean / std, worked
        out in float64 and rounded to float32 by `Input`. Raises InvalidInput where they differ in number.
        """
        said = {name: value for name in Input.model_fields if (value := getattr(self, name, None)) is not None}
        if self.mean is self.std is None:
            return said
        mean, std = np.asarray(self.mean or 0.0), np.asarray(self.std or 1.0)
        if mean.ndim and std.ndim and mean.size != std.size:
            raise InvalidInput(f"--mean has {mean.size} numbers and --std {std.size}, expected as many of both, or one")
        return said | {"scale": _written(1 / std), "offset": _written(-mean / std)}


def _written(values: NDArray[np.float64]) -> float | tuple[float, ...]:
    return tuple(values.tolist()) if values.ndim else float(values)
