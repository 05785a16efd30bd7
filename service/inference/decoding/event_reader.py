"""Read one recording in a process of its own: `python -m spikeserve.service.inference.decoding.event_reader QUESTION`.

The package faery, which reads the binary formats, trusts a file: a damaged one can end the process that reads it. So
this module imports little, and the process starts soon.

The question is JSON: `source` and `answer`, the descriptors of the recording and of an empty file, and the fields of
`ReadRequest`. The answer is a line of JSON, {"refused": why, "sentence": text} or {"events": n}, and then each column
of the n events, as bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CPU_SECONDS = 5  # that reading one file may take: several times what the largest body takes
MEMORY_BYTES = 2**29  # beside what the process has at its start: 32 times the largest body
FIRST_LINE_BYTES = 2**12  # of the answer
MAX_FAULT = 200  # characters of what a library says
CSV = "CSV"
DAMAGED, LARGE = "damaged", "large"  # why a recording is refused
UNKNOWN_SIZE = (2**16 - 1, 2**16 - 1)  # of a sensor whose file does not say it: it is checked against the model's

# The columns of what faery reads; those of a CSV are float64.
COLUMNS = {"t": "<i8", "x": "<u2", "y": "<u2", "on": "|u1"}
FLOAT = "<f8"
FAERY_NAMES = {"AEDAT": "aedat", "EVT": "evt", "DAT": "dat", "ES": "es"}


@dataclass(frozen=True)
class ReadRequest:
    """What is wanted of a recording in a format: its first microseconds, and at most so many events.

    They are counted from its first event, or from time 0. Of a CSV, `separator` and the places of the columns are known
    already, and all of it is read. `memory` bytes and `cpu_seconds` are what the process may take.
    """

    format: str
    microseconds: int
    from_first: bool
    most: int
    separator: str = ","
    places: Sequence[int] = ()
    memory: int = MEMORY_BYTES
    cpu_seconds: int = CPU_SECONDS

    @property
    def types(self) -> list[str]:
        """The types of the columns, in order."""
        return [FLOAT for _ in self.places] if self.format == CSV else list(COLUMNS.values())


class Refused(Exception):
    """A recording that is not read, and why."""

    def __init__(self, why: str, sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


def main(question: str) -> None:
    """Read the recording and write the answer."""
    asked = json.loads(question)
    source, answer = asked.pop("source"), asked.pop("answer")
    wanted = ReadRequest(**asked)
    _limit(wanted)
    read = _csv if wanted.format == CSV else _with_faery
    columns: list[NDArray[Any]] = []
    try:
        columns = read(f"/proc/self/fd/{source}", wanted)
        said: dict[str, Any] = {"events": len(columns[0])}
    except Refused as error:
        said = {"refused": error.why, "sentence": str(error)}
    except MemoryError:
        sentence = f"the body takes more than {wanted.memory} bytes of memory to be read as {wanted.format}"
        said = {"refused": LARGE, "sentence": sentence}
    with os.fdopen(answer, "wb", closefd=False) as file:
        file.write(json.dumps(said).encode() + b"\n")
        for column in columns:
            file.write(column.tobytes())


def _limit(wanted: ReadRequest) -> None:
    """Limit what this process may take beside what it has already."""
    mapped = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
    answer = FIRST_LINE_BYTES + wanted.most * sum(np.dtype(kind).itemsize for kind in wanted.types)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + wanted.memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted.cpu_seconds, wanted.cpu_seconds + 1))  # first SIGXCPU, then SIGKILL
    resource.setrlimit(resource.RLIMIT_FSIZE, (answer,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _with_faery(path: str, wanted: ReadRequest) -> list[NDArray[Any]]:
    from faery.file_decoder import Decoder  # imported in this process alone, since it is optional

    name = FAERY_NAMES[wanted.format]
    try:
        decoder = Decoder(path, file_type=name, dimensions_fallback=UNKNOWN_SIZE, time_range_cache=None)
        packets = list(_kept(decoder, wanted))
    except (MemoryError, Refused):
        raise
    except BaseException as error:  # a panic of Rust's is not an Exception
        said = _said(error).replace(path, "it")
        raise Refused(DAMAGED, f"the body cannot be read as {wanted.format}: {said}") from error
    return [
        np.concatenate([np.empty(0, kind), *(packet[name].astype(kind) for packet in packets)])
        for name, kind in COLUMNS.items()
    ]


def _kept(packets: Iterator[NDArray[Any]], wanted: ReadRequest) -> Iterator[NDArray[Any]]:
    """Yield the events of the time that is wanted, from the first packet's earliest event or from 0 on.

    A packet that begins after that time ends the reading. Raises Refused for more events than are wanted.
    """
    start, count = None if wanted.from_first else 0, 0
    for packet in packets:
        if not len(packet):
            continue
        times = packet["t"].astype(np.int64)
        start = int(times.min()) if start is None else start
        if times.min() >= start + wanted.microseconds:
            if not count:  # so that the sentence about it can say when it begins
                yield packet[:1]
            return
        inside = (times >= start) & (times < start + wanted.microseconds)
        count += int(inside.sum())
        if count > wanted.most:
            raise _too_many(wanted)
        yield packet[inside]


def _csv(path: str, wanted: ReadRequest) -> list[NDArray[Any]]:
    with Path(path).open("rb") as file:
        file.readline()  # of names
        try:
            rows = np.loadtxt(
                (line for line in file if line.strip()),
                np.float64,
                comments=None,
                delimiter=wanted.separator,
                usecols=wanted.places,
                max_rows=wanted.most + 1,
                ndmin=2,
            )
        except ValueError as error:
            raise Refused(DAMAGED, f"the body cannot be read as CSV of numbers: {_said(error)}") from error
    if len(rows) > wanted.most:
        raise _too_many(wanted)
    return list(rows.reshape(-1, len(wanted.places)).T)


def _too_many(wanted: ReadRequest) -> Refused:
    of = "" if wanted.format == CSV else f" in its {wanted.microseconds} microseconds that the model takes"
    return Refused(LARGE, f"the body has more than {wanted.most} events (max_events){of}")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:MAX_FAULT]


if __name__ == "__main__":
    main(sys.argv[1])
