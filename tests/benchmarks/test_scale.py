"""The cost of a number of requests a day, and the processor time of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.processor import below, between, command_line, of_group, seconds
from benchmarks.scale.cost import need, page


def test_a_million_requests_a_day_of_a_millisecond_are_worked_out() -> None:
    found = need(10**6, 1000.0)
    assert found.peak == pytest.approx(4 * 1e6 / 86400)  # 46.3 a second
    assert found.cores == pytest.approx(0.0463 / 0.6, rel=1e-3)
    assert found.replicas == 2
    assert found.core_hours == pytest.approx(0.2778, rel=1e-3)


def test_a_billion_requests_a_day_of_a_millisecond_take_39_replicas() -> None:
    assert need(10**9, 1000.0).replicas == 39  # 46,296 a second are 46.3 cores, of which 60 % are used: 77.2


def test_the_table_has_three_rows_for_each_load() -> None:
    row = {"layout": "HAProxy, 2 replicas", "load": "16 clients, 1 sample", "server_us": 900.0, "between_us": 100.0}
    rows = page([row, {**row, "layout": "one process"}, {**row, "load": "1 client, 1 sample"}]).splitlines()[2:]
    assert rows == [
        "| 1 sample, 1000 µs | 10^3 | 0.046/s | 4.6e-05 | 2 | 0.00028 |",
        "| 1 sample, 1000 µs | 10^6 | 46/s | 0.046 | 2 | 0.28 |",
        "| 1 sample, 1000 µs | 10^9 | 46,000/s | 46 | 39 | 280 |",
    ]


def test_processes_of_a_group_and_below_one_are_found_with_their_time() -> None:
    loop = "import sys, time\nwhile time.process_time() < 0.1: pass\nprint(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", loop]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert of_group(child.pid) == (child.pid,)
        assert child.pid in below(os.getpid())
        assert seconds((child.pid,))[child.pid] >= 0.09  # /proc counts in hundredths
        assert "process_time" in command_line(child.pid)
        child.kill()
    assert (seconds((child.pid,)), command_line(child.pid)) == ({}, "")


def test_what_was_used_is_that_of_the_processes_that_are_still_there() -> None:
    assert between({1: 2.0, 2: 5.0}, {1: 2.5, 3: 9.0}) == 0.5
