"""What the workers of a server do as one: load and unload models, and tell what all of them have counted.

A change is made by every worker before it is answered, and all make changes in the same order: whoever was asked takes
its turn. Where a worker is silent, nothing is changed, and one that falls silent is not waited for. A worker joins in a
turn too, and begins with what its fellows serve, so that none misses a change and the one in the place of another
serves what that one did. Requests for a model are each worker's own. So are /models, the repository's index and
readiness: they tell of the worker that is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import structlog
from pydantic import BaseModel, Field, TypeAdapter

from models.errors import SpikeserveError
from service.errors import LoadFailed, NotReady, shown
from service.http.control import LocalControl
from service.process.fellows import Fellows
from service.telemetry.metrics.exposition import merged
from service.telemetry.v2_statistics import Statistics, VersionSums, model_statistics

TELL_SECONDS = 1.0  # how long a fellow may take to tell what it knows; it takes milliseconds
LOOK_SECONDS = 1.0  # how often to look whether those that are waited for are still alive
ALIVE_SECONDS = 5.0  # how long one may take to give a sign of life
LOADING_SECONDS = 10.0  # and how long while it loads, since libraries let nothing else run for moments of that
UNLOAD_SECONDS = 30.0  # how long it may take to unload a model, which waits for a load of it that has begun
JOIN_SECONDS = 10.0  # how long it may take to tell who joins; without an answer, one begins with what lies on the disk

log = structlog.get_logger()

T = TypeVar("T")


class Silent(NotReady):
    """Workers that give no sign of life."""


class Load(BaseModel):
    """Load a model's versions."""

    ask: Literal["load"] = "load"
    name: str


class Unload(BaseModel):
    """Serve a model no more."""

    ask: Literal["unload"] = "unload"
    name: str


class TellServed(BaseModel):
    """Tell what is served."""

    ask: Literal["served"] = "served"


class TellMetrics(BaseModel):
    """Tell the metrics."""

    ask: Literal["metrics"] = "metrics"


class TellStats(BaseModel):
    """Tell the statistics of some versions, (name, version) each."""

    ask: Literal["stats"] = "stats"
    versions: list[tuple[str, int]]


Question: TypeAlias = Load | Unload | TellServed | TellMetrics | TellStats
QUESTION = TypeAdapter[Question](Annotated[Question, Field(discriminator="ask")])


class Done(BaseModel):
    """That a change was made, or why not."""

    fault: str | None = None


class Served(BaseModel):
    """The versions that there are by model, and the models that were unloaded."""

    versions: dict[str, list[int]]
    unloaded: list[str]


class ToldMetrics(BaseModel):
    """Metrics, in Prometheus' text format."""

    metrics: str


class ToldStats(BaseModel):
    """Statistics, in the order that was asked for."""

    versions: list[VersionSums]


