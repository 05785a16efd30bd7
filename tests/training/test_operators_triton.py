"""Triton's kernels give what plain PyTorch gives: checked by Triton's interpreter, which needs no device."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.operator_cases import CASES

ROOT = Path(__file__).parents[2]

WHY = "Triton is not installed: it has wheels for Linux on x86-64 alone"
pytestmark = [pytest.mark.deep, pytest.mark.skipif(find_spec("triton") is None, reason=WHY)]


def _run(what: str, **environment: str) -> Any:
    # A division by 0 beyond the last neuron would be a warning of NumPy's, and so a fault here.
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.training.triton_process", what]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def faults() -> dict[str, str | None]:
    """What is wrong with each case."""
    return _run("cpu", TRITON_INTERPRET="1")


@pytest.mark.parametrize("name", CASES)
def test_a_layer_gives_plain_pytorchs_spikes_and_gradients(name: str, faults: dict[str, str | None]) -> None:
    assert faults[name] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_cuda_device_runs_the_same_kernels() -> None:
    found: dict[str, str | None] = _run("cuda", TRITON_INTERPRET="0")
    assert found == dict.fromkeys(CASES)


def test_on_a_cuda_device_each_operation_is_rounded_on_its_own(tmp_path: Path) -> None:
    # A fused multiply-add rounds once where the equations round twice, and a spike at the threshold comes or goes.
    found = _run("compile", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert set(found) == {"STORED", "SUMMED"}
    for operations in found.values():
        assert {"add", "sub", "mul", "div"} <= set(operations)
        assert not {"fma", "mad"} & set(operations)
