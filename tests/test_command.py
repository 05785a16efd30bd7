"""The command `spikeserve`: each sub-command is the code that the service or training runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from spikeserve.__main__ import COMMANDS, main, package_of
from spikeserve.training.__main__ import app
from tests.pages import section
from tests.sources import OURS, PROJECT, ROOT


def test_every_command_of_training_is_one_of_the_command() -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    ours = {name for name, command in COMMANDS.items() if command.package == "training"}
    assert program.commands.keys() - ours == {"check"}  # a NIR file's, which `check` of the service is as well
    assert {command.words for name, command in COMMANDS.items() if name in ours} == {(name,) for name in ours}


def test_help_has_a_line_for_each_command_and_a_wrong_one_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main([]) == 0
    assert re.findall(r"^  ([\w-]+)  ", capsys.readouterr().out, re.MULTILINE) == [*COMMANDS] * 2
    assert main(["sevre"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("spikeserve: 'sevre' is no command, expected one of models, pull, run, serve, check, keys,")


def test_the_page_of_the_command_has_a_row_for_each_and_each_example() -> None:
    page = (ROOT / "docs/command.md").read_text()
    assert re.findall(r"^\| `([\w-]+)` \|", section(page, "Sub-commands"), re.MULTILINE) == [*COMMANDS]
    named = re.findall(r"^\| `(examples/\w+\.py)` \|", section(page, "Five short programs"), re.MULTILINE)
    assert {ROOT / path for path in named} == set((ROOT / "examples").glob("*.py"))
    extras = re.findall(r"^\| (.*?) \|", section(page, "Install").rpartition("|---|---|---|")[2], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(extras))) <= PROJECT["optional-dependencies"].keys()


def test_the_top_of_the_command_loads_no_library_of_serving_or_training() -> None:
    program = "import sys; from spikeserve.__main__ import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "spikeserve.__main__" in loaded
    libraries = {"torch", "typer", "fastapi", "pydantic", "httpx", *OURS}
    assert [name for name in loaded if name.startswith(tuple(libraries))] == []


def test_a_folder_is_checked_by_the_service_and_a_file_by_training(tmp_path: Path) -> None:
    file, folder = tmp_path / "graph.nir", str(tmp_path)
    file.touch()
    assert package_of("check", [folder, "--api-keys", f"@{file}"]) == "service"
    assert package_of("check", [str(file)]) == package_of("check", ["--dt", "0.1", str(file)]) == "training"
    assert package_of("check", [str(tmp_path / "nothing")]) == "service"
    assert package_of("verify", [str(file)]) == "training"
    assert package_of("keys", [str(file)]) == "service"
