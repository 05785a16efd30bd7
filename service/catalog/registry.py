"""The registry: every model and version, and whether each is loading, ready or failed.

A version is ready once its hashes were checked, its golden samples replayed and its engine warmed up. Until then, and
if that fails, the previous version answers. A request uses the same version from beginning to end: it holds the loaded
model, which lives until its last request has ended, even if the registry no longer lists it.

A version is verified in a process of its own (`service.catalog.load_process`), within bounds of time and memory, and
loaded by this process once that has succeeded. Each load is a task: those of one model wait for each other, and for
those of no other model. Unloading a model cancels its loads, which kills their processes.

Only the event loop changes the registry; disk access, and loading what was verified, run on threads.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from time import monotonic

import structlog

from spikeserve.models.bundle import File
from spikeserve.models.bundle.repository import Fingerprint, ModelRepository
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.engine_choice import prepare
from spikeserve.service.catalog.load_process import LoadProcesses
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.catalog.mirror import Refreshed, refresh, tell
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.catalog.version import ModelStatus, Retired, Version, VersionState, VersionStatus
from spikeserve.service.errors import LoadFailed, Misconfigured, ModelNotFound, NotReady, ShuttingDown, shown
from spikeserve.service.settings import Settings, chosen_versions
from spikeserve.service.telemetry.record import VersionRecord

log = structlog.get_logger()

Found = Mapping[str, Mapping[int, Fingerprint]]  # the versions in the repository, by model and version


class Registry:
    """All versions, by model and then by version number, ascending."""

    def __init__(
        self,
        settings: Settings,
        loaders: Threads,
        on_unload: Callable[[str], None],
        before_ready: Callable[[], None],
        found: Found,
        default: str | None,
        copied: Refreshed,
    ) -> None:
        self.settings = settings
        self.loaders = loaders
        self.repository = ModelRepository(settings.folder)
        self.default = default
        self.models = _unloaded_versions(settings, found)
        self.unloaded: set[str] = set()  # models that a client unloaded; polling does not load them
        self.processes = LoadProcesses(settings)
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.loads: dict[Task[None], str] = {}  # the loads in progress or waiting, and the model of each
        self.retired: list[Retired] = []  # replaced versions that may still have requests in progress
        self.has_networks = any(_is_network(each) for versions in found.values() for each in versions.values())
        self.first_load_over = False  # whether every version of the start is loaded or has failed
        self.never_ready = set(self.models)  # models of the start that have not had a ready version yet
        self.draining = False
        self.changes = 0  # of what `get` returns, so that who keeps that knows when to ask again
        self.copied = copied  # at the start, of a repository elsewhere; who configures the log tells it
        self.on_unload = on_unload  # is told the name of a model that is unloaded
        self.before_ready = before_ready  # is called once the first load is over

    @classmethod
    def of(
        cls,
        settings: Settings,
        loaders: Threads,
        on_unload: Callable[[str], None] = lambda _: None,
        before_ready: Callable[[], None] = lambda: None,
    ) -> Registry:
        """Scan the repository, without loading anything yet; raises Misconfigured if there is nothing to serve.

        Versions that were verified are loaded on the threads of `loaders`.
        """
        repository = ModelRepository(settings.folder)
        copied = refresh(settings)
        try:
            found = scan(repository)
            of_repository = repository.default()
        except OSError as error:
            raise Misconfigured(f"repository: '{settings.repository}' cannot be read: {error.strerror}") from error
        if not found:
            raise Misconfigured(
                copied.failed
                or f"repository: '{settings.repository}' holds no model, expected <name>/<version>/ with a bundle.json"
            )
        default = settings.default_model or (of_repository if of_repository in found else None)
        if default is None and len(found) == 1:
            default = next(iter(found))
        if default is not None and default not in found:
            raise Misconfigured(f"default_model: '{default}' is not in the repository; it holds: {', '.join(found)}")
        registry = cls(settings, loaders, on_unload, before_ready, found, default, copied)
        if not registry.models:
            raise Misconfigured(f"versions: no model in the repository has one of {settings.versions}")
        return registry

    def adopt(self, versions: Mapping[str, Iterable[int]], unloaded: Collection[str]) -> None:
        """Start with these `versions`, and without the models that were unloaded; nothing is loaded yet.

        If all versions of a model are gone from the repository, those that are there now are taken instead.
        """
        entries = {name: {each: Version(name, each) for each in sorted(some)} for name, some in versions.items()}
        try:
            found = scan(self.repository)
        except OSError as error:
            log.warning("repository_unreadable", error=error.strerror)
        else:
            there = _unloaded_versions(self.settings, found)
            gone = [name for name, some in entries.items() if not some.keys() & found.get(name, {}).keys()]
            entries |= {name: there[name] for name in gone if name in there}
        self.models = entries
        self.changes += 1
        self.never_ready = set(entries)
        self.unloaded = set(unloaded)

    async def load_all(self) -> None:
        """Load every version, the default model first; one that fails keeps its error and does not stop the others."""
        names = sorted(self.models, key=lambda name: name != self.default)  # loads wait for each other in this order
        loads: list[Future[None]] = [self._begin(name, self._load_at_start(name)) for name in names]
        if self.has_networks:
            loads.append(self.loaders.submit(prepare, self.settings))
        await asyncio.gather(*loads, return_exceptions=True)
        self.before_ready()
        self.first_load_over = True

    async def loads_over(self) -> None:
        """Wait until no load is in progress."""
        while self.loads:
            await asyncio.wait(self.loads)

    async def close(self) -> None:
        """Cancel all loads; their processes are killed."""
        for load in self.loads:
            load.cancel()
        await self.loads_over()

    def _begin(self, name: str, load: Coroutine[None, None, None]) -> Task[None]:
        """Begin a load of a model as a task, so that it can be cancelled."""
        task = asyncio.create_task(load)
        self.loads[task] = name
        task.add_done_callback(self.loads.pop)
        return task

    async def keep_polling(self, polled: Callable[[], None]) -> None:
        """Poll every `poll_seconds`, if that is set, and call `polled` after each poll."""
        while self.settings.poll_seconds > 0:
            await asyncio.sleep(self.settings.poll_seconds)
            await self.poll()
            polled()

    async def _load_at_start(self, name: str) -> None:
        async with self.locks[name]:
            versions = list(self.models.get(name, ()))
            if versions:  # none if the model has been unloaded meanwhile
                # `adopt` may have been given a version that the worker before was about to retire.
                wanted = chosen_versions(self.settings.versions, versions) or versions
                await self._load_and_retire(name, versions, wanted)

    async def load(self, name: str, versions: Collection[int] = ()) -> None:
        """Load `versions` of a model, by default those that `choose` returns, even if they are loaded already.

        Each replaces its predecessor once it is ready. Raises ModelNotFound if the repository has no such version,
        LoadFailed with the reason if a version cannot be loaded (its predecessor then goes on answering) or if the
        model is unloaded meanwhile, and ShuttingDown. If this is cancelled, the load goes on.
        """
        self.check_open()
        tell(await asyncio.to_thread(refresh, self.settings))
        if not versions:
            await self.choose(name)  # an unknown name must not leave a lock behind
        load = self._begin(name, self._load(name, versions))
        await asyncio.wait([load])
        if load.cancelled():
            raise LoadFailed(f"model {shown(name)} was unloaded while it was loading")
        load.result()

    async def _load(self, name: str, versions: Collection[int]) -> None:
        async with self.locks[name]:
            wanted = versions or await self.choose(name)
            self.unloaded.discard(name)
            await self._load_and_retire(name, wanted, wanted)
            entries = self.models.get(name, {}).values()
            errors = [entry.why_not_ready for entry in entries if entry.version in wanted and entry.error is not None]
        if errors:
            raise LoadFailed("; ".join(errors))

    async def choose(self, name: str) -> list[int]:
        """Return the versions of a model in the repository that the setting `versions` selects, ascending.

        Raises ModelNotFound if there are none, LoadFailed if the repository cannot be read, and ShuttingDown.
        """
        self.check_open()
        found = await self.found(name)
        if wanted := chosen_versions(self.settings.versions, found):
            return wanted
        if not found:
            raise ModelNotFound(f"model {shown(name)} has no version in the repository")
        there = ", ".join(map(str, found))
        raise ModelNotFound(f"model {shown(name)} has the versions {there}, but `versions` is {self.settings.versions}")

    async def found(self, name: str) -> list[int]:
        """Return the versions of a model in the repository, ascending; raises LoadFailed if it cannot be read."""
        try:
            return await asyncio.to_thread(self.repository.versions, name)
        except OSError as error:
            raise LoadFailed(f"model {shown(name)} cannot be read in the repository: {error.strerror}") from error

    async def set_versions(self, name: str, versions: Collection[int]) -> None:
        """Have exactly these versions of a model: load those that are missing, then retire the others; none unloads it.

        Raises LoadFailed if one cannot be loaded; those before then go on answering. Raises ShuttingDown.
        """
        self.check_open()
        if not versions:
            self.forget(name)
            return
        if not set(versions) <= self.models.get(name, {}).keys():
            tell(await asyncio.to_thread(refresh, self.settings))
        load = self._begin(name, self._set_versions(name, versions))
        await asyncio.wait([load])
        load.result()

    async def _set_versions(self, name: str, versions: Collection[int]) -> None:
        async with self.locks[name]:
            entries = self.models.get(name, {})
            due = [each for each in versions if each not in entries or entries[each].model is None]
            await self._load_and_retire(name, due, versions)
            failed = [self.models[name][each].why_not_ready for each in due if self.models[name][each].model is None]
        if failed:
            raise LoadFailed("; ".join(failed))

    async def unload(self, name: str) -> None:
        """Unload a model, and cancel its loads; its requests in progress are still answered. Raises ModelNotFound."""
        self.versions_of(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Unload a model, which may not be loaded yet: the supervisor says so to all workers."""
        self.cancel(name)
        self.models.pop(name, None)
        self.changes += 1
        self.never_ready.discard(name)
        self.unloaded.add(name)
        self.on_unload(name)
        log.info("model_unloaded", model=name)

    def cancel(self, name: str) -> None:
        """Cancel the loads of a model."""
        for load, loaded in self.loads.items():
            if loaded == name:
                load.cancel()

    async def poll(self) -> None:
        """Look for new versions in the repository and begin to load them, without waiting for that.

        A version that failed is loaded again once its files have changed. A model whose folder is gone stays loaded: a
        disk that is unavailable for a moment must not unload it.
        """
        tell(await asyncio.to_thread(refresh, self.settings, self.settings.poll_seconds / 2))
        try:
            found = await asyncio.to_thread(scan, self.repository)
        except OSError as error:
            log.warning("poll_failed", error=error.strerror)
            return
        for name, versions in found.items():
            if name not in self.loads.values() and name not in self.unloaded:  # else the next poll looks at it
                self._poll_model(name, versions)

    def _poll_model(self, name: str, found: Mapping[int, Fingerprint]) -> None:
        wanted = chosen_versions(self.settings.versions, found)
        entries = self.models.get(name, {})
        due = [version for version in wanted if version not in entries or _may_load_now(entries[version], found)]
        if wanted and (due or entries.keys() != set(wanted)):
            self._begin(name, self._load_new(name, due, wanted))

    async def _load_new(self, name: str, due: Collection[int], wanted: Collection[int]) -> None:
        async with self.locks[name]:
            await self._load_and_retire(name, due, wanted)

    async def _load_and_retire(self, name: str, due: Iterable[int], wanted: Collection[int]) -> None:
        """Load the versions that are `due`; once a `wanted` version is ready, retire those that are not wanted."""
        entries = self.models.get(name, {})
        loading = {version: entries.get(version) or Version(name, version) for version in due}
        self.models[name] = dict(sorted((entries | loading).items()))
        await asyncio.gather(*(self._load_version(entry) for entry in loading.values()))
        entries = self.models[name]
        kept = {version: entry for version, entry in entries.items() if version in wanted}
        if any(entry.model is not None for entry in kept.values()):
            self.models[name] = kept
            self.changes += 1
            for version, entry in entries.items():
                if version in kept:
                    continue
                log.info("model_retired", model=name, version=version)
                if entry.model is not None and entry.model.requests.count:
                    self.retired.append(Retired.of(entry.model))

    async def _load_version(self, entry: Version) -> None:
        labels = {"model": entry.name, "version": entry.version}
        entry.error, entry.began = None, monotonic()
        try:
            entry.fingerprint = await asyncio.to_thread(self.repository.fingerprint, entry.name, entry.version)
            verified = await self.processes.verify(entry.name, entry.version)
            model = await self.loaders.submit(LoadedModel.load, entry.name, entry.version, self.settings, verified)
        except asyncio.CancelledError:
            entry.error = "the load was cancelled"
            raise
        except SpikeserveError as error:
            entry.error = str(error)
            log.error("model_failed", **labels, error=entry.error)  # noqa: TRY400  (the sentence says it all)
        except Exception:
            entry.error = "an internal error; the log has its traceback"
            log.exception("model_failed", **labels)
        else:
            entry.model = model
            self.changes += 1
            self.never_ready.discard(entry.name)
            log.info("model_ready", **labels, engine=model.engine.name)
        finally:
            entry.began = None

    def get(self, name: str | None = None, version: str | None = None) -> LoadedModel:
        """Return a loaded model by its name and version, as text; by default the newest version that is ready.

        No name means the default model. Raises ModelNotFound, NotReady and ShuttingDown.
        """
        self.check_open()
        return self.find(name, version)

    def find(self, name: str | None = None, version: str | None = None) -> LoadedModel:
        """Return the same for a request that was accepted already, also while the server drains."""
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
        """Raise NotReady, with a sentence for each version that keeps the server from being ready.

        The server is not ready until every version of the start is loaded or has failed. After that it is not ready
        while no model has a ready version, or, with `strict_readiness`, while a model of the start has never had one. A
        model that is added later does not make the server unready.
        """
        self.check_open()
        if not self.models:
            raise NotReady("no model is loaded")
        every = [entry for entries in self.models.values() for entry in entries.values()]
        loading = [entry for entry in every if entry.state is VersionState.LOADING and not self.first_load_over]
        if unready := loading or self._unready():
            raise NotReady("; ".join(entry.why_not_ready for entry in unready))

    def check_open(self) -> None:
        """Raise ShuttingDown while the server drains."""
        if self.draining:
            raise ShuttingDown("the server is shutting down")

    def _unready(self) -> list[Version]:
        """Return each version of the models without a ready version that keep the server from being ready."""
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
        """Return the state of every model."""
        return [{"name": name, "versions": self.version_statuses(name)} for name in self.models]

    def version_records(self) -> list[VersionRecord]:
        """Return the state of every version, for the metrics."""
        return [
            VersionRecord(
                name,
                each["version"],
                each["state"],
                "error" in each,
                each.get("loading_seconds"),
                self._training_rates(name, each["version"]),
            )
            for name in self.models
            for each in self.version_statuses(name)
        ]

    def _training_rates(self, name: str, version: int) -> Mapping[str, float]:
        """Return the firing rates that training measured; empty for a version that has no loaded model."""
        listed = self.models[name].get(version)
        return {} if listed is None or listed.model is None else listed.model.training_rates

    def version_statuses(self, name: str) -> list[VersionStatus]:
        """Return the state of a model's versions, ascending, with retired ones that have requests in progress."""
        self.retired = [each for each in self.retired if each.requests.count > 0]
        listed = self.models[name]
        draining = {each.version: each for each in self.retired if each.name == name}
        return [each.status() for _, each in sorted((draining | listed).items())]


def scan(repository: ModelRepository) -> dict[str, dict[int, Fingerprint]]:
    """Return the fingerprint of every version in the repository; reading the disk, it takes a while.

    A model whose folder cannot be read is left out and logged. Raises OSError if the repository itself cannot be read.
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
    """Return each version that the setting `versions` selects, not loaded yet, by model and version, ascending."""
    return {
        name: {version: Version(name, version) for version in wanted}
        for name, versions in found.items()
        if (wanted := chosen_versions(settings.versions, versions))
    }


def _is_network(files: Fingerprint) -> bool:
    """Return whether a version is a network of nodes, as far as its files say: an external ONNX model has none."""
    return any(name == File.WEIGHTS for name, _, _ in files)


def _may_load_now(entry: Version, found: Mapping[int, Fingerprint]) -> bool:
    """Return whether a version failed to load and its files have changed since."""
    return entry.state is VersionState.FAILED and entry.fingerprint != found[entry.version]
