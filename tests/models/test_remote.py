"""A repository elsewhere: what is published there arrives whole and verified, and nothing else does."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from spikeserve.models.bundle import remote
from spikeserve.models.bundle.copies import RemoteRepository, cache_of, repository_at
from spikeserve.models.bundle.remote import CLAIM, Remote, RemoteFailed
from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from spikeserve.models.errors import BundleNotFound, InvalidBundle, InvalidInput
from tests.bundles import contents, publish
from tests.networks import toy
from tests.storage import BUCKET, STORAGES, endless, files_at

DIGITS = PRETRAINED / "digits/1"


@pytest.fixture(scope="module", params=STORAGES)
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    with STORAGES[request.param](tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A repository of this test's own."""
    return f"{server}/{abs(hash(request.node.nodeid))}"


def change(url: str, path: str, content: bytes) -> None:
    files_at(url).pipe_file(f"{url}/{path}", content)


def test_what_is_published_is_read_back_with_the_same_digest(url: str) -> None:
    repository = repository_at(url)
    assert [repository.publish(contents(toy())), repository.publish(contents(toy()))] == [1, 2]
    assert (repository.names(), repository.versions("toy")) == (["toy"], [1, 2])
    read = repository.read("toy")
    assert (read.manifest.version, read.digest) == (2, RemoteRepository(url).read("toy", 2).digest)
    assert repository.place("toy", 2) == f"{url}/toy/2"
    assert not [path for path in files_at(url).find(url) if path.endswith(CLAIM)]


def test_a_bundle_that_is_pushed_keeps_its_version_and_its_bytes(url: str, tmp_path: Path) -> None:
    there = Remote(url)
    assert there.push("digits", 1, DIGITS)
    assert not there.push("digits", 1, DIGITS)  # it is there
    there.copy("digits", 1, tmp_path)
    files = {path.name for path in DIGITS.iterdir()}
    assert {path.name for path in (tmp_path / "digits/1").iterdir()} == files
    assert all((tmp_path / "digits/1" / name).read_bytes() == (DIGITS / name).read_bytes() for name in files)


def test_another_bundle_does_not_take_a_version_that_is_there(url: str, tmp_path: Path) -> None:
    for each in ("one", "two"):
        publish(tmp_path / each, toy(time_steps=3 + (each == "two")))
    there, left = Remote(url), hashlib.sha256((tmp_path / "one/toy/1/bundle.json").read_bytes()).hexdigest()
    change(url, f"toy/1/{CLAIM}", left.encode())  # by a push of the first one that was killed
    with pytest.raises(InvalidInput, match="is being written by somebody, or was left behind"):
        there.push("toy", 1, tmp_path / "two/toy/1")
    assert there.push("toy", 1, tmp_path / "one/toy/1")
    assert not [path for path in files_at(url).find(url) if path.endswith(CLAIM)]
    with pytest.raises(InvalidInput, match="has another bundle as 'toy' version 1"):
        there.push("toy", 1, tmp_path / "two/toy/1")
    assert Remote(url).versions() == {"toy": [1]}


def test_publishers_at_the_same_time_take_versions_of_their_own(url: str) -> None:
    if url.startswith("hf://"):
        pytest.skip("a Hub replaces a file that another publisher has just made")
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(lambda _: RemoteRepository(url).publish(contents(toy())), range(4)))
    assert sorted(versions) == [1, 2, 3, 4]
    assert all(repository_at(url).read("toy", version) for version in versions)


