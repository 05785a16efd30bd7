"""FastAPI and a WebSocket around a network that SpikingJelly or Norse steps.

    python -m benchmarks.live.peers.server spikingjelly|norse NETWORK PORT

Each message is a window's events or the time that closes it; the events become a dense array, the network takes a step,
and the state is kept for the connection.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.live.networks import NETWORKS, WINDOW_US, Streamed
from spikeserve.models.coding.records import ON, RECORD

DECAY = 0.75


class SpikingJelly(torch.nn.Module):
    """The network with SpikingJelly's neurons, whose decay is 1 - 1 / tau."""

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron

        def lif() -> torch.nn.Module:
            made: torch.nn.Module = neuron.LIFNode(tau=1 / (1 - DECAY), decay_input=False, v_reset=None)
            return made

        conv1, pool, conv2, flat, fc = layers
        self.net = torch.nn.Sequential(conv1, lif(), pool, conv2, lif(), pool, flat, fc, lif())

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Take a step; the state is in the neurons, and is put in and taken out."""
        neurons = [each for each in self.net if hasattr(each, "v_threshold")]
        for each, v in zip(neurons, state or [0.0] * len(neurons), strict=True):
            each.v = v
        out = self.net(x)
        return out, [each.v for each in neurons]


class Norse(torch.nn.Module):
    """The network with Norse's LIFBoxCell, whose membrane goes (1 - decay) of the way to its input."""

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        super().__init__()
        import norse.torch as norse

        conv1, pool, conv2, flat, fc = layers
        for layer in (conv1, conv2, fc):
            for weight in layer.parameters():
                weight.data /= 1 - DECAY
        parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor((1 - DECAY) / 1e-3), v_th=torch.tensor(1.0))
        cells = [norse.LIFBoxCell(parameters, dt=1e-3) for _ in range(3)]
        self.net = norse.SequentialState(conv1, cells[0], pool, conv2, cells[1], pool, flat, fc, cells[2])

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Take a step."""
        stepped: tuple[torch.Tensor, Any] = self.net(x, state)
        return stepped


def module_of(framework: str, served: Streamed) -> torch.nn.Module:
    """Return the network in a framework."""
    weights = [torch.tensor(np.array(value)) for value in served.network.tensors.values()]
    first, second = served.channels
    conv1 = torch.nn.Conv2d(2, first, 3, stride=served.stride, bias=False)
    conv2 = torch.nn.Conv2d(first, second, 3, bias=False)
    classes, features = weights[2].shape
    fc = torch.nn.Linear(features, classes, bias=False)
    for layer, weight in zip((conv1, conv2, fc), weights, strict=True):
        layer.weight.data = weight
    layers = [conv1, torch.nn.LPPool2d(1, 2), conv2, torch.nn.Flatten(), fc]
    return {"spikingjelly": SpikingJelly, "norse": Norse}[framework](layers).eval()


def create(framework: str, served: Streamed) -> FastAPI:
    """Return the application."""
    app, module = FastAPI(), module_of(framework, served)

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.websocket("/models/{name}/stream")
    async def stream(websocket: WebSocket, name: str) -> None:  # noqa: ARG001
        await websocket.accept()
        state, counts, window = None, np.zeros(10, np.int64), 0
        waiting = np.empty(0, RECORD)
        try:
            while True:
                message = await websocket.receive()
                if (content := message.get("bytes")) is not None:
                    waiting = np.concatenate([waiting, np.frombuffer(content, RECORD)])
                    until = int(waiting["t"].max()) // WINDOW_US if len(waiting) else window
                elif message.get("text") is not None:
                    until = json.loads(message["text"])["t"] // WINDOW_US
                else:
                    return
                while window < until:
                    inside = waiting["t"] < (window + 1) * WINDOW_US
                    records, waiting = waiting[inside], waiting[~inside]
                    frame = np.zeros((1, 2, served.side, served.side), np.float32)
                    frame[0, records["y"] // ON, records["y"] % ON, records["x"]] = 1
                    with torch.inference_mode():
                        spikes, state = module(torch.from_numpy(frame), state)
                    counts += spikes[0].numpy().astype(np.int64)
                    window += 1
                    line = {"window": window, "spike_counts": counts.tolist(), "class_index": int(counts.argmax())}
                    await websocket.send_text(json.dumps(line))
        except WebSocketDisconnect:
            return

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    framework, name, port = sys.argv[1:]
    chosen = next(each for each in NETWORKS if each.name == name)
    uvicorn.run(
        create(framework, chosen), host="127.0.0.1", port=int(port), log_level="warning", ws="websockets-sansio"
    )
