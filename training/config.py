"""What a training run is asked to do: read from TOML, overridden by flags, written into the run's folder.

Some defaults suit images and others suit sequences. Both stand here, at their field: `for_data` returns a configuration
in which every field that was not given has the value that suits the data.

Each field is a key of the TOML file and, but for those OF_FILE, a flag of `fit`, which takes type, range, default and
description from here (training/commands/flags.py, which also says what stands in `json_schema_extra`).
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import tomli_w
from pydantic import AfterValidator, Field, model_validator

from spikeserve.models.door import of_kind
from spikeserve.models.spec import Coding, Readout, validated
from spikeserve.models.spec.nodes import ProgramBase, Spiking
from spikeserve.models.spec.parameters import Float32, Fraction, FrozenModel, Positive32, Size
from spikeserve.models.spec.rules import Fire, Reset
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.files import read_bytes

MAX_BYTES = 2**20  # of a file; one with every field has two thousand

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Share0 = Annotated[float, Field(ge=0.0, lt=1.0)]
NonNegative = Annotated[Float32, Field(ge=0.0)]
Whole = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy and scikit-learn take
MAX_ARCHITECTURE = 4096  # characters; int() reads no more than 4,300 digits


def _without_null(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("input should be a path without null characters")
    return path


NamedPath = Annotated[Path, AfterValidator(_without_null)]


class Surrogate(StrEnum):
    """The surrogates by name."""

    SIGMOID = "sigmoid"
    FAST_SIGMOID = "fast_sigmoid"
    ARCTAN = "arctan"
    TRIANGULAR = "triangular"
    SUPERSPIKE = "superspike"


class Normalise(StrEnum):
    """How raw values become currents."""

    NONE = "none"
    RANGE = "range"
    STANDARD = "standard"
    EACH = "each"


class DataConfig(FrozenModel):
    """Which data, and how it is split. The test split chooses nothing."""

    dataset: str = Field(
        default="digits",
        json_schema_extra={"chosen": "digits; where a file or folder is given, arrays"},
        description="digits, mnist, fashion-mnist, mnist-5000, spoken-digits, nmnist, dvs-gesture, shd or ssc; arrays "
        "(your own file, or folder) or events (your own folder).",
    )
    file: NamedPath | None = Field(
        default=None,
        description="arrays: an .npz with x and y, or x_train, y_train and so on; a .csv or .parquet; or a folder.",
        json_schema_extra={"chosen": "none", "first": True},
    )
    folder: NamedPath = Field(
        default=Path("data"),
        description="Where data sets of their own folder lie; or your pictures, a folder for each class.",
    )
    download: bool = Field(
        default=False,
        description="Download the data set where it is not there.",
        json_schema_extra={"chosen": "do not"},
    )
    test_share: Share = Field(default=0.2, description="The share of samples to test on, where the data has no split.")
    validation_share: Share0 = Field(
        default=0.1,
        description="The share of the others to validate on, likewise.",
        json_schema_extra={"chosen": "0.1; for random kernels 0"},
    )
    split_seed: Seed = Field(default=0, description="Which samples are held out.")
    low: float | None = Field(
        default=None, description="The least raw value.", json_schema_extra={"chosen": "the lowest in the data"}
    )
    high: float | None = Field(
        default=None, description="The greatest raw value.", json_schema_extra={"chosen": "the highest in the data"}
    )
    normalise: Normalise | None = Field(
        default=None,
        description=(
            "none; range, low to high become 0 to 1; standard, each feature has mean 0 and deviation 1; or each, so "
            "has each sample of a series, and a channel more says its amplitude"
        ),
        json_schema_extra={"chosen": "arrays: standard for current coding, none for spikes, else range"},
    )
    window: Size | None = Field(
        default=None,
        description="Events, audio: the microseconds of a time step; arrays of spikes: how many steps become one.",
        json_schema_extra={"chosen": "10000, or as usual for the data set; arrays: 1"},
    )
    max_steps: Size | None = Field(
        default=None,
        description="Events, audio: the most steps of a recording.",
        json_schema_extra={"chosen": "as the longest recording, or as usual for the data set"},
    )
    sensor: tuple[Size, ...] | None = Field(
        default=None,
        description="Events: channels, height and width; or units.",
        json_schema_extra={"chosen": "as far as events reach"},
    )
    downsample: Size = Field(
        default=1, description="Events: how many pixels of height and of width, or units, become one."
    )

    @model_validator(mode="before")
    @classmethod
    def _files_are_of_arrays(cls, values: Any) -> Any:
        """Take the data set `arrays` where a file or folder is given and no data set."""
        named = isinstance(values, Mapping) and (values.get("file") is not None or "folder" in values)
        if named and "dataset" not in values:
            return {**values, "dataset": "arrays"}
        return values


AUTO = "auto"
OF_FILE: Mapping[str, Any] = {"file": True}  # of a field without a flag
SEQUENCES = "sequences"
DROPPED, MOVED = 0.2, 8  # the share of spikes, and the steps, at most; series of values gained nothing by it
SHIFT, SHIFTED = 2, 16  # pixels that images are moved by at most, and the shortest side of such images


def _picture(shape: Sequence[int], side: int) -> bool:
    """Return whether samples are (channels, height, width), with at least `side` pixels a side."""
    return len(shape) == 3 and min(shape[1:]) >= side


class AugmentConfig(FrozenModel):
    """How training samples are varied at random; each epoch draws its own variations."""

    shift: Whole = Field(
        default=0,
        description="Images, event cameras: moved by up to this many pixels.",
        json_schema_extra={"chosen": "2 for images of at least 16×16, else 0"},
    )
    event_drop: Fraction = Field(
        default=0.0,
        description="Drop up to this share: a span of time, some channels, or events at random.",
        json_schema_extra={"chosen": f"{DROPPED} for convolutions over the time of spikes, else 0"},
    )
    time_jitter: NonNegative = Field(
        default=0.0,
        description="Spikes: moved by normally distributed steps of this deviation.",
        json_schema_extra={**OF_FILE},
    )
    time_shift: Whole = Field(
        default=0,
        description="Sequences: moved by up to this many steps.",
        json_schema_extra={"chosen": "8 for convolutions over the time of spikes, else 0"},
    )

    def for_shape(self, shape: Sequence[int], network: NetworkConfig) -> Self:
        """Return the settings with those that were not given as they suit samples of a shape, and the network.

        The shape is that of values, or of sequences (time_steps, *values).
        """
        fitting: dict[str, Any] = {}
        if network.coding is Coding.SPIKES and network.over_time:
            fitting = {"event_drop": DROPPED, "time_shift": min(MOVED, shape[0] // 8)}
        elif not network.coding.per_step and _picture(shape, SHIFTED):
            fitting = {"shift": SHIFT}
        return self.model_copy(update={name: fitting[name] for name in fitting.keys() - self.model_fields_set})


class Schedule(StrEnum):
    """How the learning rate changes over a run."""

    ONE_CYCLE = "one_cycle"
    COSINE = "cosine"
    CONSTANT = "constant"


START_DECAY = 0.75
Learnable = Literal[
    "decay", "syn_decay", "threshold", "gain", "drive", "adapt_decay", "adapt_gain", "adapt_coupling", "adapt_spike"
]  # fmt: skip


def suited(images: Any, sequences: Any, description: str, **extra: Any) -> Any:
    """Return a field whose default is `images`, or `sequences` for temporal data and recurrent layers."""
    return Field(default=images, description=description, json_schema_extra={SEQUENCES: sequences, **extra})


# The neurons' words in an architecture: those of the spec, and those of plugins.
NEURONS: Mapping[str, type[Spiking]] = {
    kind.__name__.lower(): kind for kind in get_args(Spiking) if not issubclass(kind, ProgramBase)
}
AUTHORS = of_kind("neuron", NEURONS)


class NetworkConfig(FrozenModel):
    """The network: its layers in short form and the neurons that they all have."""

    architecture: Annotated[str, Field(min_length=1, max_length=MAX_ARCHITECTURE)] = Field(
        default=AUTO,
        description="The layers in short form, such as 32C3-AP2-128R, or auto, by the samples' shape.",
        json_schema_extra={"first": True},
    )
    neuron: Literal["IF", "LIF", "CubaLIF", "ALIF", "CubaALIF", "AdLIF", *AUTHORS] = Field(  # type: ignore[valid-type]
        default="LIF", description="The neurons of every layer."
    )
    decay: Fraction | None = suited(
        START_DECAY,
        None,
        "What a membrane keeps per step; where learned, the start.",
        chosen=f"{START_DECAY}; for sequences one for each neuron, from 2 steps to a quarter of the sequence",
    )
    # What a layer may say in its short form, as in 64:lif(threshold=0.5).
    syn_decay: ClassVar[float] = 0.5  # what a CubaLIF's synaptic current keeps per step
    adapt_decay: ClassVar[float] = 0.97  # what an ALIF's adaptation keeps per step
    adapt_gain: ClassVar[float] = 0.1  # how far a spike raises an ALIF's threshold
    threshold: ClassVar[float] = 1.0
    fire: Fire = Field(default=Fire.AT_THRESHOLD, description="Fire at the threshold or only above it.")
    reset: Reset = Field(default=Reset.SUBTRACT, description="What a spike does to the membrane.")
    learn: tuple[Learnable, ...] = suited(
        (),
        ("decay", "syn_decay", "adapt_decay", "adapt_coupling", "adapt_spike"),
        "The neurons' parameters that are trained.",
        chosen="none; for sequences all decays, and an AdLIF's adaptation",
    )
    readout: Readout = suited(Readout.SPIKE_COUNT, Readout.MEAN_MEMBRANE, "What the class is read from.")
    coding: Coding = Field(
        default=Coding.DIRECT,
        description="How a sample becomes steps; spikes and current for sequences",
        json_schema_extra={"chosen": "direct; for arrays as suits them", "first": True},
    )
    time_steps: Size | None = Field(
        default=None, description="Steps per sample.", json_schema_extra={"chosen": "8, or as many as a sequence has"}
    )

    def for_shape(self, shape: Sequence[int], *, gradients: bool) -> Self:
        """Return the settings with an architecture: where it is `auto`, one that suits training samples of this shape.

        The shape is (n, *values), or (n, time_steps, *values) of sequences. `gradients`: some field was given that only
        training by gradients knows.
        """
        if self.architecture != AUTO:
            return self
        suited = suited_architecture(shape[1:], sequences=self.coding.per_step)
        series = self.coding is Coding.CURRENT and len(shape) == 3 and shape[1] >= KERNEL
        if series and shape[0] < FEW and not gradients and not self.model_fields_set & BY_GRADIENTS:
            suited = KERNELS
        return self.model_copy(update={"architecture": suited})

    @property
    def kernels(self) -> int:
        """The number of random kernels, where the network consists of them and a readout; else 0."""
        match = re.fullmatch(r"([1-9]\d*)K", self.architecture)
        return int(match[1]) if match else 0

    @property
    def memoryless(self) -> bool:
        """Whether all hidden layers are plain thresholds, with convolutions over time."""
        layers = [part for part in self.architecture.split("-") if part[:1].isdigit()]
        return self.over_time and all(layer.endswith("Th") for layer in layers)

    @property
    def over_time(self) -> bool:
        """Whether a layer takes what arrived at several steps."""
        return re.search(r"\d+T\d", self.architecture) is not None

    @property
    def temporal(self) -> bool:
        """Whether samples are sequences, or a layer is recurrent."""
        return self.coding.per_step or re.search(r"\d+R", self.architecture) is not None


KERNELS, KERNEL = "1000K", 9  # random kernels, and the taps of each
FEW = 1000  # samples, of which a readout of random kernels is solved; fits by gradients gain more from further ones
BY_GRADIENTS = {"neuron", "decay", "reset", "learn", "readout"}  # fields of the network
SHORT = 48  # steps, with which a recurrent layer is as good as convolutions over time and fires less
SMALLEST = 4  # pixels a side, which two pools halve twice


def suited_architecture(shape: Sequence[int], *, sequences: bool) -> str:
    """Return the architecture that suits samples of a shape: values, or of sequences (time_steps, *values).

    Sequences of vectors have three convolutions over time, whose taps lie so far apart that the last layer sees about
    half of a sequence, but no more than 169 steps: taps 5 and 25 steps apart were worse than 4 and 16. Short ones, and
    sequences of pictures, have a recurrent layer. Pictures, (channels, height, width), have two convolutions, and all
    else has a fully connected layer.
    """
    if sequences:
        if len(shape) != 2 or shape[0] < SHORT:
            return "128R"
        apart = max(2, min(round(math.sqrt(shape[0] / 16)), 4))
        return f"64T9-BN-64T9d{apart}-BN-64T9d{apart**2}-BN"
    if _picture(shape, SMALLEST):
        return "32C3-AP2-64C3-AP2-64"
    return "256"


SMALL = 256  # training samples, four batches of 64
UPDATES = 1000  # of the weights, at least, for a small set, and half as many for others, whose batches are larger
SMOOTHED = 0.1  # of 80 spoken digits, eight of a hundred more were right
LOWER_RATE = 5e-3  # with batches of 8 to 15; twice as much and half as much were worse


class OptimisationConfig(FrozenModel):
    """How the weights are fitted."""

    epochs: Size = Field(
        default=40,
        description="Epochs at most.",
        json_schema_extra={
            "chosen": "40, or as many as 500 updates take, or 1,000 where the training samples are fewer than 256",
            "resumable": True,
            "first": True,
        },
    )
    batch_size: Size = Field(
        default=64,
        description="Samples per batch.",
        json_schema_extra={"chosen": "64, or a quarter of the training samples where these are fewer than 256"},
    )
    learning_rate: Positive32 = suited(
        2e-3,
        2e-2,
        "The highest learning rate.",
        chosen="0.002; for sequences 0.02, or 0.005 for convolutions over time or fewer than 256 training samples",
    )
    schedule: Schedule = suited(Schedule.COSINE, Schedule.ONE_CYCLE, "How the learning rate changes over the run.")
    average: Share0 = suited(
        0.0,
        0.98,
        "What the average of the weights keeps at each step; it is what is validated and exported.",
        **OF_FILE,
    )
    weight_decay: ClassVar[float] = 1e-3  # AdamW's, for most networks
    surrogate: Surrogate = suited(Surrogate.SIGMOID, Surrogate.SUPERSPIKE, "The surrogate gradient.")
    slope: Positive32 = suited(5.0, 10.0, "The surrogate's slope.", **OF_FILE)
    rate_penalty: NonNegative = Field(
        default=2.0,
        description="The weight of the penalty for firing rates outside 1 to 15 %; of plain thresholds 1 to 6 %.",
        json_schema_extra={"chosen": "2; for plain thresholds over time 50", **OF_FILE},
    )
    label_smoothing: Share0 = Field(
        default=0.0,
        description="The share of the target that all classes have alike.",
        json_schema_extra={"chosen": f"{SMOOTHED} for convolutions over the time of spikes, else 0", **OF_FILE},
    )
    class_weights: Literal["equal", "balanced"] = Field(
        default="equal",
        description="How much a sample counts: equally, or so that classes do.",
        json_schema_extra={**OF_FILE},
    )
    patience: Size = suited(15, 60, "Epochs without improvement after which a run ends.", resumable=True)

    def updates(self, samples: int) -> int:
        """Return how often the weights are updated at most: once for each batch of each epoch."""
        return self.epochs * math.ceil(samples / self.batch_size)

    def for_samples(self, samples: int, network: NetworkConfig) -> Self:
        """Return the settings with those that were not given as they suit so many samples and the network.

        A small set has at least four batches in an epoch, and there are at least UPDATES of the weights. Small sets
        of sequences, and convolutions over time, need a lower learning rate.
        """
        fitting: dict[str, Any] = {}
        if network.kernels:  # nothing of it is used
            return self
        if samples < SMALL:
            fitting["batch_size"] = max(2, math.ceil(samples / 4))
        if network.over_time or (network.temporal and samples < SMALL):
            fitting["learning_rate"] = LOWER_RATE
        if network.over_time and network.coding is Coding.SPIKES:
            fitting["label_smoothing"] = SMOOTHED
        settings = self.model_copy(update={name: fitting[name] for name in fitting.keys() - self.model_fields_set})
        if "epochs" in self.model_fields_set:
            return settings
        updates = UPDATES if samples < SMALL else UPDATES // 2
        batches = math.ceil(samples / settings.batch_size)
        return settings.model_copy(update={"epochs": max(self.epochs, math.ceil(updates / batches))})


class Precision(StrEnum):
    """The type of a run's matrix products and convolutions."""

    FLOAT32 = "32-true"
    BFLOAT16 = "bf16-mixed"


