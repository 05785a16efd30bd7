"""The network as one would write it in plain PyTorch, with the weights of a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons with a threshold of 1 that reset by subtraction."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def forward(self, currents: Tensor) -> Tensor:
        """Return the spikes (time_steps, batch, neurons) that the currents of that shape make, from rest."""
        membrane = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            membrane = self.decay * membrane + current
            spikes.append((membrane >= 1.0).float())
            membrane = membrane - spikes[-1]
        return torch.stack(spikes)


class Network(nn.Module):
    """Two fully connected layers; the first sees the same at every step and so is computed once."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        spec = json.loads((bundle / "bundle.json").read_text())["spec"]
        weights = load_file(bundle / "weights.safetensors")
        self.time_steps: int = spec["time_steps"]
        self.scale: float = spec["input"]["scale"]
        self.fc1 = nn.Linear(*reversed(weights["fc1.weight"].shape))
        self.fc2 = nn.Linear(*reversed(weights["fc2.weight"].shape))
        self.lif1, self.lif2 = (LIF(node["decay"]) for node in spec["nodes"] if node["type"] == "LIF")
        self.load_state_dict(weights)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the spike counts (batch, classes) of raw pixels (batch, inputs)."""
        current: Tensor = self.fc1(self.scale * pixels)
        spikes: Tensor = self.lif2(self.fc2(self.lif1(current.expand(self.time_steps, *current.shape))))
        return spikes.sum(dim=0)


def answer(counts: Tensor) -> dict[str, object]:
    """Return the answer for the spike counts (batch, classes) of one request."""
    return {
        "predictions": [
            {
                "class_index": int(row.argmax()),
                "spike_counts": row.int().tolist(),
                "probabilities": row.softmax(0).tolist(),
            }
            for row in counts
        ]
    }
