"""Several devices: real processes on the loopback, whose result is that of one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikeserve.models.spec.nodes import LIF, Recurrent
from spikeserve.training.config import ParallelConfig, Precision, TrainingConfig
from spikeserve.training.data.datasets import load
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.devices import Share, launch
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.layers import Neurons
from spikeserve.training.fit.loop import Fitted, fit
from spikeserve.training.fit.operators import dense, plain
from spikeserve.training.fit.surrogate import SoftThreshold
from spikeserve.training.report.epochs import Epoch, Watcher
from tests.training.command_line import ROOT, WITHOUT_PLOTS, training

# Everything random, and all that looks at a whole batch: batch norm, the penalty of firing rates, class weights.
# Of the 115 training samples in batches of 19, the last one has 1, which is fewer than there are processes.
RUN = (
    "fit", "--dataset", "arrays", "--coding", "rate", "--architecture", "4C3-BN-AP2-16-DO0.2", "--batch-size", "19",
    "--time-steps", "4", "--learning-rate", "0.01", "--schedule", "constant", "--rate-penalty", "2",
    "--class-weights", "balanced",
)  # fmt: skip
TORCHRUN = (
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    WITHOUT_PLOTS,
)

Divided = tuple[RunFolder, "subprocess.CompletedProcess[str]"]


def losses(epochs: list[Any]) -> list[float]:
    """Return the losses of epochs, which are records of metrics.json or of a fit."""
    epochs = [vars(epoch) if isinstance(epoch, Epoch) else epoch for epoch in epochs]
    return [epoch[name] for epoch in epochs for name in ("training_loss", "validation_loss", "training_accuracy")]


def fit_here(run: RunFolder, epochs: int, checkpoint: Path, **options: Any) -> Fitted:
    """Fit under a run's configuration in this one process."""
    overrides = {"optimisation": {"epochs": epochs}, "parallel": {"devices": 1}}
    config = run.config(overrides)
    data = load(config.data, config.network.coding)
    return fit(architecture_for(config, data), data, config, checkpoint, **options)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> Divided:
    """A run of two epochs in two processes, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    result = training(*RUN, "--file", stripes, "--epochs", "2", "--devices", "2", cwd=home)
    assert result.returncode == 0, result.stderr
    (run,) = (home / "runs").iterdir()  # one folder: a process that is not the first makes none
    return RunFolder(run), result


def test_two_processes_give_the_result_of_one(divided: Divided, tmp_path: Path) -> None:
    run, _ = divided
    alone = fit_here(run, 2, tmp_path / "checkpoint.pt")
    np.testing.assert_allclose(losses(run.metrics["epochs"]), losses(alone.epochs), rtol=0, atol=1e-6)
    for epoch, same in zip(run.metrics["epochs"], alone.epochs, strict=True):
        assert epoch["firing_rates"] == pytest.approx(same.firing_rates, abs=1e-6)


def test_only_the_first_process_prints(divided: Divided) -> None:
    _, result = divided
    assert result.stdout.count(" 1/2 ") == result.stdout.count("Test accuracy") == 1
    assert result.stderr == ""


def test_one_process_goes_on_with_what_two_began(divided: Divided, tmp_path: Path) -> None:
    run, _ = divided
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(run.checkpoint.read_bytes())
    resumed = fit_here(run, 3, checkpoint, resume=True)
    whole = fit_here(run, 3, tmp_path / "whole.pt")
    np.testing.assert_allclose(losses(resumed.epochs), losses(whole.epochs), rtol=0, atol=1e-6)


def test_two_processes_of_torchrun_go_on_with_what_one_began(divided: Divided, tmp_path: Path) -> None:
    run, _ = divided
    begun = RunFolder(tmp_path)
    run.config({"optimisation": {"epochs": 3}, "parallel": {"devices": 1}}).write(tmp_path / "config.toml")

    def stop(_: Epoch) -> None:
        raise KeyboardInterrupt

    fit_here(begun, 3, begun.checkpoint, watcher=Watcher(epoch=stop))
    result = subprocess.run(
        [*TORCHRUN, "fit", "--resume", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    whole = fit_here(begun, 3, tmp_path / "whole.pt")
    np.testing.assert_allclose(losses(begun.metrics["epochs"]), losses(whole.epochs), rtol=0, atol=1e-6)


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes")
def test_a_ctrl_c_in_a_terminal_ends_all_processes_and_keeps_the_best(stripes: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", WITHOUT_PLOTS, *RUN, "--file", str(stripes), "--epochs", "9999",
         "--patience", "9999", "--devices", "2"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell has what it runs in the background ignore interrupts, and a child does so too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if " 1/9999 " in line), None)
        assert line is not None, process.communicate()
        others = children(process.pid)
        assert others
        os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=240)
    finally:  # a run that was not interrupted would go on for long
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert errors == ""
    assert "the best epoch so far is kept" in " ".join(rest.split())
    assert RunFolder(tmp_path / "runs" / "stripes-1").metrics["interrupted"]
    for other in others:
        with pytest.raises(ProcessLookupError):
            os.kill(other, 0)


def test_the_shares_of_a_batch_hold_every_row_once_and_weigh_what_they_hold() -> None:
    for size, count in product([1, 2, 3, 7, 64], [1, 2, 3, 8]):
        shares = [Share.of(size, rank, count) for rank in range(count)]
        rows = [row for share in shares for row in range(size)[share.rows]]
        assert sorted(rows) == sorted(list(range(size)) * shares[0].copies)
        # The mean of a batch, 0 to size - 1, is the weighted mean of the shares' means.
        mean = sum(float(np.mean(range(size)[share.rows])) * share.weight for share in shares)
        assert mean == pytest.approx((size - 1) / 2)


@pytest.mark.parametrize(
    ("parallel", "sentence"),
    [
        (
            ParallelConfig(precision=Precision.BFLOAT16),
            "parallel.precision: 'bf16-mixed' needs CUDA, but device is 'cpu'",
        ),
        (ParallelConfig(devices=9999), "parallel.devices: is 9999, expected at most one for each core here ("),
        (ParallelConfig(devices=2), "parallel.devices: more than 1 in a program that started its processes before"),
    ],
)
def test_what_cannot_be_started_is_refused_before_any_process_is(
    parallel: ParallelConfig, sentence: str, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")  # as the first process has it, once it has started the others
    with pytest.raises(InvalidConfig, match=re.escape(sentence)):
        launch(config.model_copy(update={"parallel": parallel}))


def test_products_in_bfloat16_leave_the_neurons_in_float32() -> None:
    # bfloat16 has 8 bits: a weight of 1 + 1/256 is 1 there. The autocast of the CPU stands for that of CUDA, and
    # fractions of spikes for what runs in plain PyTorch, as a layer on CUDA may.
    connection, layer = (
        torch.nn.Linear(1, 1, bias=False),
        Neurons(LIF(name="n", decay=0.9, recurrent=Recurrent()), (1,)),
    )
    assert layer.recurrent is not None
    with torch.no_grad():
        for weight in (connection.weight, layer.recurrent.weight):
            weight.fill_(1 + 1 / 256)
        for enabled, expected in ((True, 1.0), (False, 1 + 1 / 256)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                current = plain.connect(connection, torch.ones(2, 1, 1))
                assert current.dtype == torch.float32
                assert current.flatten().tolist() == [expected, expected]
        found = []
        for enabled in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                spikes, _ = layer(current, 2, SoftThreshold())
            found.append(dense(spikes))
    assert torch.equal(*found)
