"""The door: plugins are known by kind and name before they are imported, wherever they come from."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from spikeserve.models import door, kinds
from spikeserve.models.errors import InvalidInput
from tests.sources import ROOT

HEAD = "from spikeserve.models.door import Plugin\n"
LOOSE = HEAD + 'PLUGINS = (Plugin("reader", "tally", ":read", "files of tallies", guess=lambda path: {sure}),)\n'
READ = "def read(path): return {'t': [len(path.name)]}\n"


@pytest.fixture(autouse=True)
def _opened_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read the environment at the first use in a test, and again after it."""
    door.plugins.cache_clear()
    yield
    monkeypatch.undo()
    door.plugins.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plugins, each a file of one's own."""
    monkeypatch.setenv(door.FOLDER, str(tmp_path))
    return tmp_path


def test_what_ships_is_known_and_nothing_heavy_is_imported_to_know_it() -> None:
    program = "import sys; from spikeserve.models.door import plugins; plugins(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "typer", "pydantic", "importlib.metadata"}.isdisjoint(loaded.stdout.split())


def test_a_shut_door_lets_nothing_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure=1) + READ)
    monkeypatch.setenv(door.LET_IN, "")
    assert door.plugins() == {}


def test_a_file_of_ones_own_is_a_plugin(folder: Path) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure="path.suffix == '.tally'") + READ)
    assert door.guessed("reader", Path("a.tally")).name == "tally"
    assert door.named("reader", "tally")(Path("four")) == {"t": [4]}


def test_an_installed_package_names_its_module_in_its_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(LOOSE.format(sure=1) + READ)
    (tmp_path / "theirs-2.0.dist-info").mkdir()
    points = f"[console_scripts]\na = b:c\n\n[{door.GROUP}]\ntally = theirs\n\n[other]\nx = y\n"
    (tmp_path / "theirs-2.0.dist-info/entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert door.of_kind("reader")["tally"].package == "theirs"
    assert door.named("reader", "tally")(Path("two")) == {"t": [3]}


def test_two_that_claim_a_name_are_an_error_that_names_both(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.py").write_text(LOOSE.format(sure=1))
    with pytest.raises(InvalidInput, match=rf"^reader 'tally' comes with {folder}/a.py, and with {folder}/b.py$"):
        door.plugins()
    (folder / "b.py").unlink()
    with pytest.raises(InvalidInput, match=rf"^reader 'tally' comes with spikeserve, and with {folder}/a.py$"):
        door.of_kind("reader", ["TALLY"])


@pytest.mark.parametrize(("sure", "may"), [((0.5, 0.5), "one or two"), ((0, 0), "anything")])
def test_a_file_of_which_two_are_as_sure_or_none_needs_a_name(
    folder: Path, sure: tuple[float, float], may: str
) -> None:
    for name, share in zip(("one", "two"), sure, strict=True):
        (folder / f"{name}.py").write_text(LOOSE.format(sure=share).replace("tally", name))
    with pytest.raises(InvalidInput, match=rf"^'x.h5' may be {may}, expected the name of its reader first: .*one, two"):
        door.guessed("reader", Path("x.h5"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LOOSE.format(sure=1).replace("reader", "rider"), "the kind 'rider' is none of importer, target, "),
        ("raise RuntimeError('no')", "cannot be imported: RuntimeError: no"),
    ],
)
def test_a_plugin_that_is_none_is_an_error_that_names_it(folder: Path, text: str, sentence: str) -> None:
    (folder / "odd.py").write_text(text)
    with pytest.raises(InvalidInput, match=r"odd\.py") as error:
        door.plugins()
    assert sentence in str(error.value)


def test_what_is_missing_says_what_to_install(folder: Path) -> None:
    needs = LOOSE.format(sure=1).replace(", guess", ', needs=("no_such_module",), guess')
    (folder / "tally.py").write_text(needs)
    with pytest.raises(InvalidInput, match=r"expected it here: pip install no_such_module$"):
        door.named("reader", "tally")
    (folder / "tally.py").write_text(needs.replace("guess=", 'extra="grpc", guess='))
    door.plugins.cache_clear()
    with pytest.raises(InvalidInput, match=r"^reader 'tally' needs the module no_such_module, .*\[grpc\]'$"):
        door.named("reader", "tally")


def test_a_name_that_nothing_has_lists_those_that_there_are(folder: Path) -> None:
    (folder / "tally.py").write_text(LOOSE.format(sure=1))
    with pytest.raises(InvalidInput, match=r"^reader: 'tele' is none here, expected .*tally"):
        door.named("reader", "tele")


def test_each_kind_is_documented() -> None:
    protocols = [each for each in vars(kinds).values() if getattr(each, "_is_protocol", False) and each is not Protocol]
    assert len(protocols) == len(door.KINDS) + 1  # and `Running`, of a protocol
    assert all(each.__doc__ for each in protocols)
