"""Logs: one JSON object per line, or text for people: this package's, uvicorn's and those of uncaught exceptions."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from io import TextIOWrapper
from types import TracebackType
from typing import TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json

from spikeserve.service.settings import LogFormat
from spikeserve.service.telemetry import terminal

# Its warnings repeat a client's malformed tracestate, however long that is, so that they are turned off.
QUOTES_CLIENTS = "opentelemetry.trace.span"


def configure(level: str, stream: TextIO, style: LogFormat = "json") -> None:
    """Set up logging for the whole process; only the command line calls this, so that imports have no effect.

    `auto` is text where the stream is a terminal, else JSON. This package's lines are written by structlog directly;
    the standard library's logging takes three times as long.
    """
    is_text = stream.isatty() if style == "auto" else style == "text"
    time = terminal.TIME if is_text else structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared = (structlog.processors.add_log_level, time, structlog.processors.format_exc_info)
    if is_text:
        rendered = terminal.renderer(colours=terminal.wants_colour(stream, os.environ))
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not have every letter
    else:
        rendered = (_as_json,)
    lossy = LossyStream(stream)
    _of_requests.stream = None if is_text or logging.getLevelName(level.upper()) > logging.INFO else lossy
    stream = cast(TextIO, lossy)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(QUOTES_CLIENTS).setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def json_stream() -> LossyStream | None:
    """Return where lines of JSON at the level `info` may be written as they are; None where there are no such lines.

    There are none where the log is text, tells less, or was not configured.
    """
    stream = _of_requests.stream
    return None if stream is None or structlog.get_config()["processors"][-1] is not _as_json else stream


def timestamp() -> str:
    """Return the time as lines of JSON have it."""
    return datetime.now(UTC).isoformat().removesuffix("+00:00") + "Z"


def escaped(line: str) -> str:
    """Return a line of JSON with what is not ASCII escaped, so that any terminal and file takes it."""
    return _encode(json.loads(line)) + "\n"


class LossyStream:
    """A stream that drops lines it cannot write, because its reader has gone (`… | head`) or the disk is full.

    A server must go on answering even if its log cannot be written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write `text`, or drop it."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._drop(error)

    def flush(self) -> None:
        """Flush the stream, or drop what it holds."""
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            # Redirect it to /dev/null, as Python's documentation advises: flushing at exit would fail again otherwise.
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.stream.fileno())
            os.close(devnull)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger().critical("process_failed", exc_info=error)


def _log_uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if issubclass(failed.exc_type, SystemExit):  # a thread that was meant to end
        return
    name = failed.thread.name if failed.thread else None
    structlog.get_logger().error("thread_failed", thread=name, exc_info=failed.exc_value)


class _Requests:
    """Where the lines of requests go; one for the process, as the configuration of the log is."""

    stream: LossyStream | None = None


_of_requests = _Requests()
_encode = json.JSONEncoder(default=repr).encode  # it escapes what is not ASCII, so that any text can be written


def _as_json(_: object, __: str, entry: structlog.typing.EventDict) -> str:
    """Write an entry as JSON: if all of it is ASCII by pydantic's encoder, which takes a third of the time."""
    try:
        line = to_json(entry, fallback=repr).decode()
    except PydanticSerializationError:  # a lone surrogate
        return _encode(entry)
    return line if line.isascii() else _encode(entry)
