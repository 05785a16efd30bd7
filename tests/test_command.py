"""The command `spikeserve`: each sub-command is the code that the service or training runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from spikeserve.__main__ import COMMANDS, main, package_of
from spikeserve.models.bundle.repository import WithGallery, bundle_folder
from spikeserve.models.errors import install
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
    assert main(["sevre"]) == main(["xyz"]) == 2
    near, far = capsys.readouterr().err.splitlines()
    assert near == "spikeserve: 'sevre' is no command, did you mean 'serve'?"
    assert far.startswith("spikeserve: 'xyz' is no command, expected one of models, pull, run, serve, check, keys,")


@pytest.mark.parametrize("arguments", ["--help", "serve --help", "models"])
def test_a_pipe_that_is_closed_ends_a_command_quietly(arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "spikeserve", *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


def test_a_bundle_is_named_by_folder_or_name_pulled_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped, url = ROOT / "models/pretrained/digits/1", f"memory://{tmp_path.name}"
    assert main(["push", "digits", url]) == main(["push", str(shipped), url]) == 0
    assert main(["check", "digits", "--engine", "reference"]) == 0
    for command in ("export c digits out", "export nir digits x.nir", "verify digits --against c", "quantise digits"):
        with pytest.raises(SystemExit) as ended:
            main(command.split())
        assert not ended.value.code, command
    assert bundle_folder("digits") == Path("repository/digits/1")  # which `quantise` published
    assert WithGallery(Path("repository")).home("digits") == Path("repository/digits")
    assert bundle_folder("braille").samefile(ROOT / "models/pretrained/braille/1")


def test_a_bundle_becomes_c_where_there_is_no_pytorch(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from spikeserve.__main__ import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "export", "c", "digits", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.c", "digits.h"]


def test_what_is_missing_is_installed_from_the_folder_of_a_checkout() -> None:
    assert install("grpc") == f"pip install -e '{ROOT}[grpc]'"  # an installed one: tests/test_installed.py


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
