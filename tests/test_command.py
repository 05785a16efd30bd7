"""The command `spikeserve`: each sub-command is the code that the service or training runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spikeserve.__main__ import COMMANDS, main, usage
from spikeserve.models import door
from spikeserve.models.bundle.repository import WithGallery, bundle_folder
from spikeserve.models.errors import install
from spikeserve.training import __main__ as training
from tests.apps import OF_PLUGINS
from tests.pages import section
from tests.sources import PROJECT, ROOT

ALL = [*COMMANDS, *door.of_kind("command")]


def test_every_command_of_training_is_one_of_the_command() -> None:
    assert {name for name, (room, _) in COMMANDS.items() if room == "training"} == training.COMMANDS.keys() - {"check"}
    by_typer = door.of_kind("command").keys() - {"batch", "models", "pull", "push", "run"}
    assert by_typer == OF_PLUGINS.keys()


def test_help_has_a_line_for_each_command_and_a_wrong_one_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main([]) == 0
    assert re.findall(r"^  ([\w-]+)  ", capsys.readouterr().out, re.MULTILINE) == ALL * 2
    assert main(["sevre"]) == main(["xyz"]) == 2
    near, far = capsys.readouterr().err.splitlines()
    assert near == "spikeserve: 'sevre' is no command, did you mean 'serve'?"
    assert far.startswith("spikeserve: 'xyz' is no command, expected one of serve, check, keys, fit,")


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


@pytest.mark.parametrize("words", ["fit --slope 3", "models --repo repository", "run digits --eng event"])
def test_a_flag_that_is_none_is_not_taken_for_another(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words.split())
    assert re.search(r"(No such option|unrecognized arguments): --\w+ ( *│|\w+\n)", capsys.readouterr().err)


def test_what_is_missing_is_installed_from_the_folder_of_a_checkout() -> None:
    assert install("grpc") == f"pip install -e '{ROOT}[grpc]'"  # an installed one: tests/test_installed.py


def test_the_page_of_the_command_has_a_row_for_each_and_each_example() -> None:
    page = (ROOT / "docs/command.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| \w+ (.*?) \|", section(page, "Sub-commands"), re.MULTILINE))
    assert sorted(rows) == sorted(ALL)
    for name, said in re.findall(r"^  ([\w-]+) +\w+ (.*)$", usage(), re.MULTILINE):
        assert re.sub(r"\b(publish|write)e?s\b", r"\1", rows[name]).startswith(said)
    named = re.findall(r"^\| `(examples/\w+\.py)` \|", section(page, "Five short programs"), re.MULTILINE)
    assert {ROOT / path for path in named} == set((ROOT / "examples").glob("*.py"))
    extras = re.findall(r"^\| (.*?) \|", section(page, "Install").rpartition("|---|---|---|")[2], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(extras))) <= PROJECT["optional-dependencies"].keys()


def test_the_top_of_the_command_loads_no_library_of_serving_or_training() -> None:
    program = "import sys; from spikeserve.__main__ import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "spikeserve.__main__" in loaded
    libraries = ("numpy", "torch", "typer", "fastapi", "pydantic", "httpx", "spikeserve.service", "spikeserve.training")
    assert [
        name for name in loaded if name.startswith(libraries) or re.match(r"spikeserve\.plugins\.\w+\.", name)
    ] == []


def test_a_folder_is_checked_by_the_service_and_a_file_by_its_importer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "graph.nir"
    file.touch()
    for words in ([str(file)], ["--dt", "0.1", str(file)]):
        with pytest.raises(SystemExit):
            main(["check", *words])
        assert "graph.nir': it is not a NIR file" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--api-keys", f"@{file}"]) == 2
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "NIR" not in capsys.readouterr().err


@pytest.mark.parametrize("against", ["wasm", "c:nets:make", "nir:graph.nir", "tensorflow:nets:make"])
def test_a_bundle_is_verified_against_what_can_run_it(against: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "digits", "--against", against])
    assert f"--against is '{against}', expected c, or a framework and your code: snn" in capsys.readouterr().err


LOOSE = """
import sys
from spikeserve.models.door import Plugin
PLUGINS = (Plugin("command", "twice", ":main", "doubles a number", needs=("no_such_module",) * {lacks}),)
def twice(number):
    return 2 * number
def main(words):
    from spikeserve.models.isolated import Limits, call
    print(call(twice, int(words[0]), limits=Limits(60, 2**33), refused=ValueError), sys.path)
"""


def test_a_folder_of_plugins_is_known_here_and_in_children_and_is_on_no_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOOSE.format(lacks=0))
    shown, path = spikeserve("--plugins-dir", tmp_path, "twice", "21").stdout.split(maxsplit=1)
    assert shown == "42"
    assert str(tmp_path) not in path
    assert "  twice      doubles a number\n" in spikeserve("--plugins-dir", tmp_path, "--help").stdout


def test_the_plugins_are_listed_with_what_they_lack(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOOSE.format(lacks=1))
    header, *rows = spikeserve("--plugins-dir", tmp_path, "plugins").stdout.splitlines()
    assert header.split() == ["kind", "name", "comes", "with", "what", "it", "is", "missing"]
    assert {tuple(row.split()[:2]) for row in rows} == {*door.opened()[0], ("command", "twice")}
    assert rows[-1].split() == ["command", "twice", f"{tmp_path}/mine.py", "doubles", "a", "number", "no_such_module"]


@pytest.mark.parametrize("words", ["", "  fit", "=lab fit", " lab --plugins-dir lab fit"])
def test_a_folder_of_plugins_is_one_that_stands_before_the_command(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"--plugins-dir{words}".split(" ")) == 2
    assert capsys.readouterr().err == "spikeserve: --plugins-dir: expected one folder behind it, before the command\n"


def spikeserve(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spikeserve", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
