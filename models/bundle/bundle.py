"""The bundle: one immutable version of one model, on disk.

    bundle.json           the spec, name, version, created, producer, training metrics, the sha256 of every other file
    weights.safetensors   float32, "<node>.<parameter>"
    golden.safetensors    a few real encoded inputs with the reference engine's counts and readout
    model.onnx            optional
    card.md               what it is, data, accuracy, firing rates, synaptic operations, limits

Nothing is read by unpickling. A file is read once, and what was hashed is what is parsed. A file larger than any real
one is not read at all: a disk holds a file of terabytes that is nothing but holes, and no memory would.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, StringConstraints, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from models.coding import EncodedInputs
from models.engines.base import Counts, Runner
from models.engines.declared import EngineName, create, preferred
from models.errors import InvalidBundle, InvalidInput, InvalidSpec
from models.spec import Spec, first_fault
from models.spec.network import FloatArray, Network
from models.spec.parameters import Frozen, Name
from models.version import VERSION

MANIFEST = "bundle.json"


class File(StrEnum):
    """The files that a bundle may hold beside its manifest; no other name is ever opened."""

    WEIGHTS = "weights.safetensors"
    GOLDEN = "golden.safetensors"
    ONNX_MODEL = "model.onnx"
    CARD = "card.md"


# The most bytes of each file; two GiB is what ONNX's own format can hold.
MOST_BYTES: Mapping[str, int] = {
    MANIFEST: 2**24,
    File.WEIGHTS: 2**31,
    File.GOLDEN: 2**31,
    File.ONNX_MODEL: 2**31,
    File.CARD: 2**20,
}

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

# How far a membrane readout may stray when sums run in another order than the reference's; counts may not stray at all.
READOUT_TOLERANCE = 1e-4


class Header(Frozen):
    """What bundle.json says of any bundle."""

    schema_version: Literal[1] = 1
    name: Name
    version: Annotated[int, Field(ge=1)]
    created: datetime
    producer: str
    metrics: dict[str, float] = Field(default_factory=dict)
    files: dict[File, Sha256]


class Manifest(Header):
    """What bundle.json says of a network of nodes."""

    spec: Spec

    @model_validator(mode="before")
    @classmethod
    def _is_a_network(cls, said: Any) -> Any:
        if isinstance(said, dict) and "contract" in said:
            raise ValueError("holds a contract, not a spec: the model is only an ONNX graph, which can be served alone")
        return said


AnyManifest = TypeVar("AnyManifest", bound=Header)


@dataclass(frozen=True)
class Golden:
    """Real encoded inputs and what the reference engine made of them: counts and readout, both (batch, classes)."""

    inputs: EncodedInputs
    spike_counts: Counts
    readout: FloatArray


@dataclass(frozen=True)
class Bundle:
    """A bundle as read: its manifest, its network and its other files."""

    manifest: Manifest
    network: Network
    golden: Golden
    onnx_model: bytes | None
    card: str

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read a bundle and check every hash, name, shape and value.

        Raises InvalidBundle with a sentence that names the file, however the folder is damaged.
        """
        manifest, files = read_files(folder, Manifest)
        try:
            network = Network(manifest.spec, _tensors(files, File.WEIGHTS))
        except InvalidSpec as error:
            raise InvalidBundle(f"{File.WEIGHTS}: {error}") from error
        return cls(
            manifest=manifest,
            network=network,
            golden=_golden(_tensors(files, File.GOLDEN), manifest.spec),
            onnx_model=files.get(File.ONNX_MODEL),
            card=files.get(File.CARD, b"").decode(errors="replace"),
        )

    @property
    def task(self) -> Spec:
        """What it is asked and answers."""
        return self.network.spec

    @property
    def sample(self) -> EncodedInputs:
        """One sample, encoded, such as a request might bring."""
        return self.golden.inputs[:1]

    def preferred(self, device: str) -> tuple[EngineName, ...]:
        """Return the engines that may serve it on `device`, the best first."""
        return preferred(device)

    def engine(self, name: EngineName, device: str = "cpu") -> Runner:
        """Return an engine that runs it; raises EngineUnavailable."""
        return create(name, self.network, onnx_model=self.onnx_model, device=device)

    def verify(self, engine: Runner) -> None:
        """Replay the golden samples through `engine`; raises InvalidBundle that names the first sample that differs."""
        try:
            result, _ = engine.run(self.golden.inputs)
        except InvalidInput as error:
            raise InvalidBundle(f"{File.GOLDEN}: cannot be run on engine '{engine.name}': {error}") from error
        for index, (found, expected) in enumerate(zip(result.spike_counts, self.golden.spike_counts, strict=True)):
            if not np.array_equal(found, expected):
                raise InvalidBundle(
                    f"{File.GOLDEN}: sample {index} gives spike counts {found.tolist()} on engine '{engine.name}', "
                    f"but the bundle was exported with {expected.tolist()}"
                )
        strayed = ~np.isclose(result.readout, self.golden.readout, rtol=READOUT_TOLERANCE, atol=READOUT_TOLERANCE)
        if strayed.any():
            index = int(np.argwhere(strayed)[0][0])
            raise InvalidBundle(
                f"{File.GOLDEN}: sample {index} reads out {result.readout[index].tolist()} on engine '{engine.name}', "
                f"but the bundle was exported with {self.golden.readout[index].tolist()}"
            )


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle, but for its version."""

    name: str
    network: Network
    golden: Golden
    metrics: Mapping[str, float]
    card: str

    def write(self, folder: Path, version: int, onnx_model: bytes | None) -> None:
        """Write the files into `folder`, which is nobody's bundle until its caller renames it."""
        files = {
            File.WEIGHTS: safetensors.save(dict(self.network.tensors)),
            File.GOLDEN: safetensors.save(
                {
                    "inputs": self.golden.inputs.steps,
                    "spike_counts": self.golden.spike_counts,
                    "readout": self.golden.readout,
                }
            ),
            File.CARD: self.card.encode(),
        }
        if onnx_model is not None:
            files[File.ONNX_MODEL] = onnx_model
        header = header_of(self.name, version, self.metrics, files)
        write_files(folder, Manifest(**header, spec=self.network.spec), files)


