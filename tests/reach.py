"""A plugin of pytest that writes which tests come to given lines, the quickest first; see `tests.mutants`.

REACH_LINES names a file of JSON: places, such as "models/errors.py:12". Beside it, in a file that ends in `.found`, are
the tests of each place. What runs in another process or as compiled code is not seen.
"""

import json
import os
import sys
import threading
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import FrameType
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


def trace(frame: FrameType, event: str, _: Any) -> Any:
    """Take note of lines, of the modules alone that are asked for."""
    path = module(frame.f_code.co_filename)
    if path is not None and event == "line" and (place := f"{path}:{frame.f_lineno}") in PLACES:
        tests[place].add(os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0])
    return None if path is None else trace


def pytest_sessionstart() -> None:
    """Trace all threads, from before the first module is imported."""
    sys.settrace(trace)
    threading.settrace(trace)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each test takes, and take note of those that fail."""
    seconds[report.nodeid] += report.duration
    failed.update([report.nodeid] * report.failed)


def pytest_sessionfinish() -> None:
    """Write what was found, and by "" all tests that pass. The lines of an import are no test's."""
    passed = sorted(seconds.keys() - failed, key=seconds.__getitem__)
    found = {place: [test for test in passed if test in names] for place, names in tests.items()} | {"": passed}
    PLAN.with_suffix(".found").write_text(json.dumps(found))
