"""The files of recordings as bodies, each read in a process of its own, since a damaged one may end it.

That process has limits of time, memory and events. It is given the file in memory and answers in memory. It costs the
start of an interpreter that imports numpy and faery: 0.15 s of a core.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikeserve.models.coding.records import Records, Times, make_records
from spikeserve.models.isolated import Limits, NoAnswer, call
from spikeserve.models.recordings.columns import Column, named, whole_columns
from spikeserve.models.recordings.files import FileFormat, Span, csv_columns, is_readable, read_columns
from spikeserve.models.spec import EventBinning, Origin
from spikeserve.service.errors import MalformedBody, TooLarge, UnsupportedMedia

# Of the clock and of a core; and of addresses, of which the interpreter and its libraries need some 300 MB.
READING = Limits(seconds=20.0, memory=2**30)


def require_reader(kind: FileFormat) -> None:
    """Raise UnsupportedMedia where no file of this format can be read here."""
    if not hasattr(os, "memfd_create"):
        raise UnsupportedMedia(f"the body is a recording ({kind}), but files of events are read on Linux alone")
    if not is_readable(kind):
        raise UnsupportedMedia(
            f"the body is a recording ({kind}), but this server lacks the package faery, which reads it: install the "
            "extra events (./scripts/install events), or send event records or CSV"
        )


def read_file(
    content: bytes, kind: FileFormat, events: EventBinning, steps: int, most: int, limits: Limits = READING
) -> tuple[Times, Records]:
    """Return the times in microseconds and the records of a file's events, both (events,).

    They are those that the first `steps` steps of a model need, and perhaps others. Raises UnsupportedMedia,
    MalformedBody for a damaged file, InvalidInput for events that no record can hold, and TooLarge for a file that
    takes too long, or too much memory, or has more than `most` events.
    """
    require_reader(kind)
    if kind is FileFormat.CSV:
        named(csv_columns(content.partition(b"\n")[0].decode(errors="replace"))[0], "the body")
    span = Span(steps * events.step_us, events.origin is Origin.FIRST_EVENT)
    try:
        columns = call(read_content, content, kind.value, most, span, limits=limits, refused=MalformedBody)
    except TimeoutError as error:
        raise TooLarge(f"the body cannot be read as {kind} within {limits.seconds:g} s") from error
    except MemoryError as error:
        raise TooLarge(f"the body takes more than {limits.memory} bytes of memory to be read as {kind}") from error
    except NoAnswer as error:
        raise MalformedBody(
            f"the body cannot be read as {kind}: the process that read it crashed ({error}); it is damaged, or takes "
            f"more than {limits.memory} bytes of memory"
        ) from error
    if len(next(iter(columns.values()))) > most:
        of = "" if kind is FileFormat.CSV else f" in its {span.microseconds} microseconds that the model takes"
        raise TooLarge(f"the body has more than {most} events{of}")
    return recorded(whole_columns(columns, "the body"))


def recorded(columns: Mapping[str, Column]) -> tuple[Times, Records]:
    """Return the times of events in microseconds, and their records, both (events,); without a polarity all are on."""
    return columns["t"], make_records(
        columns["t"], columns.get("unit", columns.get("x", 0)), columns.get("y", 0), columns.get("p", "y" in columns)
    )


def read_content(content: bytes, kind: str, most: int, span: Mapping[str, Any]) -> dict[str, Any]:
    """Read the columns of a file's content; raises InvalidInput. Another process calls this."""
    memory = os.memfd_create("recording")
    with os.fdopen(memory, "wb", closefd=False) as file:
        file.write(content)
    return read_columns(Path(f"/proc/self/fd/{memory}"), FileFormat(kind), most, Span(**span))