class Together:
    """One of the workers, with its fellows."""

    def __init__(self, fellows: Fellows, local: LocalControl) -> None:
        self.fellows = fellows
        self.local = local
        self.registry = local.registry
        self.joined = asyncio.Event()

    async def join(self) -> None:
        """Answer fellows from now on, and have the registry hold what they serve, if there are any yet.

        Where a fellow is silent it may be that it has the turn: who joins does so without, rather than never. Where
        their folder is gone, it begins with what lies on the disk, and meets them later (`stay`).
        """
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._turn(stack, ", so its turn is not waited for")
                except Silent as error:
                    log.warning("joined_out_of_turn", error=str(error))
                await self.fellows.listen(self._answer)
                for served in (await self.fellows.ask(TellServed(), Served, JOIN_SECONDS))[:1]:
                    self.registry.adopt(served.versions, served.unloaded)
        except (OSError, NotReady) as error:
            log.warning("not_joined", error=str(error))
        self.joined.set()

    async def stay(self) -> None:
        """Go on answering fellows, whatever becomes of the folder that they meet in."""
        await self.joined.wait()
        await self.fellows.stay(self._answer)

    def leave(self) -> None:
        """Answer fellows no more."""
        self.joined = asyncio.Event()  # of the event loop that the next start brings
        self.fellows.leave()

    async def load(self, name: str) -> None:
        """Have every worker load a model's versions, as the registry does; it may take long, and is waited for.

        Raises what the registry raises, LoadFailed where a fellow could not load them, and Silent.
        """
        async with self._change():
            loading = self.fellows.ask(Load(name=name), Done)
            otherwise = f" and may not have loaded model {shown(name)}"
            asked = asyncio.create_task(self._while_alive(loading, LOADING_SECONDS, otherwise))
            try:
                await self.registry.load(name)
            except asyncio.CancelledError:
                asked.cancel()
                raise
            finally:
                done = await asked
        faults = {each.fault: None for each in done if each.fault is not None}
        if faults:
            raise LoadFailed("; ".join(faults))

    async def unload(self, name: str) -> None:
        """Have no worker serve a model any more. Raises ModelNotFound and Silent."""
        async with self._change():
            await self.registry.unload(name)
            if silent := await self.fellows.silent(Unload(name=name), UNLOAD_SECONDS):
                raise Silent(f"{_named(silent)} not answer and may still serve model {shown(name)}")

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """Wait for the turn to change something; raises Silent where a fellow gives no sign of life."""
        unchanged = ", so nothing is changed"
        await self.joined.wait()
        async with AsyncExitStack() as stack:
            await self._turn(stack, unchanged)
            await self._check_alive(ALIVE_SECONDS, unchanged)
            yield

    async def _turn(self, stack: AsyncExitStack, otherwise: str) -> None:
        """Wait for the turn, and keep it up to the end of `stack`; raises Silent where a fellow is, who may have it."""
        await self._while_alive(stack.enter_async_context(self.fellows.turn()), ALIVE_SECONDS, otherwise)

    async def _while_alive(self, waiting: Coroutine[Any, Any, T], seconds: float, otherwise: str) -> T:
        """Wait for something for as long as no fellow is silent for `seconds`; raises Silent where one is."""
        task = asyncio.create_task(waiting)
        try:
            while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
                await self._check_alive(seconds, otherwise)
            return task.result()
        finally:
            task.cancel()

    async def _check_alive(self, seconds: float, otherwise: str) -> None:
        if silent := await self.fellows.silent(TellServed(), seconds):
            raise Silent(f"{_named(silent)} not answer{otherwise}")

    def check_ready(self) -> None:
        """Raise NotReady or ShuttingDown as this worker alone does."""
        self.local.check_ready()

    def _exposition(self) -> str:
        versions = self.registry.version_records()
        return self.local.metrics.exposition(versions, ready=self.local.is_ready(), labels=self.fellows.labels)

    async def exposition(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format, each worker's under its number."""
        texts = [self._exposition()]
        texts += [each.metrics for each in await self.fellows.ask(TellMetrics(), ToldMetrics, TELL_SECONDS)]
        return merged(texts).encode()

    async def statistics(self, versions: Iterable[tuple[str, int]]) -> Statistics:
        """Return the statistics of `versions`, (name, version) each, summed over all workers."""
        keys = list(versions)
        sums = [self.local.infer_statistics.sums_of(keys)]
        sums += [each.versions for each in await self.fellows.ask(TellStats(versions=keys), ToldStats, TELL_SECONDS)]
        return model_statistics(keys, map(VersionSums.summed, zip(*sums, strict=True)))

    async def _answer(self, line: bytes) -> BaseModel:
        match question := QUESTION.validate_json(line):
            case Load():
                return await self._load(question.name)
            case Unload():
                await self.registry.forget(question.name)
                return Done()
            case TellServed():
                versions = {name: list(slots) for name, slots in self.registry.models.items()}
                return Served(versions=versions, unloaded=sorted(self.registry.unloaded))
            case TellMetrics():
                return ToldMetrics(metrics=self._exposition())
            case TellStats():
                return ToldStats(versions=self.local.infer_statistics.sums_of(question.versions))

    async def _load(self, name: str) -> Done:
        try:
            await self.registry.load(name)
        except SpikeserveError as error:
            return Done(fault=str(error))
        except Exception:
            log.exception("load_failed", model=name)
            return Done(fault=f"model {shown(name)} could not be loaded: an internal error; the log has its traceback")
        return Done()


def _named(workers: Sequence[int]) -> str:
    return f"worker {workers[0]} does" if len(workers) == 1 else f"workers {', '.join(map(str, workers))} do"
