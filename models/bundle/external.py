"""A bundle of an external ONNX model: a contract says what its input and output mean, and it is held to it.

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
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from models.bundle import Bundle, File, Header, header_of, read_files, read_manifest, write_files
from models.bundle.dry_run import random_inputs, verify
from models.coding import EncodedInputs
from models.engines.base import Runner
from models.engines.declared import EngineName, check
from models.errors import EngineUnavailable, InvalidBundle
from models.spec import Spec
from models.spec.onnx_contract import OnnxContract


class ExternalManifest(Header):
    """What bundle.json says of an external ONNX model."""

    contract: OnnxContract


@dataclass(frozen=True)
class ExternalBundle:
    """A bundle of an external ONNX model, as read."""

    manifest: ExternalManifest
    onnx_model: bytes
    card: str

    @classmethod
    def read(cls, folder: Path) -> ExternalBundle:
        """Read a bundle and check every hash; the graph itself is for its engine to check.

        Raises InvalidBundle with a sentence.
        """
        manifest, files = read_files(folder, ExternalManifest)
        if File.ONNX_MODEL not in files:
            raise InvalidBundle(f"{File.ONNX_MODEL}: not listed in bundle.json, and a bundle with a contract needs it")
        return cls(manifest, files[File.ONNX_MODEL], files.get(File.CARD, b"").decode(errors="replace"))

    @property
    def task(self) -> OnnxContract:
        """What it is asked and answers."""
        return self.manifest.contract

    @cached_property
    def sample(self) -> EncodedInputs:
        """One sample, encoded, such as a request might bring."""
        return random_inputs(self.task, self.task.time_steps)[:1]

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
        from models.engines.onnx.external import ContractEngine

        return ContractEngine(self.task, self.onnx_model)

    def verify(self, engine: Runner) -> None:
        """Try it on random samples; raises InvalidBundle where it does not keep its contract."""
        verify(self.task, engine)


AnyBundle: TypeAlias = Bundle | ExternalBundle
AnyTask: TypeAlias = Spec | OnnxContract


def read_any(folder: Path) -> AnyBundle:
    """Read a bundle of either kind, which its manifest tells; raises InvalidBundle."""
    try:
        said = json.loads(read_manifest(folder))
    except (ValueError, RecursionError):
        said = None  # which the bundle's own reading puts into words
    return ExternalBundle.read(folder) if isinstance(said, dict) and "contract" in said else Bundle.read(folder)


@dataclass(frozen=True)
class ExternalContents:
    """What goes into a bundle of an external ONNX model, but for its version."""

    name: str
    contract: OnnxContract
    onnx_model: bytes
    card: str
    metrics: Mapping[str, float]

    def write(self, folder: Path, version: int) -> None:
        """Write the files into `folder`, which is nobody's bundle until its caller renames it."""
        files = {File.ONNX_MODEL: self.onnx_model, File.CARD: self.card.encode()}
        header = header_of(self.name, version, self.metrics, files)
        write_files(folder, ExternalManifest(**header, contract=self.contract), files)
