"""Plant each mutant in a copy of the project and run the tests named for it: `./scripts/mutants`.

A mutant that no test notices is a promise that no test holds. The list is our own and not drawn by a tool: cosmic-ray
makes more than 4,600 mutants of models/coding, models/bundle, service/catalog and service/inference alone, about eight
hours of tests, and many of them change nothing that anybody was promised. mutmut leaves functions with a decorator
alone: the kernels, the endpoints, the properties. The list has the lines whose promise can be named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.mutants.listed import LIST, ROOT, Mutant, read

PASSED, NOTHING_RAN = 0, 5  # exit statuses of pytest
RUNNING: set[subprocess.Popen[bytes]] = set()  # the tests that are going on
BASELINE_SECONDS = 1800.0  # for all tests that are named, with no fault planted


class Outcome(StrEnum):
    """What became of a mutant."""

    CAUGHT = "caught"
    TIMED_OUT = "timed out"  # which is caught too: some test waited for what never came
    SURVIVED = "survived"
    GONE = "gone"  # its line is not there, or not once


class Result(NamedTuple):
    """A mutant, what became of it, the number of its line (0 if it is gone) and the seconds that its tests took."""

    mutant: Mutant
    outcome: Outcome
    line: int
    seconds: float

    def __str__(self) -> str:
        """Return it as a line of the table."""
        place = f"{self.mutant.file}:{self.line}" if self.line else self.mutant.file
        return f"{self.outcome:<9}  {self.seconds:6.1f} s  {place:<44}  {self.mutant.promise}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of the mutants that are asked for; return 1 if any survives or is gone, else 0."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="Plant faults and see whether tests fail.")
    parser.add_argument("words", nargs="*", help="only mutants whose file or promise holds one of these words")
    parser.add_argument("--jobs", type=int, default=1, help="how many copies are tested at once")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one mutant")
    parser.add_argument("--list", type=Path, default=LIST, help="the list of mutants")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project, which is copied and never changed")
    asked = parser.parse_args(arguments)
    mutants = [each for each in read(asked.list) if _is_asked_for(each, asked.words)]
    if not mutants:
        parser.error(f"words are {asked.words}, but no mutant's file or promise holds one of them")
    mutants = _with_environment(mutants, asked.root)
    if not mutants:
        print("Nothing was tried.")
        return 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Path(folder) / str(number) for number in range(max(1, asked.jobs))]
        _copy(asked.root, copies[0])
        for python in dict.fromkeys(each.python(asked.root) for each in mutants):
            tests = dict.fromkeys(test for each in mutants if each.python(asked.root) == python for test in each.tests)
            if _status(python, copies[0], list(tests), BASELINE_SECONDS, quiet=False) != PASSED:
                print("The tests that are named do not pass without a fault planted, so nothing was tried.")
                return 1
        for other in copies[1:]:  # with all that was compiled on the way
            shutil.copytree(copies[0], other, symlinks=True)
        outcomes = _try_all(mutants, asked.root, copies, asked.timeout)
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome)
    print(f"{len(mutants)} mutants in {(time.monotonic() - began) / 60:.1f} minutes: {counts}")
    return int(bool(outcomes[Outcome.SURVIVED] or outcomes[Outcome.GONE]))


def _is_asked_for(mutant: Mutant, words: Sequence[str]) -> bool:
    return not words or any(word in mutant.file or word in mutant.promise for word in words)


def _with_environment(mutants: Sequence[Mutant], root: Path) -> list[Mutant]:
    """Return those whose environment has been made, and say which are left out."""
    missing = Counter(each.environment for each in mutants if not each.python(root).exists())
    for environment, count in missing.items():
        print(f"left out   {count} that need build/{environment}, which ./scripts/test-{environment} makes")
    return [each for each in mutants if each.environment not in missing]


def _copy(root: Path, copy: Path) -> None:
    """Copy the files that git knows or would add, as they are now, and the kernels that Numba has compiled.

    To compile them takes a minute, in which a test's server is not ready. Numba's cache goes by what the sources say.
    """
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    kernels = [path.relative_to(root).as_posix() for path in root.glob("[ms]*/**/__pycache__/*.nb[ic]")]
    for name in filter(None, [*names, *kernels]):
        if (root / name).is_file() or (root / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name, follow_symlinks=False)


def _try_all(mutants: Sequence[Mutant], root: Path, copies: Sequence[Path], timeout: float) -> Counter[Outcome]:
    """Try the mutants, as many at once as there are copies, and print each result as it comes."""
    free: SimpleQueue[Path] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def attempt(mutant: Mutant) -> Result:
        copy = free.get()
        try:
            return _attempt(mutant, mutant.python(root), copy, timeout)
        finally:
            free.put(copy)

    outcomes: Counter[Outcome] = Counter()
    with ThreadPoolExecutor(len(copies)) as pool:
        try:
            for attempted in as_completed([pool.submit(attempt, mutant) for mutant in mutants]):
                result = attempted.result()
                outcomes[result.outcome] += 1
                print(result, flush=True)
        except BaseException:  # as when somebody interrupts: what runs is ended, and nothing else begins
            pool.shutdown(wait=False, cancel_futures=True)
            for process in RUNNING.copy():
                _end(process)
            raise
    return outcomes


def _attempt(mutant: Mutant, python: Path, copy: Path, timeout: float) -> Result:
    began = time.monotonic()
    try:
        line = mutant.line(copy)
    except ValueError:
        return Result(mutant, Outcome.GONE, 0, 0.0)
    text = mutant.plant(copy)
    try:
        status = _status(python, copy, mutant.tests, timeout)
    finally:
        (copy / mutant.file).write_text(text)
    if status is None:
        outcome = Outcome.TIMED_OUT
    else:
        outcome = Outcome.SURVIVED if status in (PASSED, NOTHING_RAN) else Outcome.CAUGHT
    return Result(mutant, outcome, line, time.monotonic() - began)


def _status(python: Path, copy: Path, tests: Sequence[str], timeout: float, *, quiet: bool = True) -> int | None:
    """Return pytest's exit status for tests in a copy of the project, or None if they take longer than `timeout`.

    No bytecode is written: Python knows it by the time in whole seconds and the size of its source, which may both be
    those of the source with another fault.
    """
    command = [str(python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    sink = subprocess.DEVNULL if quiet else None
    # In a session of its own, so that servers that a test has started end with it.
    process = subprocess.Popen(
        command, cwd=copy, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
    )
    RUNNING.add(process)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)
        RUNNING.discard(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, if they have not ended."""
    with suppress(ProcessLookupError):  # none of them is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
