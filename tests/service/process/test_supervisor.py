"""The supervisor and its end of a socket pair, with workers that do nothing but what a test needs."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from spikeserve.service.process import control
from spikeserve.service.process.control import Message, Peer
from tests.forks import Fork
from tests.service.processes import until

# A supervisor of one worker, which does what `work` says and is sent SIGTERM once it replaces another.
PROGRAM = """
import os, signal, socket, sys
from spikeserve.service.process import control
from spikeserve.service.process.supervisor import Supervisor
from spikeserve.service.telemetry import logs

control.MAX_MESSAGE_BYTES = 1000
logs.configure("info", sys.stdout)

def work(number: int, connection: socket.socket, replaces: bool) -> int:
    if replaces:
        os.kill(os.getppid(), signal.SIGTERM)
    else:
        {first}
    while connection.recv(100):
        pass
    return 3

sys.exit(Supervisor(1, {{}}, 1, work).run())
"""


def entries_of(program: str) -> list[dict[str, Any]]:
    """Run a program to its end, and return its log."""
    with Fork(("-c", program), ()) as process:
        entries = [json.loads(line) for line in process.stdout]
        assert (process.wait(60), process.stderr.read()) == (0, "")
    return entries


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (r'b"What?\n"', "Invalid JSON"),
        (r"""b'{"number": 1, "kind": "dance"}\n'""", "1 validation error"),
        ('b"x" * 1001', "chunk exceed the limit"),
    ],
    ids=["no JSON", "no such request", "too long"],
)
def test_a_worker_that_sends_what_it_may_not_is_left_and_ends_and_is_replaced(sent: str, complaint: str) -> None:
    entries = entries_of(PROGRAM.format(first=f"connection.sendall({sent})"))
    assert [entry["event"] for entry in entries] == [
        "worker_started",
        "control_misunderstood",
        "worker_died",
        "worker_started",
    ]
    assert complaint in entries[1]["exception"]
    assert entries[2]["status"] == 3


def test_a_worker_that_dies_at_once_is_replaced_only_after_a_while() -> None:
    slow = f"from spikeserve.service.process import supervisor; supervisor.BACK_OFF_SECONDS = 4\n{PROGRAM}"
    died, started = entries_of(slow.format(first="os._exit(3)"))[1:]
    assert (died["event"], died["status"], started["event"]) == ("worker_died", 3, "worker_started")
    waited = datetime.fromisoformat(started["timestamp"]) - datetime.fromisoformat(died["timestamp"])
    assert waited.total_seconds() > 4 * 0.9  # at the least, if it lived for less


def test_a_signal_ends_it_while_it_waits_to_replace_a_worker() -> None:
    program = f"from spikeserve.service.process import supervisor; supervisor.BACK_OFF_SECONDS = 3600\n{PROGRAM}"
    with Fork(("-c", program.format(first="os._exit(3)")), ()) as process:
        events = [json.loads(process.stdout.readline())["event"] for _ in range(2)]
        process.terminate()
        events += [json.loads(line)["event"] for line in process.stdout]
        assert process.wait(timeout=60) == 0
    assert events == ["worker_started", "worker_died"]


@asynccontextmanager
async def pair(ours: Any, theirs: Any) -> AsyncIterator[tuple[Peer, Peer]]:
    """Connect two peers, which answer with `ours` and `theirs`."""
    ends = socket.socketpair()
    peers = [await Peer.connect(end, answer) for end, answer in zip(ends, (ours, theirs), strict=True)]
    try:
        yield peers[0], peers[1]
    finally:
        peers[0].close()
        await asyncio.gather(*(peer.following for peer in peers))


async def nothing(_peer: Peer, _request: Message) -> Message:
    return Message()


async def test_one_that_dies_has_replied_to_all_that_it_was_asked_and_one_that_is_stuck_is_asked_no_more() -> None:
    asked, never = 0, asyncio.Event()

    async def stuck(_peer: Peer, _request: Message) -> Message:
        nonlocal asked
        asked += 1
        await never.wait()
        return Message(sentence="never")

    async with pair(nothing, stuck) as (peer, other):
        replies = [peer.request(Message(kind="metrics")) for _ in range(control.MAX_REQUESTS)]
        assert await peer.ask(Message(kind="metrics"), 0.01) is None
        await until(lambda: asked == control.MAX_REQUESTS)
        other.close()
        assert await asyncio.gather(*replies) == [Message()] * control.MAX_REQUESTS
        assert await peer.request(Message(kind="metrics")) == Message()
        assert asked == control.MAX_REQUESTS


async def test_what_takes_long_is_waited_for_while_the_other_end_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PING_SECONDS", 0.001)
    pinged, alive = 0, True

    async def slow(_peer: Peer, request: Message) -> Message:
        nonlocal pinged
        if request.kind == "load":
            await done.wait()
            return Message(sentence="loaded")
        pinged += 1
        if pinged == 5:
            done.set()
        if not alive:
            await asyncio.Event().wait()
        return Message()

    done = asyncio.Event()
    async with pair(nothing, slow) as (peer, other):
        reply = await peer.ask(Message(kind="load"), 60)
        assert (reply and reply.sentence, pinged >= 5) == ("loaded", True)
        done, alive = asyncio.Event(), False
        assert await peer.ask(Message(kind="load"), 0.01) is None
        for task in other.answering:
            task.cancel()
