"""A run's folder: the files that a training job writes, which `evaluate` and `export` read.

config.toml           the configuration; `--config` reads it again
checkpoint.pt         the checkpoint from which `--resume` continues
publish.json          the repository and the name that it is published to at its end, where it is
spec.json             the network
network.safetensors   its best weights, rounded to their grid
metrics.json          accuracy, losses, firing rates, synaptic operations, seconds, and each epoch
evaluation.npz        the test samples with their spike counts
*.png                 the plots, where plugins/report is there
tensorboard/          events
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.files import memory, read_bytes, require_plain
from spikeserve.training.report.epochs import Epoch
from spikeserve.training.report.evaluate import Evaluation

METRICS = {  # those that are read
    "exact": (bool,),
    "validation_accuracy": (float, int, type(None)),
    "seconds": (float, int),
}
TARGET = "publish.json"
MAX_BYTES = 2**28  # of a file of JSON: metrics.json has some 500 for each epoch
PER_BATCH = ("gradient_norms",)  # in TensorBoard; too many to read in metrics.json


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def fresh(cls, parent: Path, stem: str) -> RunFolder:
        """Make a new folder, `<stem>-<number>`, below `parent`."""
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = parent / f"{stem}-{number}"
            with suppress(FileExistsError):
                path.mkdir()
                break
        return cls(path)

    @contextmanager
    def removed_unless_begun(self) -> Iterator[None]:
        """Remove the folder again where the block ends by an exception and there is no checkpoint to go on from."""
        try:
            yield
        except BaseException:
            if not self.checkpoint.exists():
                shutil.rmtree(self.path)
            raise

    @property
    def begun(self) -> bool:
        """Whether it has a checkpoint, or had one: a run that was killed before its first epoch was over has none."""
        return self.checkpoint.exists() or (self.path / "spec.json").exists()

    @property
    def target(self) -> tuple[str | None, str | None]:
        """The repository and the name that it is published to at its end; None where it is not, or by no name."""
        if not (self.path / TARGET).exists():
            return None, None
        try:
            target = json.loads(self._read(TARGET))
            return str(target["repository"]), target["name"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise InvalidConfig(
                f"run: '{self.path / TARGET}' cannot be read, expected JSON with repository and name"
            ) from error

    def save_target(self, repository: str, name: str | None) -> None:
        """Write where the run is to be published; a folder's path is made absolute."""
        place = repository if "://" in repository else str(Path(repository).absolute())
        (self.path / TARGET).write_text(json.dumps({"repository": place, "name": name}) + "\n")

    @property
    def epochs(self) -> list[Epoch]:
        """Its epochs, of which metrics.json has all but what is of every batch; raises InvalidConfig as that does."""
        unsaid: Any = math.nan
        try:
            return [
                Epoch(**{name: unsaid if value is None else value for name, value in each.items()})
                for each in self.metrics["epochs"]
            ]
        except (AttributeError, KeyError, TypeError) as error:
            path = self.path / "metrics.json"
            raise InvalidConfig(f"run: '{path}', epochs: cannot be read, expected those that fit wrote") from error

    def evaluation(self) -> Mapping[str, NDArray[Any]]:
        """Read the test samples and their results, as `Evaluation.save` wrote them; raises InvalidConfig."""
        path = self.path / "evaluation.npz"
        try:
            require_plain(path, memory())
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, BadZipFile) as error:
            raise InvalidConfig(f"run: '{path}' cannot be read: {error}") from error

    @property
    def checkpoint(self) -> Path:
        """The path of the checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> dict[str, Any]:
        """The contents of metrics.json; raises InvalidConfig for a run that has not ended, or a changed file."""
        path = self.path / "metrics.json"
        try:
            content: dict[str, Any] = json.loads(self._read(path.name))
            for name, kind in METRICS.items():
                if type(content[name]) not in kind:
                    raise InvalidConfig(f"run: '{path}', {name}: is {content[name]!r:.60}, expected {kind[0].__name__}")
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            if isinstance(error, InvalidConfig):
                raise
            names = ", ".join(METRICS)
            raise InvalidConfig(f"run: '{path}' cannot be read, expected JSON as fit wrote it, with {names}") from error
        return content

    def config(self, overrides: Mapping[str, Any] | None = None) -> TrainingConfig:
        """Read the configuration, with `overrides` in the form of the file laid over it."""
        if not (self.path / "config.toml").is_file():
            raise InvalidConfig(f"run: '{self.path}' is not a run's folder, expected one with config.toml")
        return TrainingConfig.read(self.path / "config.toml", overrides or {})

    def save_network(self, network: Network) -> None:
        """Write the spec and the weights."""
        (self.path / "spec.json").write_text(network.spec.model_dump_json(indent=2) + "\n")
        (self.path / "network.safetensors").write_bytes(save(dict(network.tensors)))

    def network(self) -> Network:
        """Read the spec and the weights; raises InvalidSpec for a network that takes too much to be loaded."""
        spec = Spec.read(self._read("spec.json"))
        Price.of(spec).check(LoadLimits())  # before anything of its size is made
        try:
            weights = self.path / "network.safetensors"
            require_plain(weights, memory())
            return Network(spec, load_file(weights))
        except (OSError, SafetensorError) as error:
            raise InvalidConfig(f"run: '{self.path / 'network.safetensors'}' cannot be read: {error}") from error

    def save_metrics(
        self, evaluation: Evaluation, best: Epoch, epochs: list[Epoch], warnings: tuple[str, ...] = (), **facts: bool
    ) -> None:
        """Write metrics.json, with warnings beside those of epochs, and whether a run is `exact` and `interrupted`."""
        content = {
            "test_accuracy": evaluation.accuracy,
            "validation_accuracy": best.validation_accuracy,
            "best_epoch": best.number,
            "synaptic_operations": float(evaluation.synaptic_operations.mean()),
            "firing_rates": evaluation.firing_rates,
            **facts,
            "seconds": sum(epoch.seconds for epoch in epochs),
            "warnings": list(dict.fromkeys([*(each for epoch in epochs for each in epoch.warnings), *warnings])),
            "epochs": [
                {name: value for name, value in asdict(epoch).items() if name not in PER_BATCH} for epoch in epochs
            ],
        }
        (self.path / "metrics.json").write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")

    def _read(self, name: str) -> str:
        try:
            return read_bytes(self.path / name, MAX_BYTES).decode()
        except FileNotFoundError as error:
            raise InvalidConfig(
                f"run: '{self.path}' holds no {name}, expected a run that has ended; go on with it by fit --resume"
            ) from error
        except OSError as error:
            raise InvalidConfig(f"run: '{self.path / name}' cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidConfig(f"run: '{self.path / name}' is not UTF-8, expected the file as fit wrote it") from error


def _finite(value: Any) -> Any:
    """Return a value with None for each number that JSON cannot say: a loss that is infinite or not a number."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
