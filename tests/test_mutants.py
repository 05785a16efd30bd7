"""What samples faults tells those that a test notices from those that none does, and changes nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import WorkerOutcome, WorkResult

from tests.mutants import main, outcome

CODE = """
def double(x: int | None) -> int | None:
    return 2 * x


def is_long(seconds):
    return seconds > 9


EIGHT = {8: "x"}[8]
"""
TESTS = """
from spikeserve.models.code import double, is_long

def test_double():
    assert double(3) == 6

def test_is_long():
    assert {expected}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that git knows, with two functions of which the tests look at one closely."""
    monkeypatch.chdir(tmp_path)  # what samples goes to its copy, and the test comes back
    root = tmp_path / "project"
    for folder in ("models", "tests", "spikeserve"):
        (root / folder).mkdir(parents=True)
    (root / "spikeserve/models").symlink_to("../models")
    (root / "models/code.py").write_text(CODE)
    (root / "tests/test_code.py").write_text(TESTS.format(expected="isinstance(is_long(10), bool)"))
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "--quiet", str(root)], check=True)
    return root


def test_a_fault_is_caught_by_a_test_or_shown_as_left(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--root", str(project)]) == 0
    printed = capfd.readouterr().out
    assert "models/code.py:2 " not in printed  # an annotation
    assert "caught      models/code.py:3 " in printed
    assert "survived    models/code.py:7 " in printed
    assert "-    return seconds > 9" in printed
    assert printed.splitlines()[-1].endswith("minutes: 1 caught, 1 survived, 0 timed out, 1 did not run")
    assert "did not run models/code.py:10 " in printed  # the module cannot be imported
    assert (project / "models/code.py").read_text() == CODE


def test_a_run_that_takes_too_long_is_not_counted_as_caught() -> None:
    end, output = run_tests("sleep 60", 0.01)
    assert outcome(WorkResult(WorkerOutcome.NORMAL, output, end)) == "timed out"
