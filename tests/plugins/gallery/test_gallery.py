"""`spikeserve models` and `spikeserve pull`: the list of models, and a copy of one, checked and whole."""

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spikeserve.models.bundle.remote import Remote
from spikeserve.models.bundle.repository import PRETRAINED, SHIPPED, ModelRepository
from spikeserve.models.errors import BundleNotFound, InvalidBundle, InvalidInput
from spikeserve.plugins.gallery.commands import Folder, main, pull, rows
from tests.sources import ROOT

NAMES = [name for each in SHIPPED for name in ModelRepository(each).names()]


def test_the_list_has_what_each_card_and_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("models", []) == 0
    header, *listed = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "accuracy", "size", "operations", "licence", "what", "it", "does"]
    assert [line.split()[0] for line in listed] == NAMES
    found = {row.name: row for row in rows(None)}
    assert found["digits"][1:5] == ("99.7%", "337 kB", "582267", "apache-2.0")
    assert found["digits"].what == "Reads handwritten digits of 8×8 pixels"
    assert all(row.license and row.what and float(row.size.split()[0]) < 1000 for row in found.values())


def test_the_page_has_a_row_and_the_accuracy_of_each() -> None:
    page = (ROOT / "docs/gallery.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \|.*\| ([\d.]+) % \| [^|]* \|$", page, re.MULTILINE)
    assert {name: f"{right}%" for name, right in listed} == {row.name: row.accuracy for row in rows(None)}


@pytest.mark.parametrize("where", [str, Path.as_uri])
def test_a_model_is_copied_whole_and_once(where: Callable[[Path], str], tmp_path: Path) -> None:
    source, target = where(PRETRAINED), tmp_path / "mine"
    with ThreadPoolExecutor() as pool:
        said = set(pool.map(lambda _: pull("digits", target, source), range(4)))
    assert said == {f"Copied to {target}/digits/1", f"It is already at {target}/digits/1"}
    assert ModelRepository(target).read("digits").digest == ModelRepository(PRETRAINED).read("digits").digest
    assert [each.name for each in (target / "digits").iterdir()] == ["1"]
    (target / "digits/1/bundle.json").write_text("{}")
    with pytest.raises(InvalidInput, match="is another bundle, expected none there"):
        pull("digits", target, source)


def test_what_a_killed_process_left_of_a_copy_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    killed, written = (tmp_path / f"digits/.incoming-{name}" for name in ("killed", "written"))
    (killed / "half").mkdir(parents=True)
    written.mkdir()
    os.utime(killed, (0, 0))
    pull("digits", tmp_path, None)
    assert sorted(each.name for each in (tmp_path / "digits").iterdir()) == [written.name, "1"]


@pytest.mark.parametrize("kind", [Folder, lambda path: Remote(path.as_uri())])
def test_a_damaged_bundle_leaves_nothing_and_is_listed(kind: Callable[[Path], Folder | Remote], tmp_path: Path) -> None:
    shutil.copytree(PRETRAINED / "digits", tmp_path / "there/digits")
    there, card = kind(tmp_path / "there"), tmp_path / "there/digits/1/card.md"
    assert there.size("digits", 1) == sum(each.stat().st_size for each in (PRETRAINED / "digits/1").iterdir())
    card.write_text("\x1b[2Jit is another")
    with pytest.raises(InvalidBundle, match=r"card\.md: its sha256 is"):
        there.copy("digits", 1, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    (tmp_path / "there/digits/1/bundle.json").write_text('{"metrics": {"test_accuracy": "much"}}')
    (row,) = rows(str(tmp_path / "there"))
    assert "metrics" in row.what
    card.write_bytes(bytes(2**20 + 1))
    with pytest.raises(InvalidBundle, match=r"card\.md: has (more than )?1048"):
        there.read_file("digits", 1, "card.md")


def test_names_that_lead_elsewhere_or_nowhere_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../digits", "digits/1", "/etc", ".", ""):
        with pytest.raises(InvalidInput, match="is not a model's name"):
            pull(name, tmp_path, None)
    with pytest.raises(BundleNotFound, match="model 'digit' is not there; expected one of: braille, digits, "):
        pull("digit", tmp_path, None)
    assert main("models", ["--repository", str(tmp_path / "none")]) == 1
    (tmp_path / "file").touch()
    assert main("pull", ["digits", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"spikeserve: repository: '{tmp_path}/none' is no folder, expected one or a URL such as s3://bucket/models",
        f"spikeserve: '{tmp_path}/file/digits': Not a directory",
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("words", [["models"], ["pull", "digits", "mine"]], ids=str)
def test_a_pipe_in_a_repository_is_no_file_to_wait_for(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PRETRAINED / "digits", tmp_path / "there/digits")
    (card := tmp_path / "there/digits/1/card.md").unlink()
    os.mkfifo(card)
    monkeypatch.chdir(tmp_path)
    status = main(words[0], [*words[1:], "--repository", (tmp_path / "there").as_uri()])
    assert (status, capsys.readouterr().err) in ((0, ""), (1, "spikeserve: card.md: is not a file\n"))
    assert [each.name for each in tmp_path.iterdir()] == ["there"]
