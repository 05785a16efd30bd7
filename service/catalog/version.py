"""One version of a model in the registry, from before it is loaded until it has answered its last request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NotRequired, Self

from pydantic import Field
from typing_extensions import TypedDict

from models.bundle.repository import Fingerprint
from service.catalog.loaded import InProgress, LoadedModel


class VersionState(StrEnum):
    """Where a version is on its way to answering."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"  # another took its place, and it still answers what was asked of it before


class VersionStatus(TypedDict):
    """One version of a model as it stands."""

    version: int
    state: VersionState
    engine: NotRequired[str]
    error: NotRequired[Annotated[str, Field(description="Why it could not be loaded.")]]


class ModelStatus(TypedDict):
    """One model as it stands."""

    name: str
    versions: list[VersionStatus]


@dataclass
class Version:
    """One version: loading until it has a model, or the sentence that says why it has none.

    It may have both: a version that was loaded again, and could not be, answers as before.
    """

    name: str
    version: int
    model: LoadedModel | None = None
    error: str | None = None
    fingerprint: Fingerprint | None = None  # of what could not be loaded

    @property
    def state(self) -> VersionState:
        """Where it is."""
        if self.model is not None:
            return VersionState.READY
        return VersionState.LOADING if self.error is None else VersionState.FAILED

    @property
    def why_not_ready(self) -> str:
        """Say in a sentence why it does not answer."""
        of = f"model '{self.name}' version {self.version}"
        return f"{of} is still loading" if self.error is None else f"{of} could not be loaded: {self.error}"

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        status: VersionStatus = {"version": self.version, "state": self.state}
        if self.model is not None:
            status["engine"] = self.model.engine.name
        if self.error is not None:
            status["error"] = self.error
        return status


@dataclass(frozen=True)
class Retired:
    """A version that another has taken the place of. Its model is not kept: that goes with its last request."""

    name: str
    version: int
    engine: str
    requests: InProgress

    @classmethod
    def of(cls, model: LoadedModel) -> Self:
        """Return what stays of `model`."""
        return cls(model.name, model.version, model.engine.name, model.requests)

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        return {"version": self.version, "state": VersionState.DRAINING, "engine": self.engine}
