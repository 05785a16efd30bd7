"""The processor time and the memory of processes, read from /proc: of one, of a group, or of all that one started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

Processes: TypeAlias = tuple[int, ...]
MEGABYTE = 2**20


def seconds(processes: Processes) -> dict[int, float]:
    """Return the processor time that each process has used, in user mode and in the kernel, of those still there."""
    used = {}
    for process in processes:
        with suppress(OSError):
            fields = _fields(process)
            used[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def resident_megabytes(processes: Processes) -> float:
    """Return the memory that processes hold, shared pages counted for each; those that have ended hold none."""
    pages = 0
    for process in processes:
        with suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def between(before: dict[int, float], after: dict[int, float]) -> float:
    """Return the processor time between two moments; a process that has ended since counts as idle."""
    return sum(used - before[process] for process, used in after.items() if process in before)


def of_group(leader: int) -> Processes:
    """Return the processes of a process group."""
    return tuple(process for process, fields in _all() if int(fields[2]) == leader)


def below(ancestor: int) -> Processes:
    """Return all processes that a process has started, and those that they have."""
    parents = {process: int(fields[1]) for process, fields in _all()}
    found: list[int] = []
    wanted = {ancestor}
    while wanted:
        wanted = {process for process, parent in parents.items() if parent in wanted}
        found += sorted(wanted)
    return tuple(found)


def children(parent: int) -> Processes:
    """Return the processes that a process has started itself."""
    return tuple(process for process, fields in _all() if int(fields[1]) == parent)


def called(text: str) -> Processes:
    """Return the processes whose command line holds a text."""
    return tuple(process for process, _ in _all() if text in command_line(process))


def command_line(process: int) -> str:
    """Return a process's name, empty once it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _all() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                yield int(folder.name), _fields(int(folder.name))


def _fields(process: int) -> list[str]:
    """Return the fields of `stat` from the state on: parent, group, … as proc(5) numbers them from 3."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
