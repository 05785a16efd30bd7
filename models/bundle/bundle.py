"""The bundle: one immutable version of one model, on disk.

    bundle.json           the spec, name, version, created, producer, training metrics, the sha256 of every other file
    weights.safetensors   float32, "<node>.<parameter>"; weights of few bits as `models.spec.narrow` says
    golden.safetensors    a few real encoded inputs with the reference engine's counts and readout
    model.onnx            optional
    card.md               the model card: purpose, data, accuracy, firing rates, synaptic operations, limits

Nothing is unpickled. Each file is read once, so that the bytes that are hashed are those that are parsed. A file larger
than any real one is not read: a sparse file of terabytes takes little disk but would fill the memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.anytime import Calibration
from spikeserve.models.engines.base import Counts, Engine
from spikeserve.models.engines.declared import create
from spikeserve.models.errors import EngineUnavailable, InvalidBundle, InvalidInput, InvalidSpec
from spikeserve.models.spec import Spec, validated
from spikeserve.models.spec.narrow import multiplied_out, stored
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.parameters import FrozenModel, Name
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.models.version import VERSION

MANIFEST = "bundle.json"
FIRING_RATE = "firing_rate."  # of the manifest's metrics: before the name of a layer


class File(StrEnum):
    """The files of a bundle except its manifest; no file of another name is opened."""

    WEIGHTS = "weights.safetensors"
    GOLDEN = "golden.safetensors"
    ONNX_MODEL = "model.onnx"
    CARD = "card.md"


# The most bytes of each file; 2 GiB is the limit of the ONNX format.
MAX_BYTES: Mapping[str, int] = {
    MANIFEST: 2**24,
    File.WEIGHTS: 2**31,
    File.GOLDEN: 2**31,
    File.ONNX_MODEL: 2**31,
    File.CARD: 2**20,
}

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

# The share of the largest value by which values may differ, since sums may run in another order; counts must be equal.
TOLERANCE = 1e-4

DEFAULT_LIMITS = LoadLimits()

# Of the signals of the golden samples that are replayed at once, as priced.
REPLAYED_BYTES = 2**26


class Manifest(FrozenModel):
    """The bundle.json; `anytime` is there where the network was calibrated for `confident`."""

    schema_version: Literal[1] = 1
    name: Name
    version: Annotated[int, Field(ge=1)]
    created: datetime
    producer: str
    metrics: dict[str, float] = Field(default_factory=dict)
    files: dict[File, Sha256]
    spec: Spec
    anytime: Calibration | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_network(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "contract" in fields:
            raise ValueError(
                "has a contract, expected a spec: an ONNX graph that is no spiking network is not served since 0.5.0; "
                "spikeserve convert makes such a network spike"
            )
        return fields

    @model_validator(mode="after")
    def _is_calibrated_for_its_steps(self) -> Self:
        if self.anytime is not None and self.anytime.time_steps != self.spec.time_steps:
            raise ValueError(
                f"anytime: time_steps is {self.anytime.time_steps}, but the spec has {self.spec.time_steps}"
            )
        return self

    @property
    def firing_rates(self) -> dict[str, float]:
        """The firing rates that training measured on the test split, by the name of the layer."""
        measured = self.metrics.items()
        return {name.removeprefix(FIRING_RATE): rate for name, rate in measured if name.startswith(FIRING_RATE)}


@dataclass(frozen=True)
class GoldenSamples:
    """Golden samples: real encoded inputs and the reference engine's counts and readout, both (batch, classes)."""

    inputs: DenseInputs
    spike_counts: Counts
    readout: FloatArray


