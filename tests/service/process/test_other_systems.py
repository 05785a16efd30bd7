"""A server of one process where a system lacks what Linux has: as on Windows, and in part on macOS."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from spikeserve.models.bundle.bundle import Bundle
from spikeserve.models.bundle.copies import locked
from spikeserve.models.bundle.remote import RemoteFailed
from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.errors import InvalidBundle
from tests.bundles import publish
from tests.networks import toy
from tests.serving import ROOT, running

# Python's own modules are imported first, since they look at the true system.
WITHOUT = """
import asyncio, logging.config, os, select, signal, socket, subprocess, sys, tempfile, threading
for name in ("fcntl", "resource"):
    sys.modules[name] = None
names = {
    os: "fork register_at_fork nice sysconf pread sched_getaffinity memfd_create O_NOFOLLOW O_NONBLOCK setsid",
    signal: "SIGHUP SIGCHLD pthread_sigmask",
    socket: "SO_REUSEPORT send_fds recv_fds",
    asyncio: "open_unix_connection",
}
for module, missing in names.items():
    for name in missing.split():
        delattr(module, name)
from spikeserve.service.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_one_process_serves_without_forks_locks_and_limits(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    with running(tmp_path, program=("-c", WITHOUT), is_new=True) as server:
        answer = httpx.post(f"{server.url}/predict", json={"inputs": [[0.6, 0.0]]}).json()
        assert answer["predictions"][0]["spike_counts"] == [1, 0]
        assert answer["engine"] == "event"
        assert server.stop() == 0


def test_several_processes_are_refused_where_none_can_fork() -> None:
    command = [sys.executable, "-c", WITHOUT, "--port", "0", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "spikeserve: workers: is 2, but this system forks no process, expected 1\n"


def test_copies_of_a_repository_elsewhere_need_a_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(RemoteFailed, match="need a lock that this system lacks"), locked(tmp_path):
        pass


def test_a_link_is_refused_also_where_the_system_follows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "O_NOFOLLOW")
    (tmp_path / "bundle.json").symlink_to(PRETRAINED / "digits/1/bundle.json")
    with pytest.raises(InvalidBundle, match=r"bundle\.json: is a symbolic link"):
        Bundle.read(tmp_path)
