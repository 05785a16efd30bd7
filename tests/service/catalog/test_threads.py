"""Threads that compute give way to those that answer."""

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.serving import serving


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no nice value of its own")
@pytest.mark.usefixtures("reference_engine")
def test_threads_that_compute_have_a_lower_priority_than_those_that_answer_decode_and_render(repository: Path) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    before = set(threading.enumerate())  # of servers that other tests have started
    with serving(repository, threads=2) as client:
        assert client.get("/health/live").status_code == 200
        threads = set(threading.enumerate()) - before
        nice = {thread.name: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in threads}
    computing = {name for name in nice if name.startswith("worker_")}
    assert len(computing) == 2
    assert {nice.pop(name) for name in computing} == {min(usual + 5, 19)}
    assert {"codec-short_0", "codec-long_0", "loader_0"} <= nice.keys()
    assert set(nice.values()) == {usual}
