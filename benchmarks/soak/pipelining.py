"""The pipelining soak: clients that send many requests ahead of their answers, and mostly never read them.

Each attack runs for some seconds. Meanwhile another client asks whether the service is alive, and the resident memory
is compared with that before the attack, at its peak and once the attackers are gone.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.synchronize import Event
from time import perf_counter

from benchmarks.serving.processes import Server
from benchmarks.soak.client import get, post, request
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import questions, tensor_of
from benchmarks.soak.scale import Scale, Tick, connect

LIVE_MS = 50.0  # p99 of the other client
MEGABYTES = 64.0  # of growth
PAUSE_SECONDS = 0.005  # between two requests of the other client
SETTLE_SECONDS = 1.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection

Client = Callable[[socket.socket, bytes], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """What is sent on each of so many connections, and the client that sends it; one that returns starts again."""

    name: str
    sent: bytes
    client: Client
    connections: int = 100


async def pipelining(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Run one attack after the other."""
    name = "pipelining"
    alone, _ = await _watch(server, scale.pipelining_seconds)
    figures = [Figure(name, "p99 of the other client, alone", percentile(alone, 99), "ms")]
    chosen = attacks()
    for index, attack in enumerate(chosen):
        before = server.resident_megabytes
        with _attackers(server, index):
            waited, peak = await _watch(server, scale.pipelining_seconds)
        await asyncio.sleep(SETTLE_SECONDS)
        after = server.resident_megabytes
        figures += [
            Figure(name, f"{attack.name}: p99 of the other client", percentile(waited, 99), "ms", at_most=LIVE_MS),
            Figure(name, f"{attack.name}: slowest of the other client", max(waited), "ms"),
            Figure(name, f"{attack.name}: growth at the peak", peak - before, "MB", at_most=MEGABYTES),
            Figure(name, f"{attack.name}: growth afterwards", after - before, "MB", at_most=MEGABYTES),
        ]
        tick((index + 1) / len(chosen))
    return figures


async def _watch(server: Server, seconds: float) -> tuple[list[float], float]:
    """Return the milliseconds of each answer to another client, and the most resident megabytes meanwhile."""
    waited: list[float] = []
    peak = 0.0
    until = perf_counter() + seconds
    while perf_counter() < until:
        async with connect(server) as connection:  # a new one each time, then the same one
            for _ in range(4):
                began = perf_counter()
                await connection.ask(get("/health/live"))
                waited.append(1000 * (perf_counter() - began))
                await asyncio.sleep(PAUSE_SECONDS)
        peak = max(peak, server.resident_megabytes)
    return waited, peak


@contextmanager
def _attackers(server: Server, index: int) -> Iterator[None]:
    """Run an attack in a process of its own, whose work does not delay the other client's clock."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=_attack_all, args=(server.url, index, begun), daemon=True)
    process.start()
    begun.wait()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _attack_all(url: str, index: int, begun: Event) -> None:
    """Run the attack of this index until the process is killed."""
    attack = attacks()[index]

    async def run() -> None:
        begun.set()
        await asyncio.gather(*(_attack(url, attack) for _ in range(attack.connections)))

    asyncio.run(run())


async def _attack(url: str, attack: Attack) -> None:
    loop = asyncio.get_running_loop()
    host, _, port = url.removeprefix("http://").partition(":")
    while True:
        with socket.socket() as connected:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with suppress(OSError):
                await loop.sock_connect(connected, (host, int(port)))
                await attack.client(connected, attack.sent)
        await asyncio.sleep(0.1)


async def silent(connected: socket.socket, sent: bytes) -> None:
    """Send all and never read."""
    await asyncio.get_running_loop().sock_sendall(connected, sent)
    await asyncio.Event().wait()


async def reading(connected: socket.socket, sent: bytes) -> None:
    """Send all, and read until the server ends the connection or sends no more."""
    loop = asyncio.get_running_loop()
    sending = asyncio.create_task(loop.sock_sendall(connected, sent))
    try:
        while await loop.sock_recv(connected, 2**16):
            pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def either() -> Client:
    """Return a client that is silent every other time."""
    kinds = cycle((silent, reading))

    async def client(connected: socket.socket, sent: bytes) -> None:
        await next(kinds)(connected, sent)

    return client


async def half_closed(connected: socket.socket, sent: bytes) -> None:
    """Send all and close the sending half."""
    await asyncio.get_running_loop().sock_sendall(connected, sent)
    connected.shutdown(socket.SHUT_WR)
    await asyncio.sleep(1)


async def resetting(connected: socket.socket, sent: bytes) -> None:
    """Send all and reset the connection."""
    await asyncio.get_running_loop().sock_sendall(connected, sent)


async def dripping(connected: socket.socket, sent: bytes) -> None:
    """Send all, and then it once more in pieces of a byte."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connected, sent)
    for byte in sent:
        await asyncio.sleep(0.05)
        await loop.sock_sendall(connected, bytes((byte,)))


def splitting(size: int) -> Client:
    """Return a client that sends pieces of so many bytes and never reads."""

    async def client(connected: socket.socket, sent: bytes) -> None:
        loop = asyncio.get_running_loop()
        for at in range(0, len(sent), size):
            await loop.sock_sendall(connected, sent[at : at + size])
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    return client


def attacks() -> list[Attack]:
    """Return every attack."""
    sound = questions(SMALL, 1)[0].body
    body = json.dumps(sound).encode()
    infer = post(f"/v2/models/{SMALL.name}/infer", json.dumps({"inputs": [tensor_of(sound)]}).encode())
    live = get("/health/live")
    upgrade = live[:-2] + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    predict = post("/predict", body)
    chunked = b"POST /predict HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"
    one = chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    trailers = chunked + b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(body), body)
    many = 12_000
    return [
        Attack("GET", live * many, silent),
        Attack("GET, read", live * many, reading),
        Attack("GET, every other one read", live * many, either()),
        Attack("GET of 18 bytes", b"GET / HTTP/1.0\r\n\r\n" * many, silent),
        Attack("GET of what there is not", get("/nothing") * many, silent),
        Attack("GET of metrics", get("/metrics") * many, silent),
        Attack("HEAD", request("HEAD", "/health/live", b"") * many, silent),
        Attack("upgrades", upgrade * many, silent),
        Attack("POST /predict", predict * 4000, silent),
        Attack("POST /predict, read", predict * 4000, reading),
        Attack("POST /predict, chunked", one * 4000, silent),
        Attack("POST /predict, trailers", trailers * 4000, silent),
        Attack("POST infer of v2", infer * 4000, silent),
        Attack("bodies of another length", post("/predict", b"{") * 4000, silent),
        Attack("a chunk of empty lines", chunked + b"%x\r\n" % 2**24 + b"\r\n\r\n" * 2**22, silent),
        Attack("empty lines", b"\r\n\r\n" * 2**20, silent),
        Attack("an invalid one at the end", live * many + b"no request\r\n\r\n", silent),
        Attack("pieces of 7 bytes", live * many, splitting(7)),
        Attack("pieces of 4,099 bytes", live * many, splitting(4099)),
        Attack("a byte at a time after the burst", live * many, dripping),
        Attack("half-closed", live * many, half_closed),
        Attack("reset", live * many, resetting),
        Attack("500 connections with 20 each", live * 20, silent, connections=500),
        Attack("500 connections with 6,000 each", live * 6000, silent, connections=500),
    ]
