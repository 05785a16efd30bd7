"""The place of one version of a model, from before it is loaded until it has answered its last request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from models.bundle.repository import Fingerprint
from service.catalog.served import InProgress, ServedModel
from service.inference.schemas import State, VersionStatus


@dataclass
class Slot:
    """The place of one version: loading until it has a model or the sentence that says why it has none.

    It may have both: a version that was loaded again, and could not be, answers as before.
    """

    name: str
    version: int
    model: ServedModel | None = None
    fault: str | None = None
    fingerprint: Fingerprint | None = None  # of what could not be loaded

    @property
    def state(self) -> State:
        """Where it is."""
        if self.model is not None:
            return State.READY
        return State.LOADING if self.fault is None else State.FAILED

    @property
    def why_not_ready(self) -> str:
        """Say in a sentence why it does not answer."""
        of = f"model '{self.name}' version {self.version}"
        return f"{of} is still loading" if self.fault is None else f"{of} could not be loaded: {self.fault}"

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        status: VersionStatus = {"version": self.version, "state": self.state}
        if self.model is not None:
            status["engine"] = self.model.engine.name
        if self.fault is not None:
            status["error"] = self.fault
        return status


@dataclass(frozen=True)
class Retired:
    """A version that another has taken the place of. Its model is not kept: that goes with its last request."""

    name: str
    version: int
    engine: str
    requests: InProgress

    @classmethod
    def of(cls, model: ServedModel) -> Self:
        """Return what stays of `model`."""
        return cls(model.name, model.version, model.engine.name, model.requests)

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        return {"version": self.version, "state": State.DRAINING, "engine": self.engine}
