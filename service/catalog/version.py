"""A version of a model in the registry, from before it is loaded until its last request has ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Annotated, NotRequired, Self

from pydantic import Field
from typing_extensions import TypedDict

from spikeserve.models.bundle.repository import Fingerprint
from spikeserve.service.catalog.loaded import InProgress, LoadedModel


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
    began: float | None = None  # when its load began, by `monotonic`; None while it is not being loaded

    @property
    def state(self) -> VersionState:
        """Its state."""
        if self.model is not None:
            return VersionState.READY
        return VersionState.LOADING if self.error is None else VersionState.FAILED

    @property
    def loading_seconds(self) -> float | None:
        """For how many seconds it has been loaded, or waited to be; None if it is not."""
        return None if self.began is None else monotonic() - self.began

    @property
    def why_not_ready(self) -> str:
        """A sentence that says why it is not ready."""
        of = f"model '{self.name}' version {self.version}"
        if self.error is not None:
            return f"{of} could not be loaded: {self.error}"
        seconds = self.loading_seconds
        return f"{of} is still loading" + ("" if seconds is None else f", for {seconds:.0f} s")

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        status: VersionStatus = {"version": self.version, "state": self.state}
        if self.model is not None:
            status["engine"] = self.model.engine.name
        if (seconds := self.loading_seconds) is not None:
            status["loading_seconds"] = round(seconds, 3)
        if self.error is not None:
            status["error"] = self.error
        return status


@dataclass(frozen=True)
class Retired:
    """A version that was replaced. It does not hold the loaded model, which is freed with its last request."""

    name: str
    version: int
    engine: str
    requests: InProgress

    @classmethod
    def of(cls, model: LoadedModel) -> Self:
        """Return the retired version of `model`."""
        return cls(model.name, model.version, model.engine.name, model.requests)

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        return {"version": self.version, "state": VersionState.DRAINING, "engine": self.engine}
