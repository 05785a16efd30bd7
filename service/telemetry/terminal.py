"""Log lines for people at a terminal: the time, the level, what happened and its fields, in colour if possible."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from textwrap import indent
from typing import TextIO

from structlog.dev import (
    RESET_ALL,
    Column,
    ConsoleRenderer,
    KeyValueColumnFormatter,
    LogLevelColumnFormatter,
    plain_traceback,
)
from structlog.processors import TimeStamper
from structlog.typing import EventDict, Processor

EVENT_WIDTH = 24
TIME = TimeStamper(fmt="%H:%M:%S", utc=False)
TRACEBACKS = ("exception", "stack")
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  (nothing is bound)


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether lines may be coloured: on a terminal that knows colours, unless NO_COLOR is set."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def renderer(*, colours: bool) -> tuple[Processor, ...]:
    """Return the processors that make a line of an entry; what a client or bundle sent in it is escaped."""
    styles = ConsoleRenderer.get_default_column_styles(colours)
    reset = RESET_ALL if colours else ""
    column = partial(KeyValueColumnFormatter, reset_style=reset)
    columns = [
        Column("timestamp", column(None, styles.timestamp, value_repr=str)),
        Column("level", LogLevelColumnFormatter(ConsoleRenderer.get_default_level_styles(colours), reset)),
        Column("event", column(None, styles.bright, value_repr=printable, width=EVENT_WIDTH)),
        Column("meaning", column(None, "", value_repr=printable)),
        Column("", column(styles.kv_key, "", value_repr=_quoted)),
    ]
    console = ConsoleRenderer(columns=columns, sort_keys=False, exception_formatter=plain_traceback)
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
    for name in TRACEBACKS:
        if name in entry:
            lines = str(entry[name]).split("\n")
            entry[name] = indent("\n".join(map(printable, lines)), "    | ")
    return entry
