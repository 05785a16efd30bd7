"""Repositories on a Hub at a fixed revision, by the real `huggingface_hub`: ./scripts/test-hub runs them."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from spikeserve.models.bundle.copies import RemoteRepository
from spikeserve.models.bundle.remote import Remote, RemoteFailed
from spikeserve.models.bundle.repository import PRETRAINED
from tests.hub import server
from tests.storage import hf

DIGITS = PRETRAINED / "digits/1"

if find_spec("huggingface_hub") is None:
    pytest.skip("huggingface_hub is not installed here: ./scripts/test-hub", allow_module_level=True)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with hf(tmp_path / "cache") as url:
        yield url


def at(url: str, revision: str) -> str:
    return url.replace("/models", f"@{revision}/models")


def head(url: str) -> str:
    return server.repositories[url.removeprefix("hf://").removesuffix("/models")].head


def test_a_commit_holds_the_versions_of_its_time(url: str, tmp_path: Path) -> None:
    Remote(url).push("digits", 1, DIGITS)
    then = head(url)
    Remote(url).push("digits", 2, DIGITS)
    assert Remote(url).versions() == Remote(at(url, "main")).versions() == {"digits": [1, 2]}
    assert Remote(at(url, then)).versions() == {"digits": [1]}
    Remote(at(url, then)).copy("digits", 1, tmp_path)
    assert (tmp_path / "digits/1/bundle.json").read_bytes() == (DIGITS / "bundle.json").read_bytes()
    assert RemoteRepository(at(url, then)).read("digits").manifest.version == 1


def test_a_branch_takes_new_versions_and_a_commit_does_not(url: str) -> None:
    Remote(at(url, "main")).push("digits", 1, DIGITS)
    then = at(url, head(url))
    with pytest.raises(RemoteFailed, match=f"repository: {then} cannot be used: .*Invalid rev id, expected a branch"):
        Remote(then).push("digits", 2, DIGITS)
    assert Remote(url).versions() == {"digits": [1]}


def test_a_revision_that_is_not_there_is_named(url: str) -> None:
    with pytest.raises(RemoteFailed, match=f"repository: {at(url, 'none')} is not there"):
        Remote(at(url, "none")).push("digits", 1, DIGITS)


def test_the_kind_of_a_repository_may_be_said(url: str) -> None:
    Remote(url).push("digits", 1, DIGITS)
    assert Remote(url.replace("hf://", "hf://models/")).versions() == {"digits": [1]}
