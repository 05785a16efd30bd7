"""perf_analyzer, the load generator of Triton, where it is installed and runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def perf_analyzer() -> str:
    """Return where it is; it skips the test where it is missing or does not run."""
    place = shutil.which("perf_analyzer", path=str(Path(sys.executable).parent)) or shutil.which("perf_analyzer")
    if place is None:
        pytest.skip("perf_analyzer is not installed: the extra 'clients' has it on Linux")
    tried = subprocess.run([place, "--version"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"perf_analyzer does not run here: {tried.stderr.strip().splitlines()[-1:]}")
    return place


def measured(folder: Path, *flags: str) -> dict[str, str]:
    """Send 50 requests to the model 'toy', and return what it has measured by the names of the columns."""
    data, told = folder / "data.json", folder / "told.csv"
    data.write_text(json.dumps({"data": [{"inputs": [0.6, 2.0]}]}))
    command = [perf_analyzer(), "-m", "toy", "-b", "1", "--input-data", str(data), "--request-count", "50"]
    command += ["-f", str(told), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    names, (row, *_) = (lines := told.read_text().splitlines())[0].split(","), lines[1:]
    return dict(zip(names, row.split(","), strict=False))
