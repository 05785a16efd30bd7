"""A stream in this process: the server's own, of one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader

from spikeserve.plugins.local.arrays import CHUNK
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.inference.decoding.pieces import Interpreter
from spikeserve.service.inference.scheduling.query import NOBODY
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.inference.sessions.blob import Blobs
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.inference.sessions.stream import Stream
from spikeserve.service.inference.sessions.table import Places, Sessions
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics


def answer_stream(
    model: LoadedModel,
    options: StreamOptions,
    source: BufferedReader | Iterator[str],
    write: Callable[[Sequence[bytes]], None],
    settings: Settings,
) -> None:
    """Write a line for each window of a stream, once it is closed, and one at the end.

    `source` has event records, or values of float32, as bytes, or yields messages. Raises InvalidInput and
    ServiceError.
    """
    metrics, worker, codec = Metrics(), Threads(1, "worker"), Threads(1, "codec")
    scheduler = Scheduler(worker, (codec, codec), Interpreter(), lambda _, __: None, metrics, settings)
    sessions = Sessions(scheduler, Places(metrics, settings), MemoryBudget(settings.max_pending_bytes), settings)

    async def answer() -> None:
        with worker, codec, sessions.opened(model, options, NOBODY, {}) as opened:
            size = opened.session.windows.record_bytes

            async def receive() -> bytes | str | None:  # there is nobody else whom a read would keep waiting
                if not isinstance(source, BufferedReader):
                    return next(source, None)
                content = source.read1(max(size, CHUNK))
                return content + source.read(-len(content) % size) or None

            async def send(lines: Sequence[bytes]) -> None:
                write(lines)

            await Stream(opened, sessions, Blobs(b""), send).answer(receive)

    with asyncio.Runner() as runner:  # whose own `run` keeps Ctrl-C from ending a read
        runner.get_loop().run_until_complete(answer())
