"""Structured logs: one JSON object per line, from this package and from uvicorn alike, and of what nobody caught."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from types import TracebackType
from typing import TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json

SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)

QUOTES_CLIENTS = "opentelemetry.trace.span"  # warns of a tracestate that is none, and repeats it however long it is


def configure(level: str, stream: TextIO) -> None:
    """Set up logging for the whole process; only the command line does, so that importing this package does not.

    This package writes its lines itself: through the standard library's logging each would take three times as long.
    """
    stream = cast(TextIO, Expendable(stream))
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _as_json],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(QUOTES_CLIENTS).setLevel(logging.ERROR)
    structlog.configure(
        processors=[*SHARED, _as_json],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class Expendable:
    """A stream whose lines are lost where nobody reads them (`… | head`) or the disk is full: answers matter more."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write what can be written."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._lose(error)

    def flush(self) -> None:
        """Send what can be sent."""
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            # For good, as Python's documentation has it: what is held back would else fail once more at the end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger().critical("process_failed", exc_info=error)


def _log_uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if issubclass(failed.exc_type, SystemExit):  # an end that was meant
        return
    name = failed.thread.name if failed.thread else None
    structlog.get_logger().error("thread_failed", thread=name, exc_info=failed.exc_value)


_encode = json.JSONEncoder(default=repr).encode  # made once; what is not ASCII is escaped, so that no text can fail


def _as_json(_: object, __: str, entry: structlog.typing.EventDict) -> str:
    """Write an entry as JSON: by pydantic's encoder, which takes a third of the time, where all of it is ASCII."""
    try:
        line = to_json(entry, fallback=repr).decode()
    except PydanticSerializationError:  # half a surrogate pair
        return _encode(entry)
    return line if line.isascii() else _encode(entry)