def test_a_version_that_another_wrote_since_the_versions_were_listed_is_not_taken(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, others = RemoteRepository(url), [RemoteRepository(url)]
    find = one.remote.files.find

    def stale(*arguments: object) -> object:
        paths = find(*arguments)
        if others:
            others.pop().publish(contents(toy()))
        return paths

    monkeypatch.setattr(one.remote.files, "find", stale)
    assert one.publish(contents(toy())) == 2
    assert Remote(url).versions() == {"toy": [1, 2]}
    assert not [path for path in find(url) if path.endswith(CLAIM)]


def test_a_version_that_somebody_began_to_write_is_neither_listed_nor_taken(url: str) -> None:
    change(url, f"toy/1/{CLAIM}", b"")
    change(url, "toy/1/weights.safetensors", b"half of them")
    repository = repository_at(url)
    assert repository.names() == []
    assert repository.publish(contents(toy())) == 2


def test_what_a_publisher_may_not_write_leaves_nothing(url: str) -> None:
    with pytest.raises(RuntimeError, match="refused"):
        repository_at(url).publish(contents(toy()), check=_refuse)
    assert files_at(url).find(url) == []


def test_readers_see_a_version_once_its_last_file_is_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there, seen = Remote(url), list[dict[str, list[int]]]()
    put = there.files.put_file

    def watched(source: str, target: str) -> None:
        put(source, target)
        seen.append(Remote(url).versions())

    monkeypatch.setattr(there.files, "put_file", watched)
    there.push("digits", 1, DIGITS)
    assert seen == [{}] * (len(list(DIGITS.iterdir())) - 1) + [{"digits": [1]}]


def test_a_publication_that_fails_midway_leaves_nothing_and_the_next_takes_its_version(
    url: str, tmp_path: Path
) -> None:
    publish(tmp_path, toy())
    last = list(json.loads((tmp_path / "toy/1/bundle.json").read_text())["files"])[-1]
    (tmp_path / "toy/1" / last).unlink()  # all before it have been written by then
    with pytest.raises(RemoteFailed):
        Remote(url).push("toy", 1, tmp_path / "toy/1")
    assert files_at(url).find(url) == []
    assert repository_at(url).publish(contents(toy())) == 1


def _refuse(_: object) -> None:
    raise RuntimeError("refused")


@pytest.mark.filterwarnings("ignore:Sending a large body directly")  # aiohttp, of what gcsfs gives it
@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("weights.safetensors", b"other weights", "weights.safetensors: its sha256 is "),
        ("card.md", b"x" * (2**20 + 1), "card.md: has more than 1048576 bytes"),
        ("bundle.json", b"[]", "bundle.json: Input should be an object"),
        ("bundle.json", b"no JSON", "bundle.json: Invalid JSON"),
        ("bundle.json", b"[" * 100_000, "bundle.json: Invalid JSON: recursion limit"),
        ("bundle.json", b'{"files": {"../../evil": "00"}}', "bundle.json: files"),
    ],
)
def test_a_file_that_is_not_what_bundle_json_says_is_not_copied(
    url: str, tmp_path: Path, file: str, content: bytes, sentence: str
) -> None:
    Remote(url).push("digits", 1, DIGITS)
    change(url, f"digits/1/{file}", content)
    with pytest.raises(InvalidBundle, match=sentence):
        Remote(url).copy("digits", 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_missing_is_named(url: str, tmp_path: Path) -> None:
    Remote(url).push("digits", 1, DIGITS)
    files_at(url).rm_file(f"{url}/digits/1/golden.safetensors")
    with pytest.raises(InvalidBundle, match=r"golden\.safetensors: missing from the bundle"):
        Remote(url).copy("digits", 1, tmp_path)


# Places that are no versions, and names that lead out of the repository.
OTHER_PLACES = (
    *("digits/0/bundle.json", "digits/x/bundle.json", "2/1/bundle.json", "digits/bundle.json", "a/b/c/d"),
    *("../toy/1/bundle.json", "a/../bundle.json", "digits/../../toy/1/bundle.json", "/etc/1/bundle.json"),
)


def test_places_that_are_no_versions_or_lead_out_of_the_repository_are_left_alone(url: str) -> None:
    Remote(url).push("digits", 1, DIGITS)
    for path in OTHER_PLACES[: 5 if url.startswith("hf://") else None]:  # huggingface_hub writes no others
        change(url, path, b"{}")
    assert Remote(url).versions() == {"digits": [1]}
    with pytest.raises(BundleNotFound, match="model 'braille' is not in the repository; it holds: digits"):
        repository_at(url).read("braille")


def test_a_repository_of_too_many_files_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Remote(url).push("digits", 1, DIGITS)
    files = len(list(DIGITS.iterdir()))
    monkeypatch.setattr(remote, "MAX_FILES", files)
    assert Remote(url).versions() == {"digits": [1]}
    monkeypatch.setattr(remote, "MAX_FILES", files - 1)
    with pytest.raises(RemoteFailed, match=f"holds {files} files, expected at most {files - 1}"):
        Remote(url).versions()


def test_a_version_that_no_other_can_follow_is_refused(url: str) -> None:
    change(url, f"toy/999999999/{CLAIM}", b"")
    with pytest.raises(InvalidInput, match="has version 999999999, the highest there is"):
        repository_at(url).publish(contents(toy()))


@pytest.mark.parametrize(
    ("content", "name"), [(b"digits", "digits"), (b"", ""), (b"\xff", "\ufffd"), (b"x" * 2000, None), (None, None)]
)
def test_the_default_is_what_its_file_holds(url: str, content: bytes | None, name: str | None) -> None:
    if content is not None:
        change(url, "default", content)
    assert Remote(url).default() == name


def test_processes_that_read_one_version_at_once_copy_it_once(url: str) -> None:
    repository_at(url).publish(contents(toy()))
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda _: repository_at(url).read("toy").digest, range(4)))
    assert len(set(read)) == 1
    assert [path.name for path in (cache_of(url) / "toy").iterdir()] == ["1"]