def close(values: FloatArray, expected: FloatArray, tolerance: float = TOLERANCE) -> NDArray[np.bool_]:
    """Return the places at which two arrays of one shape are equal but for the order of their sums.

    They may differ by `tolerance` times the largest expected magnitude: in any unit the verdict is the same.
    """
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return np.isclose(values, expected, rtol=0.0, atol=tolerance * float(largest), equal_nan=True)


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: its manifest, its network and its other files.

    `digest` is the sha256 of bundle.json, which holds those of all other files: two bundles that share it are the same.
    """

    manifest: Manifest
    network: Network
    golden: GoldenSamples
    card: str
    digest: str
    limits: LoadLimits = DEFAULT_LIMITS

    @classmethod
    def read(cls, folder: Path, limits: LoadLimits = DEFAULT_LIMITS) -> Bundle:
        """Read a bundle and check every hash, name, shape and value, and before that what it takes to be loaded.

        Raises InvalidBundle with a sentence that names the file, however the folder is damaged, also if it is over the
        `limits`.
        """
        manifest, files, digest = _read_files(folder, limits)
        spec, tensors = manifest.spec, _tensors(files, File.WEIGHTS)
        golden = _golden(_tensors(files, File.GOLDEN), spec)
        try:
            Price.of(spec, _longest_delays(tensors)).check(limits, golden.inputs.batch)
            network = Network(spec, multiplied_out(spec, tensors))
        except InvalidSpec as error:
            raise InvalidBundle(f"{File.WEIGHTS}: {error}") from error
        card = files.get(File.CARD, b"").decode(errors="replace")
        return cls(manifest, network, golden, card, digest, limits)

    @property
    def task(self) -> Spec:
        """The task of the model, which is the network's spec."""
        return self.network.spec

    @property
    def calibration(self) -> Calibration | None:
        """What `confident` does, if the network was calibrated for it."""
        return self.manifest.anytime

    @property
    def sample(self) -> DenseInputs:
        """One realistic encoded sample, to warm an engine up with."""
        return self.golden.inputs[:1]

    def engine(self, name: str, device: str = "cpu", threads: int = 1) -> Engine:
        """Return an engine that runs it, each call on so many threads at most.

        Raises EngineUnavailable, also for an engine that needs sparse weights dense, where these are over the limits it
        was read by.
        """
        if self.task.nonzero and name != "event":
            try:
                Price.of(self.task, dense=True).check(self.limits)
            except InvalidSpec as error:
                raise EngineUnavailable(f"{MANIFEST}: on engine '{name}', {error}") from error
        return create(name, self.network, device=device, threads=threads)

    def verify(self, engine: Engine) -> None:
        """Replay the golden samples through `engine`; raises InvalidBundle that names the first sample that differs.

        As many run at once as fit into REPLAYED_BYTES by the bundle's price, so that no number of samples takes more
        memory than a few do.
        """
        golden, at_once = self.golden, Price.of(self.task).at_once(REPLAYED_BYTES)
        for start in range(0, golden.inputs.batch, at_once):
            part = slice(start, start + at_once)
            self._verify(engine, start, golden.inputs[part], golden.spike_counts[part], golden.readout[part])

    def _verify(
        self, engine: Engine, first: int, inputs: DenseInputs, spike_counts: Counts, readout: FloatArray
    ) -> None:
        """Replay some of the golden samples, from the `first` on."""
        try:
            result, _ = engine.run(inputs)
        except InvalidInput as error:
            raise InvalidBundle(f"{File.GOLDEN}: cannot be run on engine '{engine.name}': {error}") from error
        for index in np.flatnonzero((result.spike_counts != spike_counts).any(axis=1)):
            raise InvalidBundle(
                f"{File.GOLDEN}: sample {first + index} gives spike counts {result.spike_counts[index].tolist()} on "
                f"engine '{engine.name}', but the bundle was exported with {spike_counts[index].tolist()}"
            )
        differs = ~close(result.readout, readout)
        for index in np.flatnonzero(differs.any(axis=1)):
            raise InvalidBundle(
                f"{File.GOLDEN}: sample {first + index} reads out {result.readout[index].tolist()} on engine "
                f"'{engine.name}', but the bundle was exported with {readout[index].tolist()}"
            )


