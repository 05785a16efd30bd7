"""The door: plugins are known by kind and name before they are imported, wherever they come from."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from spikeserve.__main__ import main
from spikeserve.models import door, kinds
from spikeserve.models.errors import InvalidInput
from tests.sources import ROOT

HEAD = "from spikeserve.models.door import Plugin\n"
LOOSE = HEAD + 'PLUGINS = (Plugin("reader", "tally", ":read", "files of tallies", guess=lambda path: {sure}),)\n'
READ = "def read(path): return {'t': [len(path.name)]}\n"


@pytest.fixture(autouse=True)
def _opened_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read the environment at the first use in a test, and again after it."""
    door.opened.cache_clear()
    yield
    monkeypatch.undo()
    door.opened.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plugins, each a file of one's own."""
    monkeypatch.setenv(door.FOLDER, str(tmp_path))
    return tmp_path


def test_what_ships_is_known_and_nothing_heavy_is_imported_to_know_it() -> None:
    program = "import sys; from spikeserve.models.door import opened; opened(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "typer", "pydantic", "importlib.metadata"}.isdisjoint(loaded.stdout.split())


def test_a_shut_door_lets_nothing_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure=1) + READ)
    monkeypatch.setenv(door.LET_IN, "")
    assert door.opened() == ({}, [])


def test_a_file_of_ones_own_is_a_plugin(folder: Path) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure="path.suffix == '.tally'") + READ)
    assert door.guessed("reader", Path("a.tally"), {}).name == "tally"
    assert door.named("reader", "tally")(Path("four")) == {"t": [4]}


@pytest.mark.parametrize(("name", "listed"), [("tally", "tally"), ("grpc", "theirs:grpc")])
def test_an_installed_package_names_its_module_in_its_entry_points(
    name: str, listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(LOOSE.format(sure=1) + READ)
    (tmp_path / "theirs-2.0.dist-info").mkdir()
    points = f"[console_scripts]\na = b:c\n\n[{door.GROUP}]\n{name} = theirs\n\n[other]\nx = y\n"
    (tmp_path / "theirs-2.0.dist-info/entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert door.of_kind("reader")["tally"].package == "theirs"
    assert door.named("reader", "tally")(Path("two")) == {"t": [3]}
    for let_in, readers in ((listed, {"tally"}), ("grpc", set[str]())):  # a name that ships lets in nobody else's
        monkeypatch.setenv(door.LET_IN, let_in)
        door.opened.cache_clear()
        assert door.of_kind("reader").keys() == readers


def test_two_that_claim_a_name_are_an_error_that_names_both(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.py").write_text(LOOSE.format(sure=1))
    with pytest.raises(InvalidInput, match=rf": reader 'tally' comes with {folder}/a.py, and with {folder}/b.py; "):
        door.of_kind("engine")
    (folder / "b.py").unlink()
    door.opened.cache_clear()
    with pytest.raises(InvalidInput, match=rf"^reader 'tally' comes with spikeserve, and with {folder}/a.py; SPIKE"):
        door.of_kind("reader", ["TALLY"])


@pytest.mark.parametrize(("sure", "may"), [((0.5, 0.5), "one or two"), ((0, 0), "anything")])
def test_a_file_of_which_two_are_as_sure_or_none_needs_a_name(
    folder: Path, sure: tuple[float, float], may: str
) -> None:
    for name, share in zip(("one", "two"), sure, strict=True):
        (folder / f"{name}.py").write_text(LOOSE.format(sure=share).replace("tally", name))
    with pytest.raises(InvalidInput, match=rf"^'x.h5' may be {may}, expected the name of its reader first: .*one, two"):
        door.guessed("reader", Path("x.h5"), {})


RECORD = HEAD + "PLUGINS = (Plugin({}),)"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("raise RuntimeError('no\\nway')", r"RuntimeError: no\nway"),
        ("def (:", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("\0", "null bytes"),
        ("", "has no attribute 'PLUGINS'"),
        ("PLUGINS = [1]", "PLUGINS has [1], expected a Plugin of one of the kinds importer"),
        *((RECORD.format(record), "PLUGINS has Plugin(") for record in ("'rider', 'a', ':b', ''", "[], 'a', ':b', ''",
            "'reader', '--help', ':b', ''", "'reader', 'a', ':b', 3", "'reader', 'a', ':b', '', needs='numpy'",
            "'reader', 'a', ':b', '', guess=0.5")),
        (RECORD.format("'command', 'serve', ':b', ''"), "command 'serve' comes with spikeserve, and with "),
        (RECORD.format("'target', 'c', ':b', ''"), "target 'c' comes with spikeserve, and with "),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_opened_is_a_sentence_on_how_to_leave_it_out(
    folder: Path, text: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my-odd.py").write_text(text)
    assert (main(["--help"]), main(["plugins"]), main(["fti"])) == (0, 0, 1)
    *_, said = printed = capsys.readouterr().err.splitlines()
    assert set(printed) == {said}
    assert f"{folder}/my-odd.py" in said
    assert sentence in said
    (listed,) = re.findall(r"SPIKESERVE_PLUGINS=(\S+) leaves it out$", said)
    monkeypatch.setenv(door.LET_IN, listed)
    door.opened.cache_clear()
    assert door.of_kind("target")


@pytest.mark.parametrize(
    ("guess", "sentence"),
    [("1 / 0", "ZeroDivisionError"), ("'yes'", "ValueError: could not"), ("2", "its guess is 2.0")],
)
def test_a_guess_that_fails_names_the_plugin_and_none_is_asked_of_a_pipe(
    folder: Path, guess: str, sentence: str
) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure=guess))
    with pytest.raises(InvalidInput, match=rf"^'x': reader 'tally' of {folder}/tally.py: {sentence}"):
        door.surest("reader", Path("x"), {})
    os.mkfifo(pipe := folder / "pipe")
    assert door.surest("reader", pipe, {}) == []


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        (door.LET_IN, "nir, nri", "SPIKESERVE_PLUGINS: 'nri' is no plugin here, expected some of c, frameworks, "),
        (door.FOLDER, "nothing", "--plugins-dir is 'nothing', expected a folder that has a plugin, "),
        (door.FOLDER, str(ROOT / "plugins"), "expected a folder that has a plugin, "),
    ],
)
def test_a_list_or_a_folder_that_names_what_is_not_there_is_refused(
    variable: str, text: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(InvalidInput, match=re.escape(sentence)):
        door.opened()


def test_what_is_missing_says_what_to_install(folder: Path) -> None:
    needs = LOOSE.format(sure=1).replace(", guess", ', needs=("no_such_module",), guess')
    (folder / "tally.py").write_text(needs)
    with pytest.raises(InvalidInput, match=r"expected it here: pip install no_such_module$"):
        door.named("reader", "tally")
    (folder / "tally.py").write_text(needs.replace("guess=", 'extra="grpc", guess='))
    door.opened.cache_clear()
    with pytest.raises(InvalidInput, match=r"^reader 'tally' needs the module no_such_module, .*\[grpc\]'$"):
        door.named("reader", "tally")


def test_a_name_that_nothing_has_lists_those_that_there_are(folder: Path) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure=1))
    with pytest.raises(InvalidInput, match=r"^reader: 'tele' is none here, expected .*tally"):
        door.named("reader", "tele")


def test_each_kind_is_documented() -> None:
    protocols = [each for each in vars(kinds).values() if getattr(each, "_is_protocol", False) and each is not Protocol]
    assert len(protocols) == len(door.KINDS)
    assert all(each.__doc__ for each in protocols)
