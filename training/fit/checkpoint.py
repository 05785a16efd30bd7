"""Checkpoints, from which an interrupted run continues exactly. They are loaded without pickle (weights_only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeserve.models.folders import write_whole
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.files import memory, require_plain
from spikeserve.training.report.epochs import Epoch


@dataclass
class Progress:
    """The progress of a run: its epochs, the current, averaged and best weights, and the optimiser's state."""

    weights: dict[str, Tensor]
    optimiser: dict[str, Any]
    average: dict[str, Tensor] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write in the place of the previous checkpoint, which an interruption leaves whole."""
        content = vars(self) | {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": asdict(self.best) if self.best else None,
        }
        written = BytesIO()
        torch.save(content, written)  # to a full disk it would raise a RuntimeError, and not say why
        write_whole(path, written.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read a checkpoint; raises InvalidConfig if it is missing or damaged."""
        try:
            require_plain(path, memory())
            content = torch.load(path, weights_only=True)
            epochs = [Epoch(**epoch) for epoch in content["epochs"]]
            best = Epoch(**content["best"]) if content["best"] else None
            return cls(**content | {"epochs": epochs, "best": best})
        except FileNotFoundError as error:
            raise InvalidConfig(f"run: '{path.parent}' holds no {path.name}, so there is nothing to resume") from error
        except Exception as error:  # torch.load raises many unrelated types for a damaged file, with advice to trust it
            raise InvalidConfig(
                f"run: '{path}' is not a checkpoint that can be read, expected the one that the run's fit wrote"
            ) from error

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer, path: Path) -> None:
        """Give a network and its optimiser the state of this checkpoint, which was read from `path`.

        Raises InvalidConfig where it is that of another network.
        """
        if self.best is not None:
            load_tensors(module, self.best_weights, f"run: '{path}', best_weights")
        load_tensors(module, self.weights, f"run: '{path}', weights")
        try:
            optimiser.load_state_dict(self.optimiser)
            fits = all(
                value.ndim == 0 or value.shape == parameter.shape
                for parameter, state in optimiser.state.items()
                for value in state.values()
                if isinstance(value, Tensor)
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise InvalidConfig(
                f"run: '{path}', optimiser: is not the state of the network's parameters, expected it to be"
            )


def load_tensors(module: nn.Module, tensors: Any, where: str) -> None:
    """Give a module tensors by name; raises InvalidConfig, which begins with `where`, where they are not its own."""
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        why = " ".join(str(error).split())
        raise InvalidConfig(f"{where}: {why}, expected those of the network of the run's config.toml") from error
