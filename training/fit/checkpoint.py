"""Checkpoints: what a run needs to go on as if it had never stopped. Nothing is unpickled (weights_only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import InvalidConfig
from training.report.epochs import Epoch


@dataclass
class Progress:
    """A run so far: the epochs, the weights now and at their best, and the optimiser's state."""

    weights: dict[str, Tensor]
    optimiser: dict[str, Any]
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to a temporary name and rename, so that a checkpoint is whole or the one before it."""
        temporary = path.with_suffix(".incoming")
        content = {
            "weights": self.weights,
            "optimiser": self.optimiser,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": asdict(self.best) if self.best else None,
            "best_weights": self.best_weights,
        }
        torch.save(content, temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read a checkpoint; raises InvalidConfig where there is none or it is damaged."""
        try:
            content = torch.load(path, weights_only=True)
            return cls(
                weights=content["weights"],
                optimiser=content["optimiser"],
                epochs=[Epoch(**epoch) for epoch in content["epochs"]],
                best=Epoch(**content["best"]) if content["best"] else None,
                best_weights=content["best_weights"],
            )
        except FileNotFoundError as error:
            raise InvalidConfig(f"run: '{path.parent}' holds no {path.name}, so there is nothing to resume") from error
        except Exception as error:  # torch.load raises many kinds for a damaged file, without a base of their own
            raise InvalidConfig(f"run: '{path}' is not a checkpoint that can be read: {error}") from error
