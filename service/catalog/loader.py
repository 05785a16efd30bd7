"""The loader: loads and unloads versions, at the start, by a poll of the repository, or because an admin asks.

A version is verified in a process of its own (`service.catalog.load_process`), within bounds of time and memory, and
loaded by this process once that has succeeded. Each load is a task: those of one model wait for each other, and for
those of no other model. Unloading a model cancels its loads, which kills their processes.

Only the event loop changes the catalog; disk access, and loading what was verified, run on threads.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import InitVar, dataclass
from functools import partial
from threading import Event
from time import monotonic

import structlog

from spikeserve.models.bundle.repository import Fingerprint, ModelRepository, shipped_names
from spikeserve.models.engines.compiling import FUNCTIONS
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.catalog import Catalog, Models, Version, VersionState
from spikeserve.service.catalog.load_process import LoadProcesses
from spikeserve.service.catalog.loaded import LoadedModel, Verification, repository_of
from spikeserve.service.catalog.mirror import RefreshResult, refresh, tell
from spikeserve.service.catalog.readiness import Readiness
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.errors import EngineFailed, LoadFailed, Misconfigured, ModelNotFound, shown
from spikeserve.service.settings import Settings, chosen_versions

log = structlog.get_logger()

Versions = Mapping[str, Mapping[int, Fingerprint]]  # the versions in the repository, by model and version


@dataclass(frozen=True)
class Listing:
    """What the repository held at the start: the fingerprint of each version, and its default model."""

    versions: Versions
    default: str | None
    copied: RefreshResult  # of a repository elsewhere; who configures the log tells it

    @classmethod
    def of(cls, settings: Settings) -> Listing:
        """Scan the repository, without loading anything; raises Misconfigured if there is nothing to serve."""
        repository = ModelRepository(settings.folder)
        copied = refresh(settings)
        try:
            versions = scan(repository)
            of_repository = repository.default()
        except OSError as error:
            raise Misconfigured(f"repository: '{settings.repository}' cannot be read: {error.strerror}") from error
        if not versions:
            raise Misconfigured(
                copied.failed
                or f"repository: '{settings.repository}' holds no model, expected <name>/<version>/ with a bundle.json"
            )
        only = next(iter(versions)) if len(versions) == 1 else None
        default = settings.default_model or (of_repository if of_repository in versions else only)
        if default is not None and default not in versions:
            raise Misconfigured(f"default_model: '{default}' is not in the repository; it holds: {', '.join(versions)}")
        if not unloaded_versions(settings, versions):
            raise Misconfigured(f"versions: no model in the repository has one of {settings.versions}")
        return cls(versions, default, copied)


@dataclass(eq=False)
class Loader:
    """Loads and unloads the versions of a catalog, and tells what keeps the server from being ready."""

    settings: Settings
    listing: InitVar[Listing]
    catalog: Catalog
    readiness: Readiness
    threads: Threads  # on which versions that were verified are loaded
    processes: LoadProcesses
    on_load: Callable[[LoadedModel], object]  # gets each version whose kernels are compiled, on its thread
    on_unload: Callable[[str], None]  # gets the name of a model that is unloaded
    before_ready: Callable[[], None]  # is called once the first load is over, and once another engine has taken over

    def __post_init__(self, listing: Listing) -> None:
        self.copied = listing.copied
        self.repository = repository_of(self.settings)
        if self.settings.gallery:  # as if they had been unloaded: they are listed so, and can be loaded
            self.catalog.unloaded |= set(shipped_names()) - listing.versions.keys()
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.compiled = asyncio.Event()  # set once no kernels are waited for any more
        self.loads: dict[Task[None], str] = {}  # the loads in progress or waiting, and the model of each

    def adopt(self, versions: Mapping[str, Iterable[int]], unloaded: Collection[str]) -> None:
        """Start with these `versions`, and without the models that were unloaded; nothing is loaded yet.

        If all versions of a model are gone from the repository, those that are there now are taken instead.
        """
        entries = {name: {each: Version(name, each) for each in sorted(some)} for name, some in versions.items()}
        try:
            listed = scan(self.repository)
        except OSError as error:
            log.warning("repository_unreadable", error=error.strerror)
        else:
            gone = [name for name, some in entries.items() if not some.keys() & listed.get(name, {}).keys()]
            entries |= unloaded_versions(self.settings, {name: listed[name] for name in gone if name in listed})
        self.catalog.adopt(entries, unloaded)
        self.readiness.awaited = set(entries)

    async def load_all(self) -> None:
        """Load every version, the default model first; one that fails keeps its error and does not stop the others."""
        # Loads wait for each other in this order.
        names = sorted(self.catalog.models, key=lambda name: name != self.catalog.default)
        await asyncio.gather(*(self._begin(name, self._load_at_start) for name in names), return_exceptions=True)
        self.before_ready()
        self.readiness.first_load_over = True

    async def take_over(self) -> None:
        """Once kernels are compiled that other engines stand in for, load what they run again, on the best engine."""
        if (compiler := self.processes.compiler) is None:
            return
        stop = Event()
        try:
            tell = partial(log.info, "compiling_kernels", of=FUNCTIONS)
            compiled = await asyncio.to_thread(compiler.wait, stop, lambda done: tell(done=done))
        finally:
            stop.set()
        if compiled:
            self.processes = LoadProcesses(self.settings, self.processes.prepare_engine, waits=True)
        else:
            log.error("kernels_not_compiled", tries=compiler.started, meaning="answers go on by another engine")
            self.processes.compiler = None
            for entry in self.catalog.every_version():
                entry.compiling = False
        self.compiled.set()
        loads = [self._begin(name, self._load_again) for name in self.catalog.models if compiled]
        await asyncio.gather(*loads, return_exceptions=True)
        self.before_ready()  # once more, since the other engine's imports are many

    async def _load_again(self, name: str) -> None:
        entries = self.catalog.models.get(name, {})
        await self._load_and_retire(name, [each for each in entries if entries[each].compiling], list(entries))

    async def loads_over(self) -> None:
        """Wait until no load is in progress."""
        while self.loads:
            await asyncio.wait(self.loads)

    async def close(self) -> None:
        """Cancel all loads; their processes are killed."""
        for load in self.loads:
            load.cancel()
        await self.loads_over()

    def _begin(self, name: str, load: Callable[..., Awaitable[None]], *arguments: object) -> Task[None]:
        """Begin a load of a model, after its earlier ones, as a task that can be cancelled."""

        async def in_turn() -> None:
            async with self.locks[name]:
                await load(name, *arguments)

        task = asyncio.create_task(in_turn())
        self.loads[task] = name
        task.add_done_callback(self.loads.pop)
        return task

    async def _finish(self, name: str, load: Task[None]) -> None:
        """Wait for a load, which goes on if this is cancelled; raises its error, LoadFailed if it was cancelled."""
        await asyncio.wait([load])
        if load.cancelled():
            raise LoadFailed(f"model {shown(name)} was unloaded while it was loading")
        load.result()

    async def keep_polling(self, polled: Callable[[], None]) -> None:
        """Poll every `poll_seconds`, if that is set, and call `polled` after each poll."""
        while self.settings.poll_seconds > 0:
            await asyncio.sleep(self.settings.poll_seconds)
            await self.poll()
            polled()

    async def _load_at_start(self, name: str) -> None:
        if versions := list(self.catalog.models.get(name, ())):  # none if the model has been unloaded meanwhile
            # `adopt` may have been given a version that the worker before was about to retire.
            chosen = chosen_versions(self.settings.versions, versions) or versions
            await self._load_and_retire(name, versions, chosen)

    async def load(self, name: str, versions: Collection[int] = ()) -> None:
        """Load `versions` of a model, by default those that `look` returns, even if they are loaded already.

        Each replaces its predecessor once it is ready. Raises ModelNotFound if the repository has no such version,
        LoadFailed with the reason if a version cannot be loaded (its predecessor then goes on answering) or if the
        model is unloaded meanwhile, and ShuttingDown. If this is cancelled, the load goes on.
        """
        self.catalog.check_open()
        versions = versions or await self.look(name)
        await self._finish(name, self._begin(name, self._load, versions, versions))

    async def _load(self, name: str, due: Collection[int], chosen: Collection[int]) -> None:
        self.catalog.unloaded.discard(name)
        await self._load_and_retire(name, due, chosen)
        entries = self.catalog.models.get(name, {}).values()
        if errors := [entry.why_not_ready for entry in entries if entry.version in due and entry.error is not None]:
            raise LoadFailed("; ".join(errors))

    async def look(self, name: str) -> list[int]:
        """Choose after copies of a repository that is elsewhere were brought up to date; see `choose`."""
        tell(await asyncio.to_thread(refresh, self.settings))
        return await self.choose(name)

    async def choose(self, name: str) -> list[int]:
        """Return the versions of a model in the repository that the setting `versions` selects, ascending.

        Raises ModelNotFound if there are none, LoadFailed if the repository cannot be read, and ShuttingDown.
        """
        self.catalog.check_open()
        versions = await self.versions_of(name)
        if chosen := chosen_versions(self.settings.versions, versions):
            return chosen
        if not versions:
            raise ModelNotFound(f"model {shown(name)} has no version in the repository")
        there = ", ".join(map(str, versions))
        raise ModelNotFound(f"model {shown(name)} has the versions {there}, but `versions` is {self.settings.versions}")

    async def versions_of(self, name: str) -> list[int]:
        """Return the versions of a model in the repository, ascending; raises LoadFailed if it cannot be read."""
        try:
            return await asyncio.to_thread(self.repository.versions, name)
        except OSError as error:
            raise LoadFailed(f"model {shown(name)} cannot be read in the repository: {error.strerror}") from error

    async def set_versions(self, name: str, versions: Collection[int]) -> None:
        """Have exactly these versions of a model: load those that are missing, then retire the others; none unloads it.

        Raises LoadFailed if one cannot be loaded, those before then go on answering, or if the model is unloaded
        meanwhile, and ShuttingDown.
        """
        self.catalog.check_open()
        if not versions:
            self.forget(name)
            return
        if not set(versions) <= self.catalog.models.get(name, {}).keys():
            tell(await asyncio.to_thread(refresh, self.settings))
        await self._finish(name, self._begin(name, self._set_versions, versions))

    async def _set_versions(self, name: str, versions: Collection[int]) -> None:
        entries = self.catalog.models.get(name, {})
        due = [each for each in versions if each not in entries or entries[each].model is None]
        await self._load(name, due, versions)

    async def unload(self, name: str) -> None:
        """Unload a model, and cancel its loads; its requests in progress are still answered. Raises ModelNotFound."""
        self.catalog.versions_of(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Unload a model, which may not be loaded yet: the supervisor says so to all workers."""
        self.cancel(name)
        self.catalog.remove(name)
        self.readiness.awaited.discard(name)
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
            listed = await asyncio.to_thread(scan, self.repository)
        except OSError as error:
            log.warning("poll_failed", error=error.strerror)
            return
        for name, versions in listed.items():
            if name not in self.loads.values() and name not in self.catalog.unloaded:  # else the next poll looks at it
                self._poll_model(name, versions)

    def _poll_model(self, name: str, fingerprints: Mapping[int, Fingerprint]) -> None:
        chosen = chosen_versions(self.settings.versions, fingerprints)
        entries = self.catalog.models.get(name, {})
        due = [version for version in chosen if version not in entries or _may_load_now(entries[version], fingerprints)]
        if chosen and (due or entries.keys() != set(chosen)):
            self._begin(name, self._load_and_retire, due, chosen)

    async def _load_and_retire(self, name: str, due: Iterable[int], chosen: Collection[int]) -> None:
        """Load the versions that are `due`; once a `chosen` one is ready, retire those that are not chosen."""
        entries = self.catalog.models.get(name, {})
        loading = {version: entries.get(version) or Version(name, version) for version in due}
        self.catalog.add(name, loading)
        await asyncio.gather(*(self._load_version(entry) for entry in loading.values()))
        self.catalog.keep(name, chosen)

    async def _load_version(self, entry: Version) -> None:
        labels = {"model": entry.name, "version": entry.version}
        entry.error, entry.began, entry.compiling = None, monotonic(), False
        try:
            processes, verified = await self._verify_now_or_compiled(entry)
            model = await self.threads.submit(self._load_verified, entry, verified, processes)
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
            self.catalog.set_ready(entry, model)
            entry.compiling = processes.compiler is not None
            self.readiness.awaited.discard(entry.name)
            log.info("model_ready", **labels, engine=model.engine.name)
        finally:
            entry.began = None

    def _load_verified(self, entry: Version, verified: Verification, processes: LoadProcesses) -> LoadedModel:
        model = LoadedModel.load(entry.name, entry.version, self.settings, verified)
        if processes.compiler is None:
            self.on_load(model)
        return model

    async def _verify_now_or_compiled(self, entry: Version) -> tuple[LoadProcesses, Verification]:
        """Verify a version and return by whom; waits for kernels only where no engine that is ready can run it."""
        if self.processes.compiler is not None:
            with suppress(EngineFailed):
                return self.processes, await self._verify(entry, self.processes)
            await self.compiled.wait()
        return self.processes, await self._verify(entry, self.processes)

    async def _verify(self, entry: Version, processes: LoadProcesses) -> Verification:
        """Verify a version, and once more if its copy was damaged and has been made again."""
        name, version = entry.name, entry.version
        entry.fingerprint = await asyncio.to_thread(self.repository.fingerprint, name, version)
        try:
            return await processes.verify(name, version)
        except LoadFailed:
            before = entry.fingerprint
            tell(await asyncio.to_thread(refresh, self.settings, doubted=(name, version)))
            entry.fingerprint = await asyncio.to_thread(self.repository.fingerprint, name, version)
            if entry.fingerprint == before:
                raise
        return await processes.verify(name, version)


def scan(repository: ModelRepository) -> dict[str, dict[int, Fingerprint]]:
    """Return the fingerprint of every version in the repository; reading the disk, it takes a while.

    A model whose folder cannot be read is left out and logged. Raises OSError if the repository itself cannot be read.
    """
    fingerprints: dict[str, dict[int, Fingerprint]] = {}
    for name in repository.names():
        try:
            versions = repository.versions(name)
        except OSError as error:
            log.warning("model_unreadable", model=name, error=error.strerror)
            continue
        fingerprints[name] = {version: repository.fingerprint(name, version) for version in versions}
    return fingerprints


def unloaded_versions(settings: Settings, listed: Versions) -> Models:
    """Return each version that the setting `versions` selects, not loaded yet, by model and version, ascending."""
    return {
        name: {version: Version(name, version) for version in chosen}
        for name, versions in listed.items()
        if (chosen := chosen_versions(settings.versions, versions))
    }


def _may_load_now(entry: Version, fingerprints: Mapping[int, Fingerprint]) -> bool:
    """Return whether a version failed to load and its files have changed since."""
    return entry.state is VersionState.FAILED and entry.fingerprint != fingerprints[entry.version]