class ParallelConfig(FrozenModel):
    """How a run is computed, on the devices of the processes that torchrun starts."""

    precision: Precision = Field(
        default=Precision.FLOAT32,
        description="32-true, or bf16-mixed for products in bfloat16, on CUDA.",
        json_schema_extra={"resumable": True},
    )


# Of plain thresholds: there is no membrane to read, and no gradient that many steps would multiply. Learned delays of
# synapses need the steeper surrogate.
MEMORYLESS: Mapping[str, Any] = {
    "readout": Readout.MEAN,
    "surrogate": Surrogate.ARCTAN,
    "slope": 2.0,
    "rate_penalty": 50.0,
}


class TrainingConfig(FrozenModel):
    """A whole run. The seed fixes the weights' start, the order of the data and every random number on the way."""

    seed: Seed = Field(default=0, description="Fixes everything that is random.")
    device: str = Field(default="cpu", description="cpu or cuda.", json_schema_extra={"resumable": True})
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    augment: AugmentConfig = AugmentConfig()
    parallel: ParallelConfig = ParallelConfig()

    @classmethod
    def read(cls, path: Path | None, overrides: Mapping[str, Any]) -> Self:
        """Read a TOML file, or the defaults, and lay the flags that were given over it.

        `overrides` has the form of the file, a dictionary for each section, with only what wins over it. Raises
        InvalidConfig for a file that is not there or not TOML, an unknown field, and a value out of range.
        """
        values = _read_toml(path) if path else {}
        _lay_over(values, overrides)
        return validated(InvalidConfig, path or "configuration", cls.model_validate, values)

    def for_data(self, shape: Sequence[int]) -> Self:
        """Return the configuration with each field set: those that were not given suit the data and the network.

        `shape` is that of the training samples, (n, *values), or (n, time_steps, *values) of sequences.
        """
        network = self.network.for_shape(
            shape, gradients=bool(self.optimisation.model_fields_set or self.augment.model_fields_set)
        )
        optimisation = self.optimisation.for_samples(shape[0], network)
        augment = self.augment.for_shape(shape[1:], network)
        sections: dict[str, FrozenModel] = {"network": network, "optimisation": optimisation, "augment": augment}
        for name, section in sections.items():
            values: dict[str, Any] = {}
            for field, info in type(section).model_fields.items():
                extra = info.json_schema_extra
                if network.temporal and isinstance(extra, dict) and SEQUENCES in extra:
                    values[field] = extra[SEQUENCES]
                if network.memoryless and field in MEMORYLESS:
                    values[field] = MEMORYLESS[field]
            if network.kernels and name == "network":
                values["readout"] = Readout.MEAN
            unsaid = values.keys() - section.model_fields_set
            sections[name] = section.model_copy(update={field: values[field] for field in unsaid})
        return self.model_copy(update=sections)

    @property
    def weight_decay(self) -> float:
        """What AdamW takes of a weight at each step, times the learning rate.

        It is ten times as much where all layers are plain thresholds, which by it get more Braille letters right.
        """
        return self.optimisation.weight_decay * (10 if self.network.memoryless else 1)

    @property
    def firing_rates(self) -> tuple[float, float]:
        """The lowest and the highest spikes per neuron and step without a penalty."""
        return 0.01, 0.06 if self.network.memoryless else 0.15

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
        return tomllib.loads(read_bytes(path, MAX_BYTES).decode())
    except OSError as error:
        raise InvalidConfig(f"config: '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"config: '{path}' is not TOML: {error}") from error
    except RecursionError as error:
        raise InvalidConfig(f"config: '{path}' is nested too deep, expected sections with fields") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidConfig(f"config: '{path}' holds a number out of range, expected fewer digits") from error
