"""Checkpoints, from which an interrupted run continues exactly. They are loaded without pickle (weights_only)."""

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
    """The progress of a run: its epochs, the current, averaged and best weights, and the optimiser's state."""

    weights: dict[str, Tensor]
    optimiser: dict[str, Any]
    average: dict[str, Tensor]
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to a temporary file and rename it, so that an interruption leaves the previous checkpoint whole."""
        temporary = path.with_suffix(".incoming")
        content = {
            "weights": self.weights,
            "optimiser": self.optimiser,
            "average": self.average,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": asdict(self.best) if self.best else None,
            "best_weights": self.best_weights,
        }
        torch.save(content, temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read a checkpoint; raises InvalidConfig if it is missing or damaged."""
        try:
            content = torch.load(path, weights_only=True)
            return cls(
                weights=content["weights"],
                optimiser=content["optimiser"],
                average=content.get("average", {}),  # absent in checkpoints from before there was one
                epochs=[Epoch(**epoch) for epoch in content["epochs"]],
                best=Epoch(**content["best"]) if content["best"] else None,
                best_weights=content["best_weights"],
            )
        except FileNotFoundError as error:
            raise InvalidConfig(f"run: '{path.parent}' holds no {path.name}, so there is nothing to resume") from error
        except Exception as error:  # torch.load raises many unrelated types for a damaged file
            raise InvalidConfig(f"run: '{path}' is not a checkpoint that can be read: {error}") from error
