"""A plugin of pytest that writes which tests come to given lines, the quickest first; see `tests.mutants`.

REACH_LINES names a file of JSON: places, such as "models/errors.py:12". Beside it, in a file that ends in `.found`, are
the seconds of each place's tests, and of those that call anything of its module. What runs in another process or as
compiled code is not seen.
"""

import json
import os
import sys
import threading
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

PLAN = Path(os.environ["REACH_LINES"])
PLACES = frozenset(json.loads(PLAN.read_text()))
tests: defaultdict[str, set[str]] = defaultdict(set)
seconds: defaultdict[str, float] = defaultdict(float)
failed = set[str]()


@cache
def module(file: str) -> str | None:
    """Return the path below the working directory of a module with lines that are asked for."""
    path = os.path.relpath(os.path.realpath(file))
    return path if any(place.startswith(f"{path}:") for place in PLACES) else None


@cache
def places(code: CodeType) -> frozenset[str]:
    """Return the places in a function that are asked for."""
    path = module(code.co_filename)
    return PLACES & {f"{path}:{line}" for *_, line in code.co_lines()}


def trace(frame: FrameType, event: str, _: Any) -> Any:
    """Take note of calls in the modules that are asked for, and of lines in those of their functions."""
    path = module(frame.f_code.co_filename)
    if path is None:
        return None
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if event == "call":
        tests[path].add(test)
    elif event == "line" and (place := f"{path}:{frame.f_lineno}") in PLACES:
        tests[place].add(test)
    return trace if places(frame.f_code) else None


def begin() -> None:
    """Trace all threads."""
    sys.settrace(trace)
    threading.settrace(trace)


def pytest_sessionstart() -> None:
    """Trace from before the first module is imported."""
    begin()


def pytest_runtest_setup() -> None:
    """Trace again, where a library has ended it."""
    begin()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each test takes, and take note of those that fail."""
    seconds[report.nodeid] += report.duration
    failed.update([report.nodeid] * report.failed)


def pytest_sessionfinish() -> None:
    """Write what was found. The lines of an import are no test's."""
    sys.settrace(None)
    passed = sorted(seconds.keys() - failed, key=seconds.__getitem__)
    found = {place: {test: seconds[test] for test in passed if test in names} for place, names in tests.items()}
    PLAN.with_suffix(".found").write_text(json.dumps(found))
