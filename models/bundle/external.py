"""A bundle of an external ONNX model, with a contract that says what its input and output mean.

    bundle.json   the contract, name, version, created, producer, metrics, the sha256 of every other file
    model.onnx    the graph, with all its data
    card.md       optional

There are no golden samples, since no other engine can run the graph. Instead, when the bundle is loaded, a dry run
checks the contract with samples of the declared range (`models.bundle.dry_run`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from spikeserve.models.bundle import (
    DEFAULT_LIMITS,
    Bundle,
    File,
    Header,
    header_of,
    read_files,
    read_manifest,
    write_files,
)
from spikeserve.models.bundle.dry_run import SAMPLES, random_inputs, verify
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Runner
from spikeserve.models.engines.declared import EngineName, check
from spikeserve.models.errors import EngineUnavailable, InvalidBundle
from spikeserve.models.spec import Spec
from spikeserve.models.spec.onnx_contract import OnnxContract
from spikeserve.models.spec.price import LoadLimits, Price


class ExternalManifest(Header):
    """The bundle.json of an external ONNX model."""

    contract: OnnxContract


@dataclass(frozen=True)
class ExternalBundle:
    """A bundle of an external ONNX model, in memory; `digest` is the sha256 of bundle.json."""

    manifest: ExternalManifest
    onnx_model: bytes
    card: str
    digest: str

    @classmethod
    def read(cls, folder: Path, limits: LoadLimits = DEFAULT_LIMITS) -> ExternalBundle:
        """Read a bundle and check every hash; its engine checks the graph itself.

        Raises InvalidBundle with a sentence, also if two samples of its input are over the `limits`.
        """
        manifest, files, digest = read_files(
            folder, ExternalManifest, lambda manifest: Price.of(manifest.contract).check(limits, SAMPLES)
        )
        if File.ONNX_MODEL not in files:
            raise InvalidBundle(f"{File.ONNX_MODEL}: not listed in bundle.json, and a bundle with a contract needs it")
        return cls(manifest, files[File.ONNX_MODEL], files.get(File.CARD, b"").decode(errors="replace"), digest)

    @property
    def task(self) -> OnnxContract:
        """The task of the model, which is its contract."""
        return self.manifest.contract

    @property
    def calibration(self) -> None:
        """None: a graph runs all its steps at once."""
        return None

    @cached_property
    def sample(self) -> DenseInputs:
        """One random encoded sample, to warm the engine up with."""
        return random_inputs(self.task, self.task.time_steps)[:1]

    def preferred(self, _: str) -> tuple[EngineName, ...]:
        """Return the one engine that can run it."""
        return (EngineName.ONNX,)

    def engine(self, name: EngineName, device: str = "cpu") -> Runner:
        """Return the engine that runs it; raises EngineUnavailable for any but `onnx` on the CPU, and InvalidBundle."""
        if name is not EngineName.ONNX or device != "cpu":
            raise EngineUnavailable(
                f"engine '{name}' on '{device}': the model is only an ONNX graph, which engine 'onnx' runs on 'cpu'"
            )
        check(name, device)
        from spikeserve.models.engines.onnx.external import ContractEngine

        return ContractEngine(self.task, self.onnx_model)

    def verify(self, engine: Runner) -> None:
        """Run it on random samples; raises InvalidBundle if it breaks its contract.

        Only after this does an engine run several samples at once, where the contract promises independent rows.
        """
        from spikeserve.models.engines.onnx.external import ContractEngine

        if not isinstance(engine, ContractEngine):
            raise TypeError(f"engine '{engine.name}' does not run an external ONNX model")
        verify(self.task, engine)


AnyBundle: TypeAlias = Bundle | ExternalBundle
AnyTask: TypeAlias = Spec | OnnxContract


def read_any(folder: Path, limits: LoadLimits = DEFAULT_LIMITS) -> AnyBundle:
    """Read a bundle of either kind; the manifest of an external one has a contract. Raises InvalidBundle."""
    try:
        manifest = json.loads(read_manifest(folder))
    except (ValueError, RecursionError):
        manifest = None  # Bundle.read raises an InvalidBundle that explains it
    is_external = isinstance(manifest, dict) and "contract" in manifest
    return (ExternalBundle if is_external else Bundle).read(folder, limits)


@dataclass(frozen=True)
class ExternalContents:
    """The contents of a new bundle of an external ONNX model, except its version."""

    name: str
    contract: OnnxContract
    onnx_model: bytes
    card: str
    metrics: Mapping[str, float]

    def write(self, folder: Path, version: int) -> None:
        """Write the files into `folder`, a temporary one that the caller then renames."""
        files = {File.ONNX_MODEL: self.onnx_model, File.CARD: self.card.encode()}
        header = header_of(self.name, version, self.metrics, files)
        write_files(folder, ExternalManifest(**header, contract=self.contract), files)
