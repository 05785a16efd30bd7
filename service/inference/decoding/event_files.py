"""The files of recordings: which format one has, by how it begins, and how it is read in a process of its own.

That process has limits of time, memory and events. It is given the file in memory and answers in memory, so that
nothing is written to a disk. It costs the start of an interpreter that imports numpy and faery: 0.15 s of a core.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.columns import FIELDS, from_columns, named
from spikeserve.models.coding.records import Records, Times
from spikeserve.models.isolated import command, environment
from spikeserve.models.spec import EventBinning, Origin
from spikeserve.service.errors import MalformedBody, TooLarge, UnsupportedMedia
from spikeserve.service.inference.decoding.event_reader import DAMAGED, ReadRequest

HEAD_BYTES = 2**12  # of a file that are looked at: the headers of EVT and DAT are some hundreds
SEPARATORS = (",", ";", "\t")

_LINES = re.compile(rb"(?:%[ -~\t]*\r?\n)+")  # the header of EVT and of DAT
_IS_EVT = re.compile(rb"^% *(?:evt |format +evt)", re.IGNORECASE | re.MULTILINE)
_TEXT = re.compile(rb"[ -~\t]*\r?\n")


class FileFormat(StrEnum):
    """A format of recordings; its value is what people call it."""

    AEDAT = "AEDAT"
    EVT = "EVT"
    DAT = "DAT"
    ES = "ES"
    CSV = "CSV"


def file_format(content: bytes) -> FileFormat | None:
    """Return the format of a recording by its first bytes, or None for anything else."""
    if content.startswith(b"#!AER-DAT"):
        return FileFormat.AEDAT
    if content.startswith(b"Event Stream"):
        return FileFormat.ES
    if header := _LINES.match(content, 0, HEAD_BYTES):
        return FileFormat.EVT if _IS_EVT.search(header[0]) else FileFormat.DAT
    return FileFormat.CSV if column_names(content)[0] else None


def column_names(content: bytes) -> tuple[list[str], str]:
    """Return the names in the first line of a CSV, of which one is that of a time, and their separator.

    There are no names where it does not begin with such a line.
    """
    line = _TEXT.match(content, 0, HEAD_BYTES)
    text = line[0].decode().strip() if line else ""
    separator = next((each for each in SEPARATORS if each in text), ",")
    names = [name.strip().strip('"').partition("@")[0] for name in text.split(separator)]
    return (names, separator) if len(names) > 1 and {*map(str.lower, names)} & {*FIELDS["t"]} else ([], separator)


SECONDS = 20.0  # that reading one file may take, on a machine that has other work
FAERY_FIELDS = ("t", "x", "y", "p")


def require_reader(kind: FileFormat) -> None:
    """Raise UnsupportedMedia where no file of this format can be read here."""
    if not hasattr(os, "memfd_create"):
        raise UnsupportedMedia(f"the body is a recording ({kind}), but files of events are read on Linux alone")
    if kind is not FileFormat.CSV and find_spec("faery") is None:
        raise UnsupportedMedia(
            f"the body is a recording ({kind}), but this server lacks the package faery, which reads it: install the "
            "extra events (./scripts/install events), or send event records or CSV"
        )


def read_file(content: bytes, kind: FileFormat, events: EventBinning, steps: int, most: int) -> tuple[Times, Records]:
    """Return the times in microseconds and the records of a file's events, both (events,).

    They are those that the first `steps` steps of a model need, and perhaps others. Raises UnsupportedMedia,
    MalformedBody for a damaged file, InvalidInput for events that no record can hold, and TooLarge for a file that
    takes too long, or too much memory, or has more than `most` events.
    """
    require_reader(kind)
    wanted = ReadRequest(kind.value, steps * events.step_us, events.origin is Origin.FIRST_EVENT, most)
    fields: Sequence[str] = FAERY_FIELDS
    if kind is FileFormat.CSV:
        names, separator = column_names(content)
        columns = named(names, "the body")
        fields, wanted = tuple(columns), ReadRequest(
            kind.value, wanted.microseconds, wanted.from_first, most, separator, tuple(columns.values())
        )  # fmt: skip
    return from_columns(dict(zip(fields, read_columns(content, wanted), strict=True)), "the body")


def read_columns(content: bytes, wanted: ReadRequest, seconds: float = SECONDS) -> list[NDArray[Any]]:
    """Return the columns that the process reads, as `ReadRequest.types` has them; raises MalformedBody and TooLarge."""
    source, answer = os.memfd_create("recording"), os.memfd_create("events")
    try:
        with os.fdopen(source, "wb", closefd=False) as file:
            file.write(content)
        question = json.dumps({"source": source, "answer": answer, **asdict(wanted)})
        try:
            status = subprocess.run(  # noqa: S603
                command("spikeserve.service.inference.decoding.event_reader", question),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(source, answer),
                start_new_session=True,  # a signal to the group of this process must not end it
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise TooLarge(f"the body cannot be read as {wanted.format} within {seconds:g} s") from error
        if status == -signal.SIGXCPU:
            raise TooLarge(f"the body cannot be read as {wanted.format} within {wanted.cpu_seconds} s of a core's time")
        if status != 0:
            how = f"crashed ({signal.strsignal(-status)})" if status < 0 else f"ended with exit status {status}"
            raise MalformedBody(
                f"the body cannot be read as {wanted.format}: the process that read it {how}; it is damaged, or takes "
                f"more than {wanted.memory} bytes of memory"
            )
        return _answer(os.pread(answer, os.fstat(answer).st_size, 0), wanted)
    finally:
        os.close(source)
        os.close(answer)


def _answer(content: bytes, wanted: ReadRequest) -> list[NDArray[Any]]:
    line, _, rest = content.partition(b"\n")
    said = json.loads(line)
    if "refused" in said:
        raise (MalformedBody if said["refused"] == DAMAGED else TooLarge)(said["sentence"])
    columns: list[NDArray[Any]] = []
    at = 0
    for kind in wanted.types:
        column: NDArray[Any] = np.frombuffer(rest, kind, said["events"], at)
        at += column.nbytes
        columns.append(column)
    return columns
