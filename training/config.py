"""What a training run is asked to do: read from TOML, overridden by flags, written into the run's folder."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, ValidationError

from models.spec import Coding, Readout, describe_first_error
from models.spec.nodes import Fire, Reset
from models.spec.parameters import Fraction, Frozen, Size
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


class Normalise(StrEnum):
    """How raw values become currents."""

    NONE = "none"
    RANGE = "range"
    STANDARD = "standard"


class DataConfig(Frozen):
    """Which data, and how it is split. The test split chooses nothing."""

    dataset: str = Field(
        default="digits",
        description="digits, mnist, fashion-mnist, mnist-5000, spoken-digits, nmnist, dvs-gesture, shd or ssc; arrays "
        "(your own .npz) or events (your own folder).",
    )
    file: Path | None = Field(default=None, description="arrays: the .npz with x and y, or x_train, y_train and so on.")
    folder: Path = Field(default=Path("data"), description="Where data sets of their own folder lie.")
    download: bool = Field(default=False, description="Download the data set where it is not there.")
    test_share: Share = Field(default=0.2, description="The share of samples to test on, where the data has no split.")
    validation_share: Share = Field(default=0.1, description="The share of the others to validate on, likewise.")
    split_seed: Annotated[int, Field(ge=0)] = Field(default=0, description="Which samples are held out.")
    low: float | None = Field(default=None, description="The least raw value; the data's if absent.")
    high: float | None = Field(default=None, description="The greatest raw value; the data's if absent.")
    normalise: Normalise | None = Field(
        default=None,
        description="none; range, low to high become 0 to 1; or standard, each feature has mean 0 and "
        "deviation 1. If absent, for arrays: standard for current coding, none for spikes, else range.",
    )
    window: Count | None = Field(
        default=None, description="Events, audio: the microseconds of a time step; 10000 if absent."
    )
    max_steps: Count | None = Field(
        default=None, description="Events, audio: at most so many steps of a recording; as its data set has if absent."
    )
    sensor: tuple[Size, ...] | None = Field(
        default=None, description="Events: channels, height and width, or units; as far as the data reaches if absent."
    )
    downsample: Count = Field(
        default=1, description="Events: so many pixels of height and width, or units, become one."
    )
    cache: Path = Field(default=Path("data/.cache"), description="Events: where they are kept once they are binned.")


class AugmentConfig(Frozen):
    """How training samples are varied, anew in every epoch. Nothing is varied by default."""

    shift: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Move pictures, or event cameras' rasters, by up to so many pixels."
    )
    event_drop: Fraction = Field(
        default=0.0, description="Drop up to this share of a sample: a span of time, some channels or events at random."
    )
    time_jitter: NonNegative = Field(
        default=0.0, description="Move each spike by normally distributed steps of this deviation."
    )
    time_shift: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Move samples by up to so many steps in time."
    )
    mixup: NonNegative = Field(
        default=0.0, description="Mix pairs of samples and their classes by shares from a Beta(mixup, mixup); 0: none."
    )


class NetworkConfig(Frozen):
    """The network: its layers in short form and the neurons that they all have."""

    architecture: str = "32C3-AP2-64C3-AP2-64"
    neuron: Literal["IF", "LIF", "CubaLIF"] = "LIF"
    decay: Fraction = 0.75
    syn_decay: Fraction = Field(default=0.5, description="What a CubaLIF's synaptic current keeps per step.")
    threshold: Positive = 1.0
    fire: Fire = Fire.AT_THRESHOLD
    reset: Reset = Reset.SUBTRACT
    readout: Readout = Readout.SPIKE_COUNT
    coding: Coding = Coding.DIRECT
    time_steps: Count | None = Field(
        default=None, description="8 if absent; for spikes and current, as many as the data has."
    )


class OptimisationConfig(Frozen):
    """How the weights are fitted."""

    epochs: Count = 40
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    weight_decay: NonNegative = 1e-3
    surrogate: Surrogate = Surrogate.SIGMOID
    slope: Positive = 5.0
    rate_penalty: NonNegative = 2.0
    rate_low: Fraction = 0.01
    rate_high: Fraction = 0.15
    clip_norm: Positive = 1.0
    patience: Count = 15


class TrainingConfig(Frozen):
    """A whole run. The seed fixes the weights' start, the order of the data and every random number on the way."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: str = "cpu"
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    network: NetworkConfig = NetworkConfig()
    optimisation: OptimisationConfig = OptimisationConfig()

    @classmethod
    def read(cls, path: Path | None, overrides: dict[str, dict[str, Any]]) -> Self:
        """Read a TOML file, or the defaults, and lay the flags that were given over it.

        `overrides` holds a dictionary for each section, "" for the top level; None means not given. Raises
        InvalidConfig for a file that is not there or not TOML, an unknown field, and a value out of range.
        """
        values = _read_toml(path) if path else {}
        for section, fields in overrides.items():
            given = {name: value for name, value in fields.items() if value is not None}
            target = values.setdefault(section, {}) if section else values
            if isinstance(target, dict):
                target.update(given)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidConfig(f"{path or 'configuration'}: {describe_first_error(error)}") from error

    def write(self, path: Path) -> None:
        """Write the configuration as TOML that `read` reads."""
        path.write_text(tomli_w.dumps(self.model_dump(mode="json", exclude_none=True)))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidConfig(f"config: '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"config: '{path}' is not TOML: {error}") from error
