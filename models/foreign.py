"""A bundle of somebody else's model.onnx: a contract says what its input and output mean, and it is held to it.

    bundle.json   the contract, name, version, created, producer, metrics, the sha256 of every other file
    model.onnx    the graph, with all its data
    card.md       optional

There are no golden samples, since there is no other engine to compare with. Instead two random samples are run at load,
together and each alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import StringConstraints, ValidationError, model_validator

from models import onnx_fields
from models.bundle import (
    READOUT_TOLERANCE,
    Bundle,
    File,
    Header,
    header_of,
    read_files,
    read_manifest,
    write_files,
)
from models.coding import EncodedInputs, encode
from models.engines.base import Runner, RunResult
from models.engines.choose import EngineName, check
from models.errors import EngineUnavailable, InvalidBundle, InvalidInput, InvalidSpec
from models.network import FloatArray
from models.parameters import Shape
from models.spec import Coding, Readout, Spec, Task, first_fault

ValueName = Annotated[str, StringConstraints(min_length=1, max_length=200)]

SEED = 0
DENSITY = 0.25  # of the spikes in a random raster
TRIED = 2  # samples


class Layout(StrEnum):
    """The axes of the model's input; those of one sample follow."""

    BATCH = "batch"
    TIME_BATCH = "time_batch"
    BATCH_TIME = "batch_time"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes, in order."""
        return _AXES[self]

    def axes(self, batch: int, time_steps: int, rest: Shape) -> Shape:
        """Return the shape of an array in this layout."""
        sizes = {"batch": batch, "time_steps": time_steps}
        return (*(sizes[name] for name in self.names), *rest)

    def shown(self, rest: Shape) -> str:
        """Write the shape with its axes' names, as `[batch, time_steps, 64]`."""
        return f"[{', '.join([*self.names, *map(str, rest)])}]"


_AXES = {
    Layout.BATCH: ("batch",),
    Layout.TIME_BATCH: ("time_steps", "batch"),
    Layout.BATCH_TIME: ("batch", "time_steps"),
}


class OutputKind(StrEnum):
    """What the model's output is."""

    SCORES = "scores"
    COUNTS = "counts"
    SPIKES_PER_STEP = "spikes_per_step"


class OnnxContract(Task):
    """What a model of others takes and gives, in words that can be checked."""

    input_name: ValueName
    input_layout: Layout = Layout.BATCH
    output_name: ValueName
    output_kind: OutputKind = OutputKind.SCORES
    any_time_steps: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Validate the fields of a contract; raises InvalidSpec with one sentence on the first fault."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidSpec(f"the contract is invalid: {first_fault(error)}") from error

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        self._check_coding()
        if self.input_layout is Layout.BATCH and self.coding is not Coding.DIRECT:
            raise InvalidSpec(
                f"coding '{self.coding}' gives other values at each step, which the layout 'batch' has no "
                "axis for; expected 'time_batch' or 'batch_time'"
            )
        if self.input_layout is Layout.BATCH and self.any_time_steps:
            raise InvalidSpec("any_time_steps needs an input with an axis for time, not the layout 'batch'")
        return self

    @property
    def readout(self) -> Readout | Literal[OutputKind.SCORES]:
        """What the class is read from."""
        return OutputKind.SCORES if self.output_kind is OutputKind.SCORES else Readout.SPIKE_COUNT

    @property
    def widest(self) -> int:
        """The values of one sample in the input or the output; what lies between is not known."""
        return max(prod(self.input.shape), self.classes)

    @property
    def recordable(self) -> int:
        """None: which of the graph's values are spikes is not known."""
        return 0

    def check_steps(self, time_steps: int) -> None:
        """Raise InvalidInput where the contract names another number of steps."""
        if not self.any_time_steps and time_steps != self.time_steps:
            raise InvalidInput(f"time_steps is {time_steps}, but this ONNX model runs for {self.time_steps}")

    def input_shape(self, batch: int, time_steps: int) -> Shape:
        """Return the shape of what the model takes."""
        return self.input_layout.axes(batch, time_steps, self.input.shape)

    @property
    def output_layout(self) -> Layout:
        """The axes of the output; spikes have their time where the input has it, and first if it has none."""
        if self.output_kind is not OutputKind.SPIKES_PER_STEP:
            return Layout.BATCH
        return Layout.TIME_BATCH if self.input_layout is Layout.BATCH else self.input_layout

    def output_shape(self, batch: int, time_steps: int) -> Shape:
        """Return the shape of what the model gives."""
        return self.output_layout.axes(batch, time_steps, (self.classes,))


class ForeignManifest(Header):
    """What bundle.json says of a model of others."""

    contract: OnnxContract


