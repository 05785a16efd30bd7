"""`spikeserve fit` in the processes of Ray Train: `python -m deploy.ray.train WORKERS fit --dataset digits`.

The result is that of one process. All machines of the cluster must have every path among the arguments, as on a shared
disk; relative ones begin at the folder in which the command is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train(arguments: Sequence[str], workers: int, *, gpu: bool = False, storage: Path = Path("runs/.ray")) -> None:
    """Run a command of training in `workers` processes, with a GPU each if `gpu`; Ray's own records go to `storage`.

    Raises ray.train.TrainingFailedError where the command fails; a user's mistake is one sentence in its text.
    """
    TorchTrainer(
        _work,
        train_loop_config={"arguments": list(arguments), "folder": str(Path.cwd())},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(storage_path=str(storage.resolve())),
    ).fit()


def _work(config: dict[str, Any]) -> None:
    """Run in each process, which Ray has connected with the others."""
    from spikeserve.training.__main__ import app
    from spikeserve.training.commands.sentences import sentence_of

    os.chdir(config["folder"])
    try:
        app(config["arguments"], standalone_mode=False)
    except SystemExit as ended:  # a process that is not the first ends with the fit
        if ended.code:
            raise RuntimeError(f"the command ended with status {ended.code}") from ended
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        raise RuntimeError(sentence) from None


if __name__ == "__main__":
    count, *rest = sys.argv[1:] or [""]
    if not count.isdecimal() or int(count) < 1:
        sys.exit(f"error: WORKERS is '{count}', expected 1 or more: python -m deploy.ray.train WORKERS fit …")
    train(rest, int(count), gpu=any(each in ("cuda", "--device=cuda") for each in rest))
