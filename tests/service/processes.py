"""Processes as Linux shows them: tests of loads and workers watch them."""

import asyncio
from collections.abc import Callable
from pathlib import Path


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nothing else tells of; for a minute at most."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def children(process: int) -> list[int]:
    """Return the children of a process, which has one thread or forks from its first; none of one that has ended."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(process: int) -> bool:
    """Return whether a process has ended, though nobody may have asked for its status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