@dataclass(frozen=True)
class Contents:
    """The contents of a new bundle, except its version; weights that are mostly 0 become sparse ones."""

    name: str
    network: Network
    golden: GoldenSamples
    metrics: Mapping[str, float]
    card: str
    calibration: Calibration | None = None
    onnx_model: Callable[[int, Path], object] | None = None  # writes the model.onnx of a version to a path

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", self.network.compact())

    def write(self, folder: Path, version: int) -> None:
        """Write the files into `folder`, a temporary one that the caller then renames."""
        golden = self.golden
        samples = {"inputs": golden.inputs.steps, "spike_counts": golden.spike_counts, "readout": golden.readout}
        files = {
            File.WEIGHTS: safetensors.save(stored(self.network)),
            File.GOLDEN: safetensors.save(samples),
            File.CARD: self.card.encode(),
        }
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        if self.onnx_model is not None:
            self.onnx_model(version, folder / File.ONNX_MODEL)
            hashes[File.ONNX_MODEL] = hashlib.sha256((folder / File.ONNX_MODEL).read_bytes()).hexdigest()
        manifest = Manifest(
            name=self.name,
            version=version,
            created=datetime.now(UTC).replace(microsecond=0),
            producer=f"spikeserve {VERSION}",
            metrics=dict(self.metrics),
            files=hashes,
            spec=self.network.spec,
            anytime=self.calibration,
        )
        for name, content in files.items():
            (folder / name).write_bytes(content)
        fields = manifest.model_dump(mode="json")
        if self.calibration is None:
            del fields["anytime"]  # so that older versions of this project read the bundle
        text = json.dumps(fields, indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(text + "\n")


def _read_files(folder: Path, limits: LoadLimits) -> tuple[Manifest, dict[File, bytes], str]:
    """Return a bundle's manifest, the files that it lists, and the manifest's sha256; raises InvalidBundle.

    The spec is priced before the other files are read. The hash of each file that is listed is checked.
    """
    content = read_file(folder / MANIFEST)
    manifest = validated(InvalidBundle, MANIFEST, Manifest.model_validate_json, content)
    _check_unique_names(MANIFEST, content)
    try:
        Price.of(manifest.spec).check(limits)
    except InvalidSpec as error:
        raise InvalidBundle(f"{MANIFEST}: {error}") from error
    files = {name: read_checked(folder / name, expected) for name, expected in manifest.files.items()}
    return manifest, files, hashlib.sha256(content).hexdigest()


def _check_unique_names(file: str, content: bytes) -> None:
    """Raise InvalidBundle if valid JSON has a name twice in one object, since parsers differ in which one they use."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidBundle(f"{file}: says '{name[:64]}' twice in one object, expected each name once")
            seen.add(name)

    json.loads(content, object_pairs_hook=check, parse_int=str)  # as text, since Python refuses very long integers


def read_file(path: Path) -> bytes:
    """Read a file of a bundle, which is a real one and no longer than MAX_BYTES says; raises InvalidBundle."""
    linked = f"{path.name}: is a symbolic link, expected a file of the bundle's own"
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise InvalidBundle(linked)
    try:
        # Do not follow a symbolic link, do not wait for a writer if it is a pipe, and read bytes, also on Windows.
        flags = sum(getattr(os, flag, 0) for flag in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        raise InvalidBundle(f"{path.name}: missing from the bundle") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidBundle(linked) from error
        raise InvalidBundle(f"{path.name}: cannot be read: {error.strerror}") from error
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        status, limit = os.fstat(descriptor), MAX_BYTES[path.name]
        if not stat.S_ISREG(status.st_mode):
            raise InvalidBundle(f"{path.name}: is not a file")
        if status.st_size > limit:
            raise InvalidBundle(f"{path.name}: has {status.st_size} bytes, expected at most {limit}")
        try:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(status.st_size)  # no more than was checked, even if the file grows
        except OSError as error:
            raise InvalidBundle(f"{path.name}: cannot be read: {error.strerror}") from error


def read_checked(path: Path, expected: str) -> bytes:
    """Read a file as `read_file` does; raises InvalidBundle too where its sha256 is another one."""
    content = read_file(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise InvalidBundle(f"{path.name}: its sha256 is {digest[:12]}…, but {MANIFEST} says {expected[:12]}…")
    return content


def _tensors(files: Mapping[File, bytes], name: File) -> dict[str, Any]:
    if name not in files:
        raise InvalidBundle(f"{name}: not listed in {MANIFEST}, and a bundle needs it")
    content = files[name]
    try:
        tensors = safetensors.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InvalidBundle(f"{name}: not a safetensors file: {error}") from error
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]  # safetensors: a length, then JSON, then the values
    _check_unique_names(name, header)
    return tensors


def _longest_delays(tensors: Mapping[str, Any]) -> dict[str, int]:
    """Return the longest delay of each Delay that has a tensor of them; what is no delay is refused later."""
    delays = {name.removesuffix(".delay"): values for name, values in tensors.items() if name.endswith(".delay")}
    return {
        name: int(values.max())
        for name, values in delays.items()
        if values.dtype == np.float32 and values.size and np.isfinite(values).all()
    }


def _golden(tensors: Mapping[str, Any], spec: Spec) -> GoldenSamples:
    dtypes = {"inputs": np.float32, "spike_counts": np.int64, "readout": np.float32}
    for name, dtype in dtypes.items():
        if name not in tensors or tensors[name].dtype != dtype:
            raise InvalidBundle(f"{File.GOLDEN}: lacks '{name}' of type {np.dtype(dtype)}")
    try:
        inputs = DenseInputs(tensors["inputs"], spec.time_steps)
    except InvalidInput as error:
        raise InvalidBundle(f"{File.GOLDEN}: {error}") from error
    for name, shape in (
        ("inputs", (len(inputs.steps), inputs.batch, *spec.input.arriving)),
        ("spike_counts", (inputs.batch, spec.classes)),
        ("readout", (inputs.batch, spec.classes)),
    ):
        if tensors[name].shape != shape:
            raise InvalidBundle(f"{File.GOLDEN}: '{name}' has shape {tensors[name].shape}, but the spec needs {shape}")
    for name in ("inputs", "readout"):
        if not np.isfinite(tensors[name]).all():
            raise InvalidBundle(f"{File.GOLDEN}: '{name}' holds NaN or infinite values, expected finite ones")
    if (tensors["spike_counts"] < 0).any():
        raise InvalidBundle(f"{File.GOLDEN}: 'spike_counts' holds {tensors['spike_counts'].min()}, expected at least 0")
    if inputs.batch == 0:
        raise InvalidBundle(f"{File.GOLDEN}: holds no sample, expected at least one")
    return GoldenSamples(inputs, tensors["spike_counts"], tensors["readout"])