def header_of(name: str, version: int, metrics: Mapping[str, float], files: Mapping[File, bytes]) -> dict[str, Any]:
    """Return the fields of a Header for a bundle that is made now."""
    return {
        "name": name,
        "version": version,
        "created": datetime.now(UTC).replace(microsecond=0),
        "producer": f"spikeserve {VERSION}",
        "metrics": dict(metrics),
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    }


def write_files(folder: Path, manifest: Header, files: Mapping[File, bytes]) -> None:
    """Write a bundle's files and then its manifest."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n")


def read_files(folder: Path, kind: type[AnyManifest]) -> tuple[AnyManifest, dict[File, bytes]]:
    """Return a bundle's manifest and the files that it lists, each with the hash that it says; raises InvalidBundle."""
    content = _read(folder / MANIFEST)
    try:
        manifest = kind.model_validate_json(content)
    except ValidationError as error:
        raise InvalidBundle(f"{MANIFEST}: {first_fault(error)}") from error
    _check_names_are_said_once(MANIFEST, content)
    return manifest, {name: _read_checked(folder / name, expected) for name, expected in manifest.files.items()}


def read_manifest(folder: Path) -> bytes:
    """Return bundle.json as it lies there; raises InvalidBundle."""
    return _read(folder / MANIFEST)


def _check_names_are_said_once(file: str, content: bytes) -> None:
    """Raise InvalidBundle where valid JSON says a name twice in one object; readers differ in which of them counts."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        said: set[str] = set()
        for name, _ in pairs:
            if name in said:
                raise InvalidBundle(f"{file}: says '{name[:64]}' twice in one object, expected each name once")
            said.add(name)

    json.loads(content, object_pairs_hook=once, parse_int=str)  # text, since Python refuses to read a long integer


def _read(path: Path) -> bytes:
    try:
        # Neither through a link nor, as a pipe would have it, waiting for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise InvalidBundle(f"{path.name}: missing from the bundle") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidBundle(f"{path.name}: is a symbolic link, expected a file of the bundle's own") from error
        raise InvalidBundle(f"{path.name}: cannot be read: {error.strerror}") from error
    status, most = os.fstat(descriptor), MOST_BYTES[path.name]
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InvalidBundle(f"{path.name}: is not a file")
    if status.st_size > most:
        os.close(descriptor)
        raise InvalidBundle(f"{path.name}: has {status.st_size} bytes, expected at most {most}")
    try:
        with os.fdopen(descriptor, "rb") as file:
            return file.read(status.st_size)  # and no more, should it grow meanwhile
    except OSError as error:
        raise InvalidBundle(f"{path.name}: cannot be read: {error.strerror}") from error


def _read_checked(path: Path, expected: str) -> bytes:
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InvalidBundle(f"{path.name}: its sha256 is {found[:12]}…, but {MANIFEST} says {expected[:12]}…")
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
    _check_names_are_said_once(name, header)
    return tensors


def _golden(tensors: Mapping[str, Any], spec: Spec) -> Golden:
    wanted = {"inputs": np.float32, "spike_counts": np.int64, "readout": np.float32}
    for name, dtype in wanted.items():
        if name not in tensors or tensors[name].dtype != dtype:
            raise InvalidBundle(f"{File.GOLDEN}: lacks '{name}' of type {np.dtype(dtype)}")
    try:
        inputs = EncodedInputs(tensors["inputs"], spec.time_steps)
    except InvalidInput as error:
        raise InvalidBundle(f"{File.GOLDEN}: {error}") from error
    for name, shape in (
        ("inputs", (len(inputs.steps), inputs.batch, *spec.input.shape)),
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
    return Golden(inputs, tensors["spike_counts"], tensors["readout"])
