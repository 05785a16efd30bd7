"""Logs: one JSON object per line, or text for people: this package's, uvicorn's and those of uncaught exceptions."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from textwrap import indent
from types import TracebackType
from typing import ClassVar, TextIO, cast

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

EVENT_WIDTH = 24
COMPACT = (",", ":")
# What is not ASCII is escaped, so that any text can be written.
AS_JSON = JSONRenderer(default=repr, separators=COMPACT)
TIME = TimeStamper(fmt="%H:%M:%S", utc=False)
TRACEBACKS = ("exception", "stack")
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  (nothing is bound)


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether lines may be coloured: on a terminal that knows colours, unless NO_COLOR is set."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def renderer(*, colours: bool) -> tuple[Processor, ...]:
    """Return the processors that make a line of an entry; what a client or bundle sent in it is escaped."""
    console = ConsoleRenderer(EVENT_WIDTH, colours, sort_keys=False, exception_formatter=plain_traceback)
    return _in_words, console


def address(host: str, port: int) -> str:
    """Return where a browser on this machine finds a server that listens there."""
    name = "localhost" if host in EVERY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def printable(value: object) -> str:
    """Return a value as text on one line, without codes that a terminal would obey."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _quoted(value: object) -> str:
    text = printable(value)
    return repr(text) if text == "" or (any(each in text for each in " ='\"") and isinstance(value, str)) else text


def _in_words(_: object, __: str, entry: EventDict) -> EventDict:
    """Say the two most frequent events as people do, and set tracebacks off from the lines of the log."""
    match entry["event"]:
        case "listening":
            entry["event"] = f"listening at {address(entry.pop('host'), entry.pop('port'))}"
        case "request":
            entry["event"] = " ".join(str(entry.pop(name)) for name in ("method", "route", "status"))
            entry["request_id"] = entry.pop("request_id")  # last: it is long
    for name, value in entry.items():
        if name in TRACEBACKS:
            entry[name] = indent("\n".join(map(printable, str(value).split("\n"))), "    | ")
        else:
            entry[name] = printable(value) if name == "event" else _quoted(value)
    return entry


# Its warnings repeat a client's malformed tracestate, however long that is, so that they are turned off.
QUOTES_CLIENTS = "opentelemetry.trace.span"


def configure(level: str, stream: TextIO) -> None:
    """Set up logging for the whole process; only the command line calls this, so that imports have no effect.

    It is text where the stream is a terminal, else JSON. This package's lines are written by structlog directly;
    the standard library's logging takes three times as long.
    """
    is_text = stream.isatty()
    time = TIME if is_text else TimeStamper(fmt="iso", utc=True)
    shared = (structlog.processors.add_log_level, time, structlog.processors.format_exc_info)
    rendered = renderer(colours=wants_colour(stream, os.environ)) if is_text else (AS_JSON,)
    if is_text and isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal may not have every letter
    lossy = LossyStream(stream)
    LossyStream.of_requests = None if is_text or logging.getLevelName(level.upper()) > logging.INFO else lossy
    stream = cast(TextIO, lossy)
    handler = logging.StreamHandler(stream)
    processors = [ProcessorFormatter.remove_processors_meta, *rendered]
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
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


class LossyStream:
    """A stream that drops lines it cannot write, because its reader has gone (`… | head`) or the disk is full.

    A server must go on answering even if its log cannot be written.
    """

    of_requests: ClassVar[LossyStream | None] = None  # one for the process, as the configuration of the log is

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write `text`, or drop it."""
        self._attempt(self.stream.write, text)

    def flush(self) -> None:
        """Flush the stream, or drop what it holds."""
        self._attempt(self.stream.flush)

    def _attempt(self, function: Callable[..., object], *arguments: str) -> None:
        try:
            function(*arguments)
        except BrokenPipeError:
            # Redirect it to /dev/null, as Python's documentation advises: flushing at exit would fail again otherwise.
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.stream.fileno())
            os.close(devnull)
        except OSError:
            pass


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
