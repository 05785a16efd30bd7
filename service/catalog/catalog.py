"""The catalog: which versions of which models are served, and whether each is loading, ready or failed.

A version is ready once its hashes were checked, its golden samples replayed and its engine warmed up. Until then, and
if that fails, the previous version answers. A request uses the same version from beginning to end: it holds the loaded
model, which lives until its last request has ended, even if the catalog no longer lists it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Annotated, NotRequired, TypeAlias

import structlog
from pydantic import Field
from typing_extensions import TypedDict

from spikeserve.models.bundle.repository import Fingerprint
from spikeserve.service.catalog.loaded import InProgress, LoadedModel
from spikeserve.service.errors import ModelNotFound, NotReady, ShuttingDown, shown

log = structlog.get_logger()


class VersionState(StrEnum):
    """The state of a version."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"  # it was replaced and still has requests in progress


class VersionStatus(TypedDict):
    """The state of one version of a model."""

    version: int
    state: VersionState
    engine: NotRequired[str]
    compiling: NotRequired[
        Annotated[bool, Field(description="Kernels are being compiled: `engine` answers until then, and then `event`.")]
    ]
    loading_seconds: NotRequired[
        Annotated[float, Field(description="For how long it has been loaded, or waited to be.")]
    ]
    error: NotRequired[Annotated[str, Field(description="Why it could not be loaded.")]]


class ModelStatus(TypedDict):
    """The state of one model's versions."""

    name: str
    versions: list[VersionStatus]


@dataclass
class Version:
    """One version: loading until it has a loaded model or an error.

    It may have both: if a ready version is loaded again and that fails, it goes on answering as before.
    """

    name: str
    version: int
    model: LoadedModel | None = None
    error: str | None = None
    fingerprint: Fingerprint | None = None  # of the files when they were last loaded
    # Since when it has been loaded, or waited for that, by `monotonic`; None once that is over.
    began: float | None = field(default_factory=monotonic)
    engine: str | None = None  # of its loaded model
    compiling: bool = False  # whether that answers only until kernels are compiled
    draining: InProgress | None = None  # of one that was replaced, whose loaded model is freed with its last request

    @property
    def state(self) -> VersionState:
        """Its state."""
        if self.draining is not None:
            return VersionState.DRAINING
        if self.model is not None:
            return VersionState.READY
        return VersionState.LOADING if self.error is None else VersionState.FAILED

    @property
    def loading_seconds(self) -> float | None:
        """For how many seconds it has been loaded, or waited to be; None if it is not."""
        return None if self.began is None else monotonic() - self.began

    @property
    def training_rates(self) -> Mapping[str, float]:
        """The firing rates that training measured, by layer; empty until it is ready."""
        return {} if self.model is None else self.model.training_rates

    @property
    def why_not_ready(self) -> str:
        """A sentence that says why it is not ready."""
        of = f"model '{self.name}' version {self.version}"
        if self.error is not None:
            return f"{of} could not be loaded: {self.error}"
        return f"{of} is still loading, for {self.loading_seconds or 0:.0f} s"

    def status(self) -> VersionStatus:
        """Return the status for GET /models."""
        status: VersionStatus = {"version": self.version, "state": self.state}
        if self.engine is not None:
            status["engine"] = self.engine
        if self.compiling:
            status["compiling"] = True
        if (seconds := self.loading_seconds) is not None:
            status["loading_seconds"] = round(seconds, 3)
        if self.error is not None:
            status["error"] = self.error
        return status


Models: TypeAlias = dict[str, dict[int, Version]]  # by name and then by number, ascending


