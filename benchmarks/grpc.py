"""What a small request costs over gRPC, beside the same request over HTTP with its tensors as bytes.

It serves the digits model with both, and asks in turns with the same kind of client: blocking, one request at a time on
one connection that stays open, with the request's bytes made before. It prints the time that a client waits, and the
time of a core that the server takes, in which the client's own library has no part: `python -m benchmarks.grpc`. A
method of gRPC's library that answers the same bytes at once, in a process of its own, says what the library takes. Both
are then asked with many calls in flight, which are answered in batches.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc
import numpy as np

from benchmarks.processor import seconds
from benchmarks.serving.processes import free_port, running
from spikeserve.plugins.grpc import messages
from spikeserve.plugins.grpc.methods import SERVICE

HEADER = "Inference-Header-Content-Length"
SHAPE = (1, 1, 8, 8)
METHOD = f"/{SERVICE}/ModelInfer"
IN_FLIGHT, CHANNELS = 16, 4  # calls, and the connections that they are on


@contextmanager
def served() -> Iterator[tuple[int, int, int]]:
    """Serve the models that ship; yield the process and its ports for HTTP and gRPC."""
    http_port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "spikeserve.service", "--port", str(http_port), "--grpc-port", str(grpc_port)]
    with (
        tempfile.TemporaryFile("w+") as log,
        running([*command, "--log-level", "warning"], http_port, log, "/health/ready") as server,
        server.awake(),
    ):
        yield server.process.pid, http_port, grpc_port


@contextmanager
def bare(answer: bytes) -> Iterator[tuple[int, int]]:
    """Serve ModelInfer by gRPC's library alone, always with `answer`; yield the process and its port."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, answer))
    process.start()
    try:
        yield int(process.pid or 0), port
    finally:
        process.terminate()
        process.join()


def _serve(port: int, answer: bytes) -> None:
    async def infer(_: bytes, __: object) -> bytes:
        return answer

    async def serve() -> None:
        server = grpc.aio.server()
        handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


def over_http(port: int, blob: bytes) -> Callable[[], bytes]:
    """Return a function that asks over HTTP."""
    tensor = {"name": "inputs", "shape": SHAPE, "datatype": "FP32", "parameters": {"binary_data_size": len(blob)}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {HEADER: str(len(text)), "Content-Type": "application/octet-stream"}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask() -> bytes:
        connection.request("POST", "/v2/models/digits/infer", text + blob, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(response.read().decode())
        return response.read()

    return ask


def over_grpc(port: int, blob: bytes) -> Callable[[], bytes]:
    """Return a function that asks over gRPC."""
    content = message(blob)
    method = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(METHOD)
    return lambda: method(content, wait_for_ready=True)


def message(blob: bytes) -> bytes:
    """Make the bytes of a request."""
    tensor = messages.ModelInferRequest.InferInputTensor(name="inputs", datatype="FP32", shape=SHAPE)
    request = messages.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[blob])
    return bytes(request.SerializeToString())


async def in_flight(port: int, process: int, content: bytes, calls: int) -> float:
    """Return the server's time of a core for each call, in µs, with IN_FLIGHT of them at any time."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # else the channels share a connection
    async with AsyncExitStack() as stack:
        opened = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(CHANNELS)]
        methods = [(await stack.enter_async_context(each)).unary_unary(METHOD) for each in opened]

        async def ask(count: int) -> None:
            left = iter(range(count))

            async def one(method: Callable[..., Any]) -> None:
                for _ in left:
                    await method(content, wait_for_ready=True)

            await asyncio.gather(*(one(methods[number % CHANNELS]) for number in range(IN_FLIGHT)))

        await ask(calls // 10)
        began = seconds((process,))[process]
        await ask(calls)
    return 1e6 * (seconds((process,))[process] - began) / calls


def measure(ask: Callable[[], bytes], process: int, requests: int) -> tuple[float, float]:
    """Return the median time that a client waits, and the server's time of a core for each request, in µs."""
    waited, began = [], seconds((process,))[process]
    for _ in range(requests):
        start = time.perf_counter()
        ask()
        waited.append(time.perf_counter() - start)
    return 1e6 * statistics.median(waited), 1e6 * (seconds((process,))[process] - began) / requests


def main() -> None:
    """Measure in turns and print the medians, and the ratios of each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of each protocol in each turn")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    blob = np.random.default_rng(0).integers(0, 17, SHAPE).astype(np.float32).tobytes()
    with served() as (process, http_port, grpc_port):
        ours = over_grpc(grpc_port, blob)
        with bare(ours()) as (bare_process, bare_port):
            asks = {
                "HTTP": (over_http(http_port, blob), process),
                "gRPC": (ours, process),
                "bare": (over_grpc(bare_port, blob), bare_process),
            }
            for ask in asks.values():
                measure(*ask, 200)
            turns = [
                {name: measure(*ask, options.requests) for name, ask in asks.items()} for _ in range(options.turns)
            ]
            servers, content, calls = ((grpc_port, process), (bare_port, bare_process)), message(blob), options.requests
            many = [[asyncio.run(in_flight(*each, content, 4 * calls)) for each in servers] for _ in turns]
    print(f"{'':6} {'client waits':>14} {'server computes':>16}")
    for name in asks:
        waited, computed = (statistics.median(turn[name][which] for turn in turns) for which in (0, 1))
        print(f"{name:6} {waited:11.0f} µs {computed:13.0f} µs")
    for which, what in enumerate(("client waits", "server computes")):
        ratios = sorted(turn["gRPC"][which] / turn["HTTP"][which] for turn in turns)
        middle = statistics.median(ratios)
        print(f"gRPC to HTTP, {what}: {middle:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f} of {len(ratios)} turns)")
    ratios = sorted(own / bare for own, bare in many)
    print(f"gRPC to bare, {IN_FLIGHT} in flight, server computes: {statistics.median(ratios):.2f} times ", end="")
    print(f"({ratios[0]:.2f} to {ratios[-1]:.2f} of {len(ratios)} turns)")


if __name__ == "__main__":
    main()
