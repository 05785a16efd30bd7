"""A protocol beside HTTP, in a file of one's own: its port is a setting, and it ends as the server does."""

import socket
from pathlib import Path

import pytest

from spikeserve.models.door import FOLDER
from tests.plugins.grpc.rpc import free_port
from tests.serving import running

LINES = """
import asyncio
from contextlib import nullcontext
from spikeserve.models.door import Plugin

PLUGINS = (Plugin("protocol", "lines", ":LINES", "names of models"),)


class Lines:
    threads = 0

    def reserve(self, host, port):
        self.reserved = host, port
        return nullcontext()

    async def start(self, services, host, port):
        assert self.reserved == (host, port)
        self.services, self.writers = services, set()
        self.server = await asyncio.start_server(self.answer, host, port)
        return self

    async def answer(self, reader, writer):
        self.writers.add(writer)
        while await reader.readline():
            writer.write(" ".join(self.services.catalog.models).encode() + b"\\n")
        self.writers.discard(writer)
        writer.close()

    @property
    def in_progress(self):
        return bool(self.writers)

    def end_streams(self):
        for writer in self.writers:
            if writer.can_write_eof():
                writer.write(b"the end\\n")
                writer.write_eof()

    async def cancel_all(self):
        return False

    async def stop(self, seconds):
        self.server.close()


LINES = Lines()
"""


@pytest.mark.usefixtures("reference_engine")
def test_a_protocol_of_ones_own_listens_at_its_setting_and_is_waited_for(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/lines.py").write_text(LINES)
    monkeypatch.setenv(FOLDER, str(tmp_path / "plugins"))
    port = free_port()
    with running(repository, "--lines-port", str(port)) as service:
        assert service.entries[0]["lines_port"] == port
        assert "unknown_variables" not in {entry["event"] for entry in service.entries}
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
            connection.makefile("rwb") as file,
        ):
            file.write(b"\n")
            file.flush()
            assert file.readline() == b"toy\n"
            service.process.terminate()
            assert file.readline() == b"the end\n"
        assert service.ended() == 0
