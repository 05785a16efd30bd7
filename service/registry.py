"""Which models and versions are served, and where each is on its way from the disk to answering.

Only the event loop changes a registry; loading itself runs on the workers' threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog

from models.errors import SpikeserveError
from models.repository import ModelRepository
from service.errors import Misconfigured, ModelNotFound, NotReady
from service.faults import shown
from service.schemas import ModelStatus, State, VersionStatus
from service.served import ServedModel
from service.settings import Settings

log = structlog.get_logger()

Load = Callable[[str, int], Awaitable[ServedModel]]
Find = Callable[[str], list[int]]


@dataclass
class Slot:
    """The place of one version: loading until it has a model or the sentence that says why it has none, or unloaded."""

    name: str
    version: int
    model: ServedModel | None = None
    fault: str | None = None
    unloaded: bool = False

    @property
    def state(self) -> State:
        """Where it is."""
        if self.unloaded:
            return State.UNLOADED
        if self.model is not None:
            return State.READY
        return State.LOADING if self.fault is None else State.FAILED

    @property
    def not_ready(self) -> str:
        """Say in a sentence why it does not answer."""
        of = f"model '{self.name}' version {self.version}"
        if self.unloaded:
            return f"{of} was unloaded"
        return f"{of} is still loading" if self.fault is None else f"{of} could not be loaded: {self.fault}"

    def status(self) -> VersionStatus:
        """Return it as GET /models shows it."""
        status: VersionStatus = {"version": self.version, "state": self.state}
        if self.model is not None:
            status["engine"] = self.model.engine.name
        if self.fault is not None:
            status["error"] = self.fault
        return status


class Registry:
    """The versions that the settings ask for, by model and then by version, ascending."""

    def __init__(self, slots: dict[str, dict[int, Slot]], default: str | None, find: Find) -> None:
        self.slots = slots
        self.default = default
        self._find = find

    @classmethod
    def of(cls, settings: Settings) -> Registry:
        """Look into the repository, without loading anything; raises Misconfigured if there is nothing to serve."""
        repository = ModelRepository(settings.repository)
        try:
            found = {name: repository.versions(name) for name in repository.names()}
        except OSError as error:
            raise Misconfigured(f"repository: '{settings.repository}' cannot be read: {error.strerror}") from error
        if not found:
            raise Misconfigured(
                f"repository: '{settings.repository}' holds no model, expected <name>/<version>/ with a bundle.json"
            )
        default = settings.default_model or (next(iter(found)) if len(found) == 1 else None)
        if default is not None and default not in found:
            raise Misconfigured(f"default_model: '{default}' is not in the repository; it holds: {', '.join(found)}")

        def asked_for(versions: list[int]) -> list[int]:
            return versions if settings.versions == "all" else versions[-1:]

        slots = {name: {version: Slot(name, version) for version in asked_for(each)} for name, each in found.items()}
        return cls(slots, default, lambda name: asked_for(repository.versions(name)))

    async def load(self, load: Load) -> None:
        """Load every version, by `load` now and later; one that fails says so in its slot and stops no other."""
        self._load = load
        self._changes = asyncio.Lock()  # made here, since it belongs to one event loop
        await asyncio.gather(*(self._fill(slot, load) for slot in self._all()))

    async def load_model(self, name: str) -> None:
        """Read the versions of a model that the settings ask for again, and serve them once they are all ready.

        Until then what answers goes on answering, and where one of them fails it does so after, too; a model that did
        not answer then shows the fault. Raises ModelNotFound, and NotReady with the sentence of each that failed.
        """
        async with self._changes:
            fresh = {version: Slot(name, version) for version in await asyncio.to_thread(self._find, name)}
            if not fresh:
                raise ModelNotFound(f"model {shown(name)} is not in the repository")
            await asyncio.gather(*(self._fill(slot, self._load) for slot in fresh.values()))
            failed = [slot.not_ready for slot in fresh.values() if slot.state is not State.READY]
            serving = any(slot.state is State.READY for slot in self.slots.get(name, {}).values())
            if not failed or not serving:
                self.slots[name] = fresh
            if failed:
                raise NotReady("; ".join(failed))

    async def unload_model(self, name: str) -> None:
        """Have every version of a model answer no more; who holds one already keeps it. Raises ModelNotFound."""
        async with self._changes:
            self.slots[name] = {version: Slot(name, version, unloaded=True) for version in self.versions(name)}
            log.info("model_unloaded", model=name)

    async def _fill(self, slot: Slot, load: Load) -> None:
        labels = {"model": slot.name, "version": slot.version}
        try:
            model = await load(slot.name, slot.version)
        except SpikeserveError as error:
            slot.fault = str(error)
            log.error("model_failed", **labels, error=slot.fault)  # noqa: TRY400  (the sentence says it all)
        except Exception:
            slot.fault = "an internal error; the log has its traceback"
            log.exception("model_failed", **labels)
        else:
            slot.model = model
            log.info("model_ready", **labels, engine=model.engine.name)

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Return a model by its name and version as a client wrote them, by default its newest that is ready.

        No name means the default model. Raises ModelNotFound and NotReady.
        """
        versions = self.versions(name)
        if version is None:
            ready = [slot.model for slot in versions.values() if slot.model is not None]
            if ready:
                return ready[-1]
            raise NotReady(next(reversed(versions.values())).not_ready)
        for slot in versions.values():
            if str(slot.version) == version:
                if slot.model is None:
                    raise NotReady(slot.not_ready)
                return slot.model
        listed = ", ".join(map(str, versions))
        raise ModelNotFound(f"model '{name}' has no version {shown(version)} here; it has: {listed}")

    def versions(self, name: str | None) -> dict[int, Slot]:
        """Return a model's slots, ascending; raises ModelNotFound."""
        known = ", ".join(self.slots)
        if name is None and self.default is None:
            raise ModelNotFound(f"no default model is set; ask one of these at /models/<name>/predict: {known}")
        name = name or self.default
        if name not in self.slots:
            raise ModelNotFound(f"model {shown(name)} is not served here; this server has: {known}")
        return self.slots[name]

    def check_ready(self) -> None:
        """Raise NotReady with a sentence for each version that does not answer, if there is any.

        One that was unloaded is not meant to, but something must answer.
        """
        waiting = [slot.not_ready for slot in self._all() if slot.state not in (State.READY, State.UNLOADED)]
        if waiting:
            raise NotReady("; ".join(waiting))
        if all(slot.state is State.UNLOADED for slot in self._all()):
            raise NotReady("every model was unloaded")

    def status(self) -> list[ModelStatus]:
        """Return every model as it stands."""
        return [
            {"name": name, "versions": [slot.status() for slot in versions.values()]}
            for name, versions in self.slots.items()
        ]

    def _all(self) -> Iterator[Slot]:
        for versions in self.slots.values():
            yield from versions.values()