class Catalog:
    """All versions of all models. Only the event loop reads and changes it.

    `default` is the model that is asked where a request names none.
    """

    def __init__(self, models: Models, default: str | None) -> None:
        self.models = models
        self.default = default
        self.unloaded: set[str] = set()  # models that a client unloaded
        self.retired: list[Version] = []  # replaced versions that may still have requests in progress
        self.draining = False  # then new requests are refused
        self.has_lifespan = True  # False until the ASGI server sends an app its lifespan events, by which models load
        self.changes = 0  # of what `get` returns, so that who keeps that knows when to ask again

    def adopt(self, models: Models, unloaded: Collection[str]) -> None:
        """List these models alone, and without those that were unloaded."""
        self.models, self.unloaded = models, set(unloaded)
        self.changes += 1

    def get(self, name: str | None = None, version: str | None = None) -> LoadedModel:
        """Return a loaded model by its name and version, as text; by default the newest version that is ready.

        No name means the default model. Raises ModelNotFound, NotReady and ShuttingDown.
        """
        self.check_open()
        return self.find(name, version)

    def find(self, name: str | None = None, version: str | None = None) -> LoadedModel:
        """Return the same for a request that was accepted already, also while the server drains."""
        entries = self.versions_of(name)
        asked = [entry for entry in reversed(entries.values()) if version in (None, str(entry.version))]
        for entry in asked:
            if entry.model is not None:
                return entry.model
        if asked:
            raise NotReady(asked[0].why_not_ready)
        listed = ", ".join(map(str, entries))
        raise ModelNotFound(f"model '{name}' has no version {shown(version)} here; it has: {listed}")

    def versions_of(self, name: str | None) -> dict[int, Version]:
        """Return a model's versions, ascending; raises ModelNotFound."""
        name = self.default if name is None else name
        if name in self.models:
            return self.models[name]
        known = ", ".join(self.models) or "none"
        if name is None:
            raise ModelNotFound(f"no default model is set; ask one of these at /models/<name>/predict: {known}")
        raise ModelNotFound(f"model {shown(name)} is not served here; this server has: {known}")

    def check_open(self) -> None:
        """Raise ShuttingDown while the server drains, and NotReady where models never load."""
        if not self.has_lifespan:
            raise NotReady("no model loads: the ASGI server has to send lifespan events, as uvicorn does by default")
        if self.draining:
            raise ShuttingDown("the server is shutting down")

    def add(self, name: str, entries: dict[int, Version]) -> None:
        """List versions of a model, whose client wants it again if it was unloaded."""
        self.models[name] = dict(sorted((self.models.get(name, {}) | entries).items()))

    def set_ready(self, entry: Version, model: LoadedModel) -> None:
        """Have a version answer with what was loaded; of the same files, it takes over the sessions as well."""
        before = entry.model
        if before is not None and before.bundle.digest == model.bundle.digest:
            model.requests, before.successor = before.requests, model
        entry.model, entry.engine = model, model.engine.name
        self.changes += 1

    def keep(self, name: str, chosen: Collection[int]) -> None:
        """Retire the versions of a model that are not `chosen`, once one that is chosen is ready."""
        entries = self.models[name]
        kept = {version: entry for version, entry in entries.items() if version in chosen}
        if all(entry.model is None for entry in kept.values()):
            return
        self.models[name] = kept
        self.changes += 1
        for entry in [each for each in entries.values() if each.version not in kept]:
            log.info("model_retired", model=name, version=entry.version)
            if entry.model is not None and (requests := entry.model.requests).count:
                self.retired.append(Version(name, entry.version, began=None, engine=entry.engine, draining=requests))

    def remove(self, name: str) -> None:
        """List a model no longer: it is unloaded."""
        self.models.pop(name, None)
        self.unloaded.add(name)
        self.changes += 1

    def model_statuses(self) -> list[ModelStatus]:
        """Return the state of every model."""
        return [{"name": name, "versions": self.version_statuses(name)} for name in self.models]

    def version_statuses(self, name: str) -> list[VersionStatus]:
        """Return the state of a model's versions."""
        return [each.status() for each in self.listed(name)]

    def every_version(self) -> list[Version]:
        """Return the versions of all models."""
        return [each for name in self.models for each in self.listed(name)]

    def listed(self, name: str) -> list[Version]:
        """Return a model's versions, ascending, with replaced ones that have requests in progress."""
        self.retired = [each for each in self.retired if each.draining and each.draining.count]
        versions = {each.version: each for each in self.retired if each.name == name} | self.models[name]
        return [versions[number] for number in sorted(versions)]
