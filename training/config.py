"""What a training run is asked to do: read from TOML, overridden by flags, written into the run's folder.

Some defaults suit images and others suit sequences. Both stand here, at their field: `for_data` returns a configuration
in which every field that was not given has the value that suits the data.
"""

from __future__ import annotations

import re
import tomllib
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
    SUPERSPIKE = "superspike"
    SOFT = "soft"


class DataConfig(Frozen):
    """Which data, and how it is split. The test split chooses nothing."""

    dataset: str = "digits"
    file: Path | None = None
    folder: Path = Path("data")
    download: bool = False
    test_share: Share = 0.2
    validation_share: Share = 0.1
    split_seed: Annotated[int, Field(ge=0)] = 0
    low: float | None = None
    high: float | None = None


class Schedule(StrEnum):
    """How the learning rate changes over a run."""

    ONE_CYCLE = "one_cycle"
    COSINE = "cosine"
    CONSTANT = "constant"


TEMPORAL = "temporal"
Learnable = Literal["decay", "syn_decay", "threshold", "gain", "drive"]


def chosen(images: Any, sequences: Any, description: str) -> Any:
    """Return a field whose default is `images`, and `sequences` for temporal data or recurrent layers."""
    return Field(default=images, description=description, json_schema_extra={TEMPORAL: sequences})


class NetworkConfig(Frozen):
    """The network: its layers in short form and the neurons that they all have."""

    architecture: str = chosen("32C3-AP2-64C3-AP2-64", "128R", "The layers in short form, such as 32C3-AP2-128R.")
    neuron: Literal["IF", "LIF", "CubaLIF"] = Field(default="LIF", description="The neurons of every layer.")
    decay: Fraction = Field(default=0.75, description="What a membrane keeps per step; where learned, the start.")
    syn_decay: Fraction = Field(default=0.5, description="What a CubaLIF's synaptic current keeps per step.")
    readout_decay: Fraction | None = Field(default=None, description="What a membrane readout keeps; decay if absent.")
    threshold: Positive = Field(default=1.0, description="Where a neuron fires.")
    fire: Fire = Field(default=Fire.AT_THRESHOLD, description="Fire at the threshold or only above it.")
    reset: Reset = Field(default=Reset.SUBTRACT, description="What a spike does to the membrane.")
    learn: tuple[Learnable, ...] = chosen((), ("decay", "syn_decay"), "The neurons' parameters that are trained.")
    readout: Readout = chosen(Readout.SPIKE_COUNT, Readout.MEAN_MEMBRANE, "What the class is read from.")
    coding: Coding = Field(default=Coding.DIRECT, description="How a sample becomes steps.")
    time_steps: Count | None = Field(default=None, description="Steps per sample; 8, or as many as a sequence has.")

    @property
    def temporal(self) -> bool:
        """Whether samples are sequences, or a layer is recurrent."""
        return self.coding is Coding.SPIKES or re.search(r"\d+R", self.architecture) is not None


class OptimisationConfig(Frozen):
    """How the weights are fitted."""

    epochs: Count = chosen(40, 60, "Epochs at most.")
    batch_size: Count = chosen(64, 32, "Samples per batch.")
    learning_rate: Positive = chosen(2e-3, 5e-3, "The highest learning rate.")
    schedule: Schedule = chosen(Schedule.COSINE, Schedule.ONE_CYCLE, "How the learning rate changes over the run.")
    weight_decay: NonNegative = Field(default=1e-3, description="AdamW's weight decay.")
    surrogate: Surrogate = chosen(Surrogate.SIGMOID, Surrogate.SUPERSPIKE, "The surrogate gradient.")
    slope: Positive = chosen(5.0, 5.0, "The surrogate's slope.")
    detach_reset: bool = Field(default=True, description="Pass no gradient through the reset.")
    rate_penalty: NonNegative = chosen(2.0, 0.0, "The weight of the firing-rate penalty.")
    rate_low: Fraction = Field(default=0.01, description="The lowest firing rate without a penalty.")
    rate_high: Fraction = Field(default=0.15, description="The highest firing rate without a penalty.")
    clip_norm: Positive = Field(default=1.0, description="Gradients longer than this are cut to it.")
    patience: Count = chosen(15, 60, "Epochs without improvement after which a run ends.")


class AugmentConfig(Frozen):
    """How training samples are changed at random."""

    shift: Annotated[int, Field(ge=0)] = Field(default=0, description="Images: moved by up to this many pixels.")


class TrainingConfig(Frozen):
    """A whole run. The seed fixes the weights' start, the order of the data and every random number on the way."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: str = "cpu"
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    augment: AugmentConfig = AugmentConfig()

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

    def for_data(self) -> Self:
        """Return the configuration with each field set: those that were not given suit the data and the network."""
        sections = {}
        for name in ("network", "optimisation"):
            section: Frozen = getattr(self, name)
            suited = {}
            for field, info in type(section).model_fields.items():
                extra = info.json_schema_extra
                if self.network.temporal and isinstance(extra, dict) and field not in section.model_fields_set:
                    suited[field] = extra[TEMPORAL]
            sections[name] = section.model_copy(update=suited)
        return self.model_copy(update=sections)

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
