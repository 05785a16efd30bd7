"""Which models and versions are served, and where each is on its way from the disk to answering.

A version answers once its hashes were checked, its golden samples replayed and its engine warmed; until then, and if
that fails, the version before it answers. Who has begun with a version ends with it: a registry hands out whole models,
and one that it no longer lists lives for as long as a request holds it.

Only the event loop changes a registry; reading the disk and loading run on threads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import structlog

from models.bundle.repository import Fingerprint, ModelRepository
from models.errors import SpikeserveError
from service.catalog.loaded import LoadedModel
from service.catalog.threads import Threads
from service.catalog.version import ModelStatus, Retired, Version, VersionState, VersionStatus
from service.errors import LoadFailed, Misconfigured, ModelNotFound, NotReady, ShuttingDown, shown
from service.settings import Settings, chosen_versions
from service.telemetry.record import VersionRecord

log = structlog.get_logger()

Found = Mapping[str, Mapping[int, Fingerprint]]  # what lies in the repository, by model and version


class Registry:
    """The versions that are served, by model and then by version, ascending."""

    def __init__(self, settings: Settings, loaders: Threads, found: Found, default: str | None) -> None:
        self.settings = settings
        self.loaders = loaders
        self.repository = ModelRepository(settings.repository)
        self.default = default
        self.models = _unloaded_versions(settings, found)
        self.unloaded: set[str] = set()  # models that somebody unloaded, which a poll leaves alone
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.retired: list[Retired] = []  # those that may still answer what was asked of them before
        self.first_load_over = False  # whether every version that was there at the start is loaded or has failed
        self.never_ready = set(self.models)  # models that were there at the start and had no version that answers yet
        self.draining = False

    @classmethod
    def of(cls, settings: Settings, loaders: Threads) -> Registry:
        """Look into the repository, without loading anything; raises Misconfigured if there is nothing to serve.

        Versions are read and loaded on the threads of `loaders`.
        """
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
        registry = cls(settings, loaders, found, default)
        if not registry.models:
            raise Misconfigured(f"versions: no model in the repository has one of {settings.versions}")
        return registry

    def look_again(self) -> None:
        """Begin with what lies in the repository now, unless nothing does that could be served."""
        try:
            found = look(self.repository)
        except OSError as error:
            log.warning("repository_unreadable", error=error.strerror)
        else:
            self.models = _unloaded_versions(self.settings, found) or self.models

    def adopt(self, versions: Mapping[str, Iterable[int]], unloaded: Iterable[str]) -> None:
        """Have what another worker serves take the place of what was found at the start; nothing is loaded yet."""
        self.models = {name: {each: Version(name, each) for each in sorted(some)} for name, some in versions.items()}
        self.unloaded = set(unloaded)

    async def load_all(self) -> None:
        """Load every version; one that fails says so in its place and stops no other."""
        await asyncio.gather(*(self._load_at_start(name) for name in self.models))
        self.first_load_over = True

    async def keep_polling(self) -> None:
        """Poll over and over, if that is set."""
        while self.settings.poll_seconds > 0:
            await asyncio.sleep(self.settings.poll_seconds)
            await self.poll()

    async def _load_at_start(self, name: str) -> None:
        async with self.locks[name]:
            versions = list(self.models.get(name, ()))
            if versions:  # still: it may have been unloaded
                # Another worker may have told of a version that it is about to let go of.
                wanted = chosen_versions(self.settings.versions, versions) or versions
                await self._load_and_retire(name, versions, wanted)

    async def load(self, name: str) -> None:
        """Load the versions of a model that the settings ask for, also those that are served already.

        Each takes its predecessor's place once it is ready. Raises ModelNotFound where the repository has no such
        version, and LoadFailed, which says why, where one of them could not be loaded; what answered before still does.
        Raises ShuttingDown.
        """
        self.check_open()
        await self._wanted(name)  # before there is a lock of that name, which stays
        async with self.locks[name]:
            wanted = await self._wanted(name)
            self.unloaded.discard(name)
            await self._load_and_retire(name, wanted, wanted)
            entries = self.models.get(name, {}).values()
            errors = [entry.why_not_ready for entry in entries if entry.version in wanted and entry.error is not None]
        if errors:
            raise LoadFailed("; ".join(errors))

    async def _wanted(self, name: str) -> list[int]:
        """Return the versions of a model in the repository that the settings ask for."""
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
        self.versions_of(name)  # before there is a lock of that name
        async with self.locks[name]:
            self.versions_of(name)
            self._forget(name)

    async def forget(self, name: str) -> None:
        """Serve a model no more, as another worker was told to; this one may not have found it yet."""
        async with self.locks[name]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.models.pop(name, None)
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
            entries = self.models.get(name, {})
            due = [version for version in wanted if version not in entries or _worth_a_try(entries[version], found)]
            if name not in self.unloaded and wanted and (due or entries.keys() != set(wanted)):
                await self._load_and_retire(name, due, wanted)

    async def _load_and_retire(self, name: str, due: Iterable[int], wanted: Collection[int]) -> None:
        """Load the versions that are `due`, and once one that is wanted answers, let go of those that are not."""
        entries = self.models.get(name, {})
        loading = {version: entries.get(version) or Version(name, version) for version in due}
        self.models[name] = dict(sorted((entries | loading).items()))
        await asyncio.gather(*(self._load_version(entry) for entry in loading.values()))
        entries = self.models[name]
        kept = {version: entry for version, entry in entries.items() if version in wanted}
        if any(entry.model is not None for entry in kept.values()):
            self.models[name] = kept
            for version, entry in entries.items():
                if version in kept:
                    continue
                log.info("model_retired", model=name, version=version)
                if entry.model is not None and entry.model.requests.count:
                    self.retired.append(Retired.of(entry.model))

    async def _load_version(self, entry: Version) -> None:
        labels = {"model": entry.name, "version": entry.version}
        entry.error = None
        try:
            entry.fingerprint = await self.loaders.submit(self.repository.fingerprint, entry.name, entry.version)
            model = await self.loaders.submit(LoadedModel.load, entry.name, entry.version, self.settings)
        except SpikeserveError as error:
            entry.error = str(error)
            log.error("model_failed", **labels, error=entry.error)  # noqa: TRY400  (the sentence says it all)
        except Exception:
            entry.error = "an internal error; the log has its traceback"
            log.exception("model_failed", **labels)
        else:
            entry.model = model
            self.never_ready.discard(entry.name)
            log.info("model_ready", **labels, engine=model.engine.name)

    def get(self, name: str | None = None, version: str | None = None) -> LoadedModel:
        """Return a model by its name and version as a client wrote them, by default its newest that is ready.

        No name means the default model. Raises ModelNotFound, NotReady and ShuttingDown.
        """
        if self.draining:
            self.check_open()
        entries = self.versions_of(name)
        if version is None:
            for entry in reversed(entries.values()):
                if entry.model is not None:
                    return entry.model
            raise NotReady(next(reversed(entries.values())).why_not_ready)
        for entry in entries.values():
            if str(entry.version) == version:
                if entry.model is None:
                    raise NotReady(entry.why_not_ready)
                return entry.model
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

    def check_ready(self) -> None:
        """Raise NotReady with a sentence for each model that keeps the server from being ready.

        While the first models load, that is each of them. From then on it is each that was there at the start and has
        never answered, if `strict_readiness` is set, and all of them where none answers. A model that comes later keeps
        nobody from asking the others.
        """
        self.check_open()
        if not self.models:
            raise NotReady("no model is loaded")
        every = [entry for entries in self.models.values() for entry in entries.values()]
        loading = [entry for entry in every if entry.state is VersionState.LOADING and not self.first_load_over]
        if unready := loading or self._unready():
            raise NotReady("; ".join(entry.why_not_ready for entry in unready))

    def check_open(self) -> None:
        """Raise ShuttingDown where the server takes nothing new."""
        if self.draining:
            raise ShuttingDown("the server is shutting down")

    def _unready(self) -> list[Version]:
        """Return each version of the models that do not answer and without which the server is not ready."""
        unready = {
            name: entries
            for name, entries in self.models.items()
            if all(entry.model is None for entry in entries.values())
        }
        some_answer = len(unready) < len(self.models)
        needed = self.never_ready if self.settings.strict_readiness else frozenset()
        return [
            entry
            for name, entries in unready.items()
            if name in needed or not some_answer
            for entry in entries.values()
        ]

    def model_statuses(self) -> list[ModelStatus]:
        """Return every model as it stands."""
        return [{"name": name, "versions": self.version_statuses(name)} for name in self.models]

    def version_records(self) -> list[VersionRecord]:
        """Return every version as it stands, for the metrics."""
        return [
            VersionRecord(name, each["version"], each["state"], "error" in each)
            for name in self.models
            for each in self.version_statuses(name)
        ]

    def version_statuses(self, name: str) -> list[VersionStatus]:
        """Return a model's versions, ascending, with those that were retired and still answer what they were asked."""
        self.retired = [each for each in self.retired if each.requests.count > 0]
        served = self.models[name]
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


def _unloaded_versions(settings: Settings, found: Found) -> dict[str, dict[int, Version]]:
    """Return each version that the settings ask for, not loaded yet, by model and then by version, ascending."""
    return {
        name: {version: Version(name, version) for version in wanted}
        for name, versions in found.items()
        if (wanted := chosen_versions(settings.versions, versions))
    }


def _worth_a_try(entry: Version, found: Mapping[int, Fingerprint]) -> bool:
    return entry.state is VersionState.FAILED and entry.fingerprint != found[entry.version]