@dataclass(frozen=True)
class ForeignBundle:
    """A bundle of a model of others, as read."""

    manifest: ForeignManifest
    onnx_model: bytes
    card: str

    @classmethod
    def read(cls, folder: Path) -> ForeignBundle:
        """Read a bundle and check every hash, and that the graph asks for nothing but itself.

        Raises InvalidBundle with a sentence.
        """
        manifest, files = read_files(folder, ForeignManifest)
        if File.ONNX_MODEL not in files:
            raise InvalidBundle(f"{File.ONNX_MODEL}: not listed in bundle.json, and a bundle with a contract needs it")
        onnx_fields.check(files[File.ONNX_MODEL])
        return cls(manifest, files[File.ONNX_MODEL], files.get(File.CARD, b"").decode(errors="replace"))

    @property
    def task(self) -> OnnxContract:
        """What it is asked and answers."""
        return self.manifest.contract

    @cached_property
    def sample(self) -> EncodedInputs:
        """One sample, encoded, such as a request might bring."""
        return self._tried(self.task.time_steps)[:1]

    def preferred(self, _: str) -> tuple[EngineName, ...]:
        """Return the one engine that can serve it."""
        return (EngineName.ONNX,)

    def engine(self, name: EngineName, device: str = "cpu") -> Runner:
        """Return the engine that runs it; raises EngineUnavailable for any but `onnx` on the CPU, and InvalidBundle."""
        if name is not EngineName.ONNX or device != "cpu":
            raise EngineUnavailable(
                f"engine '{name}' on '{device}': the model is only an ONNX graph, which engine 'onnx' runs on 'cpu'"
            )
        check(name, device)
        from models.engines.contract import ContractEngine

        return ContractEngine(self.task, self.onnx_model)

    def verify(self, engine: Runner) -> None:
        """Run two random samples together, again, and each alone; raises InvalidBundle where an answer is another.

        Counts must be the same, and scores within a tolerance, as sums may run in another order for another batch.
        """
        try:
            self._try(engine)
        except InvalidInput as error:
            raise InvalidBundle(str(error)) from error

    def _try(self, engine: Runner) -> None:
        steps = self.task.time_steps
        inputs = self._tried(steps)
        together = engine.run(inputs)
        _same(together, engine.run(inputs), "twice in a row")
        for index in range(TRIED):
            each = slice(index, index + 1)
            alone = engine.run(inputs[each])
            part = RunResult(together.spike_counts[each], together.readout[each], None, {})
            _same(part, alone, "alone and beside another")
        if self.task.any_time_steps:
            engine.run(self._tried(steps + 1))

    def _tried(self, time_steps: int) -> EncodedInputs:
        """Return random samples from the declared range, encoded."""
        declared = self.task.input
        low, high = np.float32(declared.low), np.float32(declared.high)
        random = np.random.default_rng(SEED)
        if self.task.coding is Coding.SPIKES:
            quiet = np.float32(0.0) if low <= 0 <= high else low
            spikes = random.random((TRIED, time_steps, *declared.shape)) < DENSITY
            samples: FloatArray = np.where(spikes, high, quiet)
        else:
            drawn = random.random((TRIED, *declared.shape), np.float32)
            samples = np.clip(low + drawn * (high - low), low, high)
        return encode(samples.astype(np.float32), self.task, time_steps, SEED)


AnyBundle: TypeAlias = Bundle | ForeignBundle
AnyTask: TypeAlias = Spec | OnnxContract


def read_any(folder: Path) -> AnyBundle:
    """Read a bundle of either kind, which its manifest tells; raises InvalidBundle."""
    try:
        said = json.loads(read_manifest(folder))
    except (ValueError, RecursionError):
        said = None  # which the bundle's own reading puts into words
    return ForeignBundle.read(folder) if isinstance(said, dict) and "contract" in said else Bundle.read(folder)


@dataclass(frozen=True)
class ForeignContents:
    """What goes into a bundle of a model of others, but for its version."""

    name: str
    contract: OnnxContract
    onnx_model: bytes
    card: str
    metrics: Mapping[str, float]

    def write(self, folder: Path, version: int) -> None:
        """Write the files into `folder`, which is nobody's bundle until its caller renames it."""
        files = {File.ONNX_MODEL: self.onnx_model, File.CARD: self.card.encode()}
        header = header_of(self.name, version, self.metrics, files)
        write_files(folder, ForeignManifest(**header, contract=self.contract), files)


def _same(one: RunResult, other: RunResult, when: str) -> None:
    close = np.allclose(one.readout, other.readout, rtol=READOUT_TOLERANCE, atol=READOUT_TOLERANCE)
    if not close or not np.array_equal(one.spike_counts, other.spike_counts):
        raise InvalidBundle(
            f"model.onnx: gives {one.readout[0].tolist()} and {other.readout[0].tolist()} for the same sample {when}, "
            "expected the same answer"
        )
