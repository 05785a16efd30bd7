"""Which models and versions are served, and where each is on its way from the disk to answering.

A version answers once its hashes were checked, its golden samples replayed and its engine warmed; until then, and if
that fails, the version before it answers. Who has begun with a version ends with it: a registry hands out whole models,
and one that it no longer lists lives for as long as a request holds it.

Only the event loop changes a registry; reading the disk and loading run on threads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog

from models.bundle.repository import Fingerprint, ModelRepository
from models.errors import SpikeserveError
from service.catalog.served import ServedModel
from service.catalog.slots import Retired, Slot
from service.errors import LoadFailed, Misconfigured, ModelNotFound, NotReady, ShuttingDown
from service.faults import shown
from service.inference.schemas import ModelStatus, State, VersionStatus
from service.inference.threads import Workers
from service.settings import Settings, chosen_versions

log = structlog.get_logger()

Found = Mapping[str, Mapping[int, Fingerprint]]  # what lies in the repository, by model and version


class Registry:
    """The versions that are served, by model and then by version, ascending."""

    def __init__(self, settings: Settings, found: Found, default: str | None) -> None:
        self.settings = settings
        self.repository = ModelRepository(settings.repository)
        self.default = default
        self.slots = _empty_slots(settings, found)
        self.unloaded: set[str] = set()  # models that somebody unloaded, which a poll leaves alone
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.retired: list[Retired] = []  # those that may still answer what was asked of them before
        self.first_load_over = False  # whether every version that was there at the start is loaded or has failed
        self.never_ready = set(self.slots)  # models that were there at the start and had no version that answers yet
        self.draining = False

    @classmethod
    def of(cls, settings: Settings) -> Registry:
        """Look into the repository, without loading anything; raises Misconfigured if there is nothing to serve."""
        try:
            found = look(ModelRepository(settings.repository))
        except OSError as error:
            raise Misconfigured(f"repository: '{settings.repository}' cannot be read: {error.strerror}") from error
        if not found:
            raise Misconfigured(
                f"repository: '{settings.repository}' holds no model, expected <name>/<version>/ with a bundle.json"
            )
        default = settings.default_model or (next(iter(found)) if len(found) == 1 else None)
        if default is not None and default not in found:
            raise Misconfigured(f"default_model: '{default}' is not in the repository; it holds: {', '.join(found)}")
        registry = cls(settings, found, default)
        if not registry.slots:
            raise Misconfigured(f"versions: no model in the repository has one of {settings.versions}")
        return registry

    def adopt(self, versions: Mapping[str, Iterable[int]], unloaded: Collection[str]) -> None:
        """Begin with these versions and without the models that were unloaded; nothing is loaded yet.

        Where all versions of a model are gone from the repository, those that lie there now take their place.
        """
        slots = {name: {each: Slot(name, each) for each in sorted(some)} for name, some in versions.items()}
        try:
            found = look(self.repository)
        except OSError as error:
            log.warning("repository_unreadable", error=error.strerror)
        else:
            there = _empty_slots(self.settings, found)
            gone = [name for name, some in slots.items() if not some.keys() & found.get(name, {}).keys()]
            slots |= {name: there[name] for name in gone if name in there}
        self.slots = slots
        self.unloaded = set(unloaded)

    def start(self, workers: Workers, loaders: Workers) -> None:
        """Take the threads that requests run on, and those that models are loaded on."""
        self.workers, self.loaders = workers, loaders
        self.first_load_over = self.draining = False
        self.never_ready = set(self.slots)

    async def load_all(self) -> None:
        """Load every version; one that fails says so in its slot and stops no other."""
        await asyncio.gather(*(self._load_at_start(name) for name in self.slots))
        self.first_load_over = True

    async def keep_polling(self, polled: Callable[[], None]) -> None:
        """Poll over and over, if that is set, and call `polled` after each time."""
        while self.settings.poll_seconds > 0:
            await asyncio.sleep(self.settings.poll_seconds)
            await self.poll()
            polled()

    async def _load_at_start(self, name: str) -> None:
        async with self.locks[name]:
            versions = list(self.slots.get(name, ()))
            if versions:  # still: it may have been unloaded
                # Among those adopted may be one that was about to be let go of.
                wanted = chosen_versions(self.settings.versions, versions) or versions
                await self._load_and_retire(name, versions, wanted)

    async def load(self, name: str, versions: Collection[int] = ()) -> None:
        """Load `versions` of a model, by default those that `choose` returns, also those that are served already.

        Each takes its predecessor's place once it is ready. Raises ModelNotFound where the repository has no such
        version, and LoadFailed, which says why, where one of them could not be loaded; what answered before still does.
        Raises ShuttingDown.
        """
        self._check_open()
        if not versions:
            await self.choose(name)  # before there is a lock of that name, which stays
        async with self.locks[name]:
            wanted = versions or await self.choose(name)
            self.unloaded.discard(name)
            await self._load_and_retire(name, wanted, wanted)
            slots = self.slots.get(name, {}).values()
            faults = [slot.why_not_ready for slot in slots if slot.version in wanted and slot.fault is not None]
        if faults:
            raise LoadFailed("; ".join(faults))

    async def choose(self, name: str) -> list[int]:
        """Return the versions of a model in the repository that the settings ask for, ascending.

        Raises ModelNotFound where there are none, LoadFailed where the repository cannot be read, and ShuttingDown.
        """
        self._check_open()
        try:
            found = await self.loaders.submit(self.repository.versions, name)
        except OSError as error:
            raise LoadFailed(f"model {shown(name)} cannot be read in the repository: {error.strerror}") from error
        if wanted := chosen_versions(self.settings.versions, found):
            return wanted
        if not found:
            raise ModelNotFound(f"model {shown(name)} has no version in the repository")
        there = ", ".join(map(str, found))
        raise ModelNotFound(f"model {shown(name)} has the versions {there}, but `versions` is {self.settings.versions}")

    async def unload(self, name: str) -> None:
        """Serve a model no more; what was asked of it before is answered. Raises ModelNotFound."""
        self.slots_of(name)  # before there is a lock of that name
        async with self.locks[name]:
            self.slots_of(name)
            self._forget(name)

    async def forget(self, name: str) -> None:
        """Serve a model no more, as another worker was told to; this one may not serve it yet."""
        async with self.locks[name]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.slots.pop(name, None)
        self.never_ready.discard(name)
        self.unloaded.add(name)
        log.info("model_unloaded", model=name)

    async def poll(self) -> None:
        """Look for what is new in the repository and load it.

        A version that failed is tried again once its files have changed. A model whose folder is gone stays: a disk
        that is away for a moment must not end what runs.
        """
        try:
            found = await self.loaders.submit(look, self.repository)
        except OSError as error:
            log.warning("poll_failed", error=error.strerror)
            return
        await asyncio.gather(*(self._poll_model(name, versions) for name, versions in found.items()))

    async def _poll_model(self, name: str, found: Mapping[int, Fingerprint]) -> None:
        async with self.locks[name]:
            wanted = chosen_versions(self.settings.versions, found)
            slots = self.slots.get(name, {})
            due = [version for version in wanted if version not in slots or _worth_a_try(slots[version], found)]
            if name not in self.unloaded and wanted and (due or slots.keys() != set(wanted)):
                await self._load_and_retire(name, due, wanted)

    async def _load_and_retire(self, name: str, due: Iterable[int], wanted: Collection[int]) -> None:
        """Load the versions that are `due`, and once one that is wanted answers, let go of those that are not."""
        slots = self.slots.get(name, {})
        loading = {version: slots.get(version) or Slot(name, version) for version in due}
        self.slots[name] = dict(sorted((slots | loading).items()))
        await asyncio.gather(*(self._load_slot(slot) for slot in loading.values()))
        slots = self.slots[name]
        kept = {version: slot for version, slot in slots.items() if version in wanted}
        if any(slot.model is not None for slot in kept.values()):
            self.slots[name] = kept
            for version, slot in slots.items():
                if version in kept:
                    continue
                log.info("model_retired", model=name, version=version)
                if slot.model is not None and slot.model.requests.count:
                    self.retired.append(Retired.of(slot.model))

    async def _load_slot(self, slot: Slot) -> None:
        labels = {"model": slot.name, "version": slot.version}
        slot.fault = None
        try:
            slot.fingerprint = await self.loaders.submit(self.repository.fingerprint, slot.name, slot.version)
            model = await self.loaders.submit(ServedModel.load, slot.name, slot.version, self.settings)
        except SpikeserveError as error:
            slot.fault = str(error)
            log.error("model_failed", **labels, error=slot.fault)  # noqa: TRY400  (the sentence says it all)
        except Exception:
            slot.fault = "an internal error; the log has its traceback"
            log.exception("model_failed", **labels)
        else:
            slot.model = model
            self.never_ready.discard(slot.name)
            log.info("model_ready", **labels, engine=model.engine.name)

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Return a model by its name and version as a client wrote them, by default its newest that is ready.

        No name means the default model. Raises ModelNotFound, NotReady and ShuttingDown.
        """
        self._check_open()
        slots = self.slots_of(name)
        if version is None:
            ready = [slot.model for slot in slots.values() if slot.model is not None]
            if ready:
                return ready[-1]
            raise NotReady(next(reversed(slots.values())).why_not_ready)
        for slot in slots.values():
            if str(slot.version) == version:
                if slot.model is None:
                    raise NotReady(slot.why_not_ready)
                return slot.model
        listed = ", ".join(map(str, slots))
        raise ModelNotFound(f"model '{name}' has no version {shown(version)} here; it has: {listed}")

    def slots_of(self, name: str | None) -> dict[int, Slot]:
        """Return a model's slots, ascending; raises ModelNotFound."""
        known = ", ".join(self.slots) or "none"
        if name is None:
            name = self.default
        if name is None:
            raise ModelNotFound(f"no default model is set; ask one of these at /models/<name>/predict: {known}")
        if name not in self.slots:
            raise ModelNotFound(f"model {shown(name)} is not served here; this server has: {known}")
        return self.slots[name]

    def check_ready(self) -> None:
        """Raise NotReady with a sentence for each model that keeps the server from being ready.

        While the first models load, that is each of them. From then on it is each that was there at the start and has
        never answered, if `strict_readiness` is set, and all of them where none answers. A model that comes later keeps
        nobody from asking the others.
        """
        self._check_open()
        if not self.slots:
            raise NotReady("no model is loaded")
        if self.first_load_over:
            self.workers.check_alive(self.settings.stuck_seconds)
        every = [slot for slots in self.slots.values() for slot in slots.values()]
        loading = [slot for slot in every if slot.state is State.LOADING and not self.first_load_over]
        if unready := loading or self._unready():
            raise NotReady("; ".join(slot.why_not_ready for slot in unready))

    def _check_open(self) -> None:
        if self.draining:
            raise ShuttingDown("the server is shutting down")

    def is_ready(self) -> bool:
        """Return whether `check_ready` has nothing to raise."""
        try:
            self.check_ready()
        except (NotReady, ShuttingDown):
            return False
        return True

    def _unready(self) -> list[Slot]:
        """Return each version of the models that do not answer and without which the server is not ready."""
        unready = {
            name: slots for name, slots in self.slots.items() if all(slot.model is None for slot in slots.values())
        }
        some_answer = len(unready) < len(self.slots)
        needed = self.never_ready if self.settings.strict_readiness else frozenset()
        return [slot for name, slots in unready.items() if name in needed or not some_answer for slot in slots.values()]

    def model_statuses(self) -> list[ModelStatus]:
        """Return every model as it stands."""
        return [{"name": name, "versions": self.version_statuses(name)} for name in self.slots]

    def version_statuses(self, name: str) -> list[VersionStatus]:
        """Return a model's versions, ascending, with those that were retired and still answer what they were asked."""
        self.retired = [each for each in self.retired if each.requests.count > 0]
        served = self.slots[name]
        draining = {each.version: each for each in self.retired if each.name == name}
        return [each.status() for _, each in sorted((draining | served).items())]


def look(repository: ModelRepository) -> dict[str, dict[int, Fingerprint]]:
    """Return what lies in the repository; takes a while. A model whose folder cannot be read is left out, and logged.

    Raises OSError where the repository itself cannot be read.
    """
    found: dict[str, dict[int, Fingerprint]] = {}
    for name in repository.names():
        try:
            versions = repository.versions(name)
        except OSError as error:
            log.warning("model_unreadable", model=name, error=error.strerror)
            continue
        found[name] = {version: repository.fingerprint(name, version) for version in versions}
    return found


def _empty_slots(settings: Settings, found: Found) -> dict[str, dict[int, Slot]]:
    """Return a slot for each version that the settings ask for, by model and then by version, ascending."""
    return {
        name: {version: Slot(name, version) for version in wanted}
        for name, versions in found.items()
        if (wanted := chosen_versions(settings.versions, versions))
    }


def _worth_a_try(slot: Slot, found: Mapping[int, Fingerprint]) -> bool:
    return slot.state is State.FAILED and slot.fingerprint != found[slot.version]
