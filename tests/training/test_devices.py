"""Several devices: real processes on the loopback, whose result is that of one."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from spikeserve.models.spec.nodes import LIF, Recurrent
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.layers import Neurons
from spikeserve.training.fit.loop import FitResult, fit
from spikeserve.training.fit.operators import dense, plain
from spikeserve.training.report.epochs import Epoch
from tests.training.command_line import training_here
from tests.training.operator_cases import SoftThreshold

# Everything random, and all that looks at a whole batch: batch norm, the penalty of firing rates, class weights.
# Of the 115 training samples in batches of 19, the last one has 1, which is fewer than there are processes.
RUN = (
    "fit", "--dataset", "arrays", "--coding", "rate", "--architecture", "4C3-BN-AP2-16-DO0.2", "--batch-size", "19",
    "--time-steps", "4", "--learning-rate", "0.01", "--schedule", "constant", "--config", "own.toml",
)  # fmt: skip


@dataclass(frozen=True)
class Divided:
    """What two processes did: they went on with the first epoch of one, and began a run of two epochs."""

    resumed: RunFolder
    fresh: RunFolder
    printed: str


def losses(epochs: list[Any]) -> list[float]:
    """Return the losses of epochs, which are records of metrics.json or of a fit."""
    epochs = [vars(epoch) if isinstance(epoch, Epoch) else epoch for epoch in epochs]
    return [epoch[name] for epoch in epochs for name in ("training_loss", "validation_loss", "training_accuracy")]


def fit_here(run: RunFolder, epochs: int, checkpoint: Path, **options: Any) -> FitResult:
    """Fit under a run's configuration in this one process."""
    config = run.config({"optimisation": {"epochs": epochs}})
    data = load(config.data, config.network.coding)
    return fit(architecture_for(config, data), data, config, checkpoint, **options)


def run_both(*commands: tuple[str, ...]) -> list[str]:
    """Run commands one after the other in one of the two processes, and return what each prints."""
    runs = [training_here(*words, cwd=Path.cwd(), plots=False) for words in commands]
    assert [run.stderr for run in runs if run.returncode] == []
    return [run.stdout for run in runs]


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> Divided:
    home = tmp_path_factory.mktemp("home")
    (home / "own.toml").write_text("[optimisation]\nclass_weights = 'balanced'\n")
    fit_two = (*RUN, "--file", str(stripes), "--epochs", "2")
    assert training_here(*fit_two[:-1], "1", cwd=home, plots=False).returncode == 0
    # As `torchrun --standalone --nproc-per-node 2` does, but by forks, which need not import PyTorch again.
    launched = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="fork",
    )
    resume = ("fit", "--resume", "runs/stripes-1", "--epochs", "3")
    with contextlib.chdir(home):
        printed = elastic_launch(launched, run_both)(resume, fit_two)
    resumed, fresh = sorted((home / "runs").iterdir())  # a process that is not the first makes no folder
    return Divided(RunFolder(resumed), RunFolder(fresh), "".join(text for texts in printed.values() for text in texts))


@pytest.fixture(scope="module")
def whole(divided: Divided, tmp_path_factory: pytest.TempPathFactory) -> list[Epoch]:
    """The three epochs of such a run in this one process."""
    return fit_here(divided.fresh, 3, tmp_path_factory.mktemp("whole") / "checkpoint.pt").epochs


def test_two_processes_give_the_result_of_one(divided: Divided, whole: list[Epoch]) -> None:
    found = divided.fresh.metrics["epochs"]
    np.testing.assert_allclose(losses(found), losses(whole[:2]), rtol=0, atol=1e-6)
    for epoch, same in zip(found, whole[:2], strict=True):
        assert epoch["firing_rates"] == pytest.approx(same.firing_rates, abs=1e-6)


def test_only_the_first_process_prints(divided: Divided) -> None:
    assert [divided.printed.count(said) for said in (" 3/3 ", " 2/2 ", "Test accuracy")] == [1, 1, 2]


def test_two_processes_go_on_with_what_one_began(divided: Divided, whole: list[Epoch]) -> None:
    np.testing.assert_allclose(losses(divided.resumed.metrics["epochs"]), losses(whole), rtol=0, atol=1e-6)


def test_one_process_goes_on_with_what_two_began(divided: Divided, whole: list[Epoch], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(divided.fresh.checkpoint.read_bytes())
    resumed = fit_here(divided.fresh, 3, tmp_path / "checkpoint.pt", resume=True)
    np.testing.assert_allclose(losses(resumed.epochs), losses(whole), rtol=0, atol=1e-6)


def test_products_in_bfloat16_leave_the_neurons_in_float32() -> None:
    # bfloat16 has 8 bits: a weight of 1 + 1/256 is 1 there. The autocast of the CPU stands for that of CUDA, and
    # fractions of spikes for what runs in plain PyTorch, as a layer on CUDA may.
    connection = torch.nn.Linear(1, 1, bias=False)
    layer = Neurons(LIF(name="n", decay=0.9, recurrent=Recurrent()), (1,))
    found = []
    with torch.no_grad():
        for weight in (connection.weight, *layer.parameters()):
            weight.fill_(1 + 1 / 256)
        for enabled, expected in ((True, 1.0), (False, 1 + 1 / 256)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                current = plain.connect(connection, torch.ones(2, 1, 1))
                assert (current.dtype, current.flatten().tolist()) == (torch.float32, [expected] * 2)
                found.append(dense(layer(torch.ones(2, 1, 1), 2, SoftThreshold())[0]))
    assert torch.equal(*found)