def test_what_a_storage_says_is_one_line_of_bounded_length() -> None:
    said = str(RemoteFailed("repository: s3://b " + "\x1b[2J\n" * 10_000))
    assert said.isprintable()
    assert len(said) < 600


def test_files_that_come_too_slowly_are_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: it is of the extra remote")
    monkeypatch.setattr(remote, "FILE_SECONDS", 0.5)
    with endless(b"x", 100_000, 0.02) as slow, pytest.raises(RemoteFailed, match="Timeout"):
        Remote(f"{slow}/models").read_file("toy", 1, "card.md")
    monkeypatch.setattr(remote, "FILE_SECONDS", -1)
    with pytest.raises(RemoteFailed, match=r"card\.md takes longer than -1 seconds to read"):
        Remote(PRETRAINED.as_uri()).read_file("digits", 1, "card.md")
    # One look at the clock for a whole copy, and one for each of the files, which are as many seconds apart.
    monkeypatch.setattr(remote, "FILE_SECONDS", len(list(DIGITS.iterdir())) - 1)
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=itertools.count().__next__, time=float))
    with pytest.raises(RemoteFailed, match=r"takes longer than \d seconds to read"):
        Remote(PRETRAINED.as_uri()).copy("digits", 1, tmp_path)


@pytest.mark.parametrize(
    ("url", "package", "sentence"),
    [
        ("hf://owner/repository", "huggingface_hub", "needs huggingface_hub, expected the extra `hub`: pip install "),
        ("oci://bucket@namespace/models", "ocifs", "needs ocifs, Oracle's package for its object storage: pip install"),
        ("oci://registry.example/model:1", "ocifs", "a model in an OCI image is not read from a registry, expected th"),
        ("nowhere://bucket", "nowhere", "is no URL that fsspec opens"),
        ("az://container/models", "adlfs", "needs a package that is in no extra of spikeserve: Install adlfs"),
    ],
)
def test_a_url_that_nothing_opens_is_refused_with_what_is_missing(url: str, package: str, sentence: str) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    with pytest.raises(InvalidInput, match=f"repository: '{url}' .*{sentence}"):
        Remote(url)


def test_a_bucket_that_is_not_there_is_named(server: str) -> None:
    elsewhere = server.partition("://")[0] + "://none-such/models"
    with pytest.raises(RemoteFailed, match=f"repository: {elsewhere}"):
        Remote(elsewhere).push("digits", 1, DIGITS)


def test_a_server_that_cannot_be_reached_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed here: it is of the extra 'remote'")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(RemoteFailed, match=f"repository: s3://{BUCKET} cannot be used: .*127.0.0.1:9"):
        Remote(f"s3://{BUCKET}").versions()
    fsspec.filesystem("s3").clear_instance_cache()


def test_urls_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {cache_of(url, tmp_path) for url in ("s3://a/b", "s3://a-b", "gs://a/b", "s3://a/b/")}
    assert len(folders) == 4
    assert all(folder.parent == tmp_path for folder in folders)


def test_a_folder_is_an_ordinary_repository(tmp_path: Path) -> None:
    assert type(repository_at(str(tmp_path))) is ModelRepository
    assert Remote(tmp_path.as_uri()).push("digits", 1, DIGITS)  # also by a URL
    assert repository_at(tmp_path).read("digits").manifest.version == 1
    assert repository_at(PRETRAINED).read("digits").manifest.version == 1
    assert json.loads((DIGITS / "bundle.json").read_text())["name"] == "digits"
