"""The list of mutants fits the project as it is, and the runner tells what is caught from what is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import main
from tests.mutants.listed import ROOT, Mutant, read

MUTANTS = read()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.before}")
def test_each_line_of_the_list_is_there_once_and_its_tests_are_there(mutant: Mutant) -> None:
    assert mutant.line(ROOT) > 0  # it would be a ValueError that says what is gone
    assert mutant.after != mutant.before
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), test
        assert not name or re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), test
    assert mutant.environment is None or (ROOT / f"scripts/test-{mutant.environment}").exists()


def test_no_fault_is_listed_twice() -> None:
    faults = [(mutant.file, mutant.before, mutant.after) for mutant in MUTANTS]
    assert len(set(faults)) == len(faults)


CODE = "def double(x):\n    return 2 * x\n\n\ndef wait(seconds):\n    return seconds > 9\n"
TESTS = """
import time
from code_under_test import double, wait

def test_double():
    assert double(2) == 4

def test_wait():
    while wait(1):
        time.sleep(1)
"""
ELSEWHERE = """
import os
import pytest
from code_under_test import double

@pytest.mark.skipif("ELSEWHERE" not in os.environ, reason="needs the environment")
def test_double():
    assert double(2) == 4
"""
TOY = """
[[mutant]]
promise = "{promise}"
file = "code_under_test.py"
before = "{before}"
after = "{after}"
tests = ["test_code.py"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that git knows, with two functions and a test for each."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "code_under_test.py").write_text(CODE)
    (root / "test_code.py").write_text(TESTS)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    (root / ".gitignore").write_text("ignored\n")
    (root / "ignored").write_text("")
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "--quiet", str(root)], check=True)
    return root


def tried(project: Path, *toys: tuple[str, str, str], timeout: float = 60, more: str = "") -> int:
    """Run the mutants (promise, before, after) and those of `more`, and return the exit status."""
    listed = project.parent / "list.toml"
    listed.write_text(
        "".join(TOY.format(promise=promise, before=before, after=after) for promise, before, after in toys) + more
    )
    return main(["--root", str(project), "--list", str(listed), "--timeout", str(timeout), "--jobs", "2"])


def test_what_is_caught_is_told_from_what_survives_or_is_gone_and_the_project_stays_as_it_is(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = tried(
        project,
        ("twice two is four", "2 * x", "3 * x"),
        ("two may be added as well", "2 * x", "x + x"),
        ("nothing of the kind", "4 * x", "x"),
        ("said twice", "return", "yield"),
    )
    *table, total = capfd.readouterr().out.splitlines()
    lines = {line.split("  ")[-1]: line for line in table}
    assert status == 1
    assert re.match(r"caught +\d+\.\d s  code_under_test\.py:2 ", lines["twice two is four"])
    assert re.match(r"survived +\d+\.\d s  code_under_test\.py:2 ", lines["two may be added as well"])
    assert re.match(r"gone +0\.0 s  code_under_test\.py ", lines["nothing of the kind"])
    assert re.match(r"gone +0\.0 s  code_under_test\.py ", lines["said twice"])
    assert re.fullmatch(r"4 mutants in \d+\.\d minutes: 1 caught, 0 timed out, 1 survived, 2 gone", total)
    assert (project / "code_under_test.py").read_text() == CODE


def test_where_all_are_caught_the_status_is_0_and_tests_that_never_end_have_caught_it(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tried(project, ("one second is short", "seconds > 9", "seconds > 0"), timeout=5) == 0
    assert "timed out" in capfd.readouterr().out.splitlines()[-2]


def test_nothing_is_tried_where_the_tests_fail_anyway(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "code_under_test.py").write_text(CODE.replace("2 * x", "5 * x"))
    assert tried(project, ("twice two is four", "5 * x", "3 * x")) == 1
    assert capfd.readouterr().out.splitlines()[-1].startswith("The tests that are named do not pass without a fault")


def test_a_test_that_is_skipped_catches_nothing_and_one_that_has_its_environment_does(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "test_code.py").write_text(ELSEWHERE)
    twice = ("twice two is four", "2 * x", "3 * x")
    here, in_environment = TOY.format(promise="here", before="2 * x", after="x"), 'environment = "other"\n'
    assert tried(project, twice) == 1
    assert capfd.readouterr().out.splitlines()[-2].startswith("survived")

    assert tried(project, twice, more=in_environment) == 1  # the line belongs to the mutant before it
    left_out = "left out   1 that need build/other, which ./scripts/test-other makes"
    assert capfd.readouterr().out.splitlines() == [left_out, "Nothing was tried."]

    python = project / "build/other/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nELSEWHERE=1 exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert tried(project, twice, more=in_environment + here) == 1
    *_, one, other, _ = capfd.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in (one, other)) == ["caught", "survived"]


def test_what_needs_an_environment_that_is_not_there_is_left_out_and_the_others_are_tried(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = TOY.format(promise="needs more", before="seconds > 9", after="seconds > 8") + 'environment = "other"\n'
    assert tried(project, ("twice two is four", "2 * x", "3 * x"), more=other) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith("left out   1 that need build/other")
    assert re.fullmatch(r"1 mutants in .* minutes: 1 caught, 0 timed out, 0 survived, 0 gone", said[-1])
