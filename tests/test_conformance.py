"""The conformance kit: our engines and C do what each framework did, and the runner says what an executor does not."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from conformance import executors
from conformance.__main__ import Outcome, check, executor_of
from conformance.case import CASES, Case, Raster, expected, inputs_of
from tests.serving import ROOT

FOLDERS = sorted(CASES.iterdir())
SMALL = CASES / "snntorch-leaky"


@pytest.mark.parametrize("name", ["reference", "event", "onnx", "torch_engine"])
def test_each_engine_spikes_as_the_frameworks_did(name: str) -> None:
    assert len(FOLDERS) > 45
    found = {folder.name: str(check(executor_of(name), folder)) for folder in FOLDERS}
    assert all(outcome.startswith("0 of ") for outcome in found.values()), found


def test_c_spikes_as_the_frameworks_did() -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler: apt-get install gcc")
    for folder in FOLDERS[::4]:  # the zoo and drawn networks are compared as well
        assert check(executors.c, folder).differing == 0, folder.name


def test_a_case_says_what_it_is_and_its_layers_fire() -> None:
    for folder in FOLDERS:
        case, (spikes, membranes) = Case.read(folder), expected(folder)
        assert (folder / "graph.nir").is_file() is not bool(case.nir)
        assert case.about
        assert case.version
        assert inputs_of(folder).shape == (case.time_steps, *case.input_shape)
        assert all(raster.any() or name in membranes for name, raster in spikes.items()), case.name


def one_spike_less(folder: Path) -> Mapping[str, Raster]:
    spikes, _ = expected(folder)
    last = spikes[[*spikes][-1]]
    t, unit = np.argwhere(last)[0]
    last[t, unit] = 0
    return spikes


def refusing(folder: Path) -> Mapping[str, Raster]:
    raise NotImplementedError(f"no {folder.name} here\nsecond line")


def test_the_runner_counts_what_differs_and_says_who_refuses() -> None:
    assert check(one_spike_less, SMALL) == Outcome(1, 30 * (14 + 4))
    assert str(check(refusing, SMALL)) == "NotImplementedError: no snntorch-leaky here"
    assert str(check(lambda _: {}, SMALL)) == "no layer is shown"
    assert check(executor_of("tests.test_conformance:one_spike_less"), SMALL).differing == 1


def test_a_command_is_an_executor_too(tmp_path: Path) -> None:
    program = tmp_path / "executor.py"
    program.write_text(
        "import sys, numpy as np\nfrom conformance.case import expected\nfrom pathlib import Path\n"
        "np.savez(sys.argv[2], **expected(Path(sys.argv[1]))[0])\n"
    )
    shutil.copytree(SMALL, tmp_path / "cases" / SMALL.name)
    words = ["reference", f"{sys.executable} {program}", "--cases", str(tmp_path / "cases")]
    command = [sys.executable, "-m", "conformance", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
    assert "| snntorch-leaky | 1.0.0 | 0 of 540 | 0 of 540 |" in done.stdout
    assert "reference: 1 of 1 cases spike for spike, 0 refused" in done.stdout


def test_of_a_command_that_fails_the_last_line_of_its_stderr_is_shown() -> None:
    program = shlex.quote("import sys; print('loading', file=sys.stderr); sys.exit('no Conv2d here\\n')")
    assert str(check(executor_of(f"{sys.executable} -c {program}"), SMALL)) == "RuntimeError: no Conv2d here"
    assert str(check(executor_of("false without-a-word"), SMALL)) == "RuntimeError: status 1"


def test_the_cases_are_plain_data() -> None:
    for folder in FOLDERS:
        json.loads((folder / "case.json").read_text())
        with np.load(folder / "data.npz", allow_pickle=False) as data:
            assert all(array.dtype.kind in "fu" for array in data.values())
        assert sum(file.stat().st_size for file in folder.rglob("*")) < 100_000
