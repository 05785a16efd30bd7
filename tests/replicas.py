"""Two replicas behind HAProxy, both started as the tutorial into a cluster says."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT, block_with, serve_flags
from tests.serving import Process, running

CLUSTER = (ROOT / "docs/tutorials/cluster.md").read_text()
SERVE = ("-m", "spikeserve", "serve")
NEEDS_HAPROXY = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed here: ./scripts/install-tools"
)


def replica(repository: Path, which: int, port: str = "0") -> Any:
    """Run a replica by the page's command, on a free port unless one is given."""
    line = block_with(CLUSTER, "sh", "--port 8001").splitlines()[which]
    return running(repository, *serve_flags(re.sub(r"--port \d+", f"--port {port}", line), repository), program=SERVE)


@contextmanager
def haproxy(configuration: str, bind: str, folder: Path) -> Iterator[str]:
    """Run HAProxy on a configuration, on a free port in place of the address `bind` there; yield host:port."""
    assert f"bind {bind}" in configuration
    with socket.create_server(("127.0.0.1", 0)) as listening:
        text = configuration.replace(f"bind {bind}", f"bind fd@{listening.fileno()}")
        (folder / "haproxy.cfg").write_text(text)
        command = ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]
        with subprocess.Popen(command, pass_fds=(listening.fileno(),), stderr=subprocess.DEVNULL) as process:
            try:
                yield f"127.0.0.1:{listening.getsockname()[1]}"
            finally:
                process.terminate()


@contextmanager
def proxied(one: Process, two: Process, folder: Path, backend: str = "") -> Iterator[str]:
    """Run HAProxy on the page's configuration before two replicas, with more lines of `backend`; yield its address."""
    text = block_with(CLUSTER, "text", "frontend")
    for ours, theirs in (("127.0.0.1:8001", one.url), ("127.0.0.1:8002", two.url)):
        text = text.replace(ours, theirs.removeprefix("http://"))
    text = text.replace("backend replicas\n", f"backend replicas\n{backend}")
    with haproxy(text, "127.0.0.1:8000", folder) as proxy:
        yield f"http://{proxy}"
