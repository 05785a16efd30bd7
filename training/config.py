"""What a training run is asked to do: read from TOML, overridden by flags, written into the run's folder.

Each field is a key of the TOML file and a flag of `fit`, which takes type, range, default and description from here
(training/commands/flags.py, which also says what stands in `json_schema_extra`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, ValidationError

from models.spec import Coding, Readout, describe_first_error
from models.spec.nodes import Fire, Reset
from models.spec.parameters import Fraction, Frozen
from training.errors import InvalidConfig

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Surrogate(StrEnum):
    """The surrogates by name."""

    SIGMOID = "sigmoid"
    FAST_SIGMOID = "fast_sigmoid"
    ARCTAN = "arctan"
    TRIANGULAR = "triangular"
    SOFT = "soft"


class DataConfig(Frozen):
    """Which data, and how it is split. The test split chooses nothing."""

    dataset: str = Field(default="digits", description="digits, mnist, fashion-mnist or arrays.")
    file: Path | None = Field(
        default=None, description="arrays: the .npz with x and y.", json_schema_extra={"chosen": "none"}
    )
    folder: Path = Field(default=Path("data"), description="mnist, fashion-mnist: where the data lies.")
    download: bool = Field(default=False, description="mnist, fashion-mnist: download it.")
    test_share: Share = Field(default=0.2, description="The share of the samples that is held out as the test split.")
    validation_share: Share = Field(
        default=0.1, description="The share of the other samples that chooses the best epoch."
    )
    split_seed: Annotated[int, Field(ge=0)] = Field(default=0, description="The seed of the splits.")
    low: float | None = Field(
        default=None,
        description="arrays: the lowest value that a client may send.",
        json_schema_extra={"chosen": "the lowest in the data"},
    )
    high: float | None = Field(
        default=None,
        description="arrays: the highest value that a client may send.",
        json_schema_extra={"chosen": "the highest in the data"},
    )


class NetworkConfig(Frozen):
    """The network: its layers in short form and the neurons that they all have."""

    architecture: str = Field(default="32C3-AP2-64C3-AP2-64", description="The layers, first to last.")
    neuron: Literal["IF", "LIF", "CubaLIF"] = Field(default="LIF", description="The neuron of all layers.")
    decay: Fraction = Field(default=0.75, description="What a membrane that leaks keeps per step.")
    syn_decay: Fraction = Field(default=0.5, description="What a CubaLIF's synaptic current keeps per step.")
    threshold: Positive = Field(default=1.0, description="The membrane at which a neuron fires.")
    fire: Fire = Field(default=Fire.AT_THRESHOLD, description="Fire at the threshold, or only above it.")
    reset: Reset = Field(default=Reset.SUBTRACT, description="What a spike does to the membrane.")
    readout: Readout = Field(default=Readout.SPIKE_COUNT, description="What the class is read from.")
    coding: Coding = Field(default=Coding.DIRECT, description="How a sample becomes steps.")
    time_steps: Count | None = Field(
        default=None,
        description="Steps per sample.",
        json_schema_extra={"chosen": "8; as many as the data has for spikes"},
    )


class OptimisationConfig(Frozen):
    """How the weights are fitted."""

    epochs: Count = Field(default=40, description="Epochs at most.", json_schema_extra={"resumable": True})
    batch_size: Count = Field(default=64, description="Samples per batch.")
    learning_rate: Positive = Field(
        default=2e-3, description="The learning rate of the first epoch, which falls to 0 as a cosine."
    )
    weight_decay: NonNegative = Field(default=1e-3, description="AdamW's weight decay.")
    surrogate: Surrogate = Field(default=Surrogate.SIGMOID, description="The surrogate gradient.")
    slope: Positive = Field(default=5.0, description="The surrogate's slope.")
    rate_penalty: NonNegative = Field(default=2.0, description="The weight of the firing-rate penalty.")
    rate_low: Fraction = Field(default=0.01, description="The firing rate below which a layer is penalised.")
    rate_high: Fraction = Field(default=0.15, description="The firing rate above which a layer is penalised.")
    shift: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Images are shifted at random by up to this many pixels."
    )
    clip_norm: Positive = Field(default=1.0, description="The gradient's norm is clipped to this.")
    patience: Count = Field(
        default=15,
        description="End after this many epochs without a better one.",
        json_schema_extra={"resumable": True},
    )


class TrainingConfig(Frozen):
    """A whole run. The seed fixes the weights' start, the order of the data and every random number on the way."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="Fixes everything that is random.")
    device: str = Field(default="cpu", description="cpu or cuda.", json_schema_extra={"resumable": True})
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    optimisation: OptimisationConfig = OptimisationConfig()

    @classmethod
    def read(cls, path: Path | None, overrides: Mapping[str, Any]) -> Self:
        """Read a TOML file, or the defaults, and lay the flags that were given over it.

        `overrides` has the form of the file, a dictionary for each section, with only what wins over it. Raises
        InvalidConfig for a file that is not there or not TOML, an unknown field, and a value out of range.
        """
        values = _read_toml(path) if path else {}
        _lay_over(values, overrides)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidConfig(f"{path or 'configuration'}: {describe_first_error(error)}") from error

    def write(self, path: Path) -> None:
        """Write the configuration as TOML that `read` reads."""
        path.write_text(tomli_w.dumps(self.model_dump(mode="json", exclude_none=True)))


def _lay_over(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        if not isinstance(value, Mapping):
            values[name] = value
        elif isinstance(section := values.setdefault(name, {}), dict):  # what is no section is refused below
            _lay_over(section, value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidConfig(f"config: '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"config: '{path}' is not TOML: {error}") from error
