"""A server of a repository elsewhere serves verified copies, takes new versions, and goes on without the storage."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog.testing

from spikeserve.models.bundle.copies import CACHE, cache_of, locked, repository_at
from spikeserve.models.bundle.remote import Remote
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.service.catalog import mirror
from spikeserve.service.catalog.mirror import LOOKED, RefreshResult, refresh, tell, update
from spikeserve.service.settings import Settings
from tests.bundles import contents
from tests.forks import SERVICE, Fork
from tests.networks import toy
from tests.service.processes import children
from tests.serving import running, serving
from tests.storage import STORAGES, endless, files_at

each_storage = pytest.mark.parametrize("url", STORAGES, indirect=True)  # the other tests have the first one


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Return a function that gives a storage's URL; its server starts once, and runs for all tests."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(STORAGES[kind](tmp_path_factory.mktemp("cache"))))


@pytest.fixture
def url(storages: Callable[[str], str], request: pytest.FixtureRequest) -> str:
    """A repository of this test's own that holds one version."""
    url = f"{storages(getattr(request, 'param', next(iter(STORAGES))))}/{uuid4().hex}"
    repository_at(url).publish(contents(toy()))
    return url


def look(url: str, versions: str = "latest") -> RefreshResult:
    """Bring the copies up to date as the process of a server does, but in this one, which has the packages already."""
    return update(url, str(cache_of(url)), versions)


def ask(server: str) -> dict[str, Any]:
    answer = httpx.post(f"{server}/models/toy/predict", json={"inputs": [[1.0, 0.0]]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_new_version_is_copied_once_and_served_by_each_worker(url: str) -> None:
    assert str(cache_of(url).parent) == os.environ[CACHE]
    with running(url, "--engine", "reference", "--poll-seconds", "2", "--workers", "2") as service:
        service.wait_for("model_ready")  # in the other worker
        first = ask(service.url)
        repository_at(url).publish(contents(toy(time_steps=2)))
        for _ in range(2):
            service.wait_for("model_retired")
        second = ask(service.url)
        assert (first["version"], second["version"]) == (1, 2)
        assert service.stop() == 0
        copied = [entry["bundle"] for entry in service.entries if entry["event"] == "bundle_copied"]
        assert copied == ["toy/1", "toy/2"]  # what one worker has copied the other one does not copy again


def test_a_server_outlives_the_storage_and_says_why_there_may_be_newer_versions(url: str) -> None:
    look(url)
    files_at(url).rm(url, recursive=True)
    with running(url, "--engine", "reference") as service:
        (said,) = [entry for entry in service.entries if entry["event"] == "repository_unreachable"]
        assert said["error"] == f"repository: {url} holds no model, expected <name>/<version>/ with a bundle.json"
        assert ask(service.url)["version"] == 1
        assert service.stop() == 0


def test_a_version_that_is_withdrawn_is_served_no_more(url: str) -> None:
    repository_at(url).publish(contents(toy()))
    look(url)
    files_at(url).rm(f"{url}/toy/2", recursive=True)
    with serving(url) as client:
        assert client.get("/models/toy").json()["version"] == 1


def test_a_model_that_is_gone_from_there_is_gone_from_the_copies_and_the_others_stay(url: str) -> None:
    for name in ("other", "other", "last"):
        repository_at(url).publish(contents(toy(), name))
    here = ModelRepository(cache_of(url))
    assert look(url, "all").copied == ["last/1", "other/1", "other/2", "toy/1"]
    for name in ("other", "last"):
        files_at(url).rm(f"{url}/{name}", recursive=True)
    assert sorted(look(url, "all").removed) == ["last/1", "other/1", "other/2"]
    assert (here.names(), here.versions("toy")) == (["toy"], [1])
    assert sorted(path.name for path in cache_of(url).iterdir() if path.is_dir()) == ["toy"]  # no empty folder either


def test_what_one_worker_has_looked_for_the_others_do_not_ask_for_again(url: str) -> None:
    look(url)
    files_at(url).rm(url, recursive=True)
    assert refresh(Settings(repository=url), fresh=3600) == RefreshResult()
    os.utime(cache_of(url) / LOOKED, (time.time() - 3601,) * 2)
    assert "holds no model" in str(refresh(Settings(repository=url), fresh=3600).failed)


@each_storage
def test_a_damaged_version_is_refused_and_the_one_before_is_served(url: str) -> None:
    repository_at(url).publish(contents(toy()))
    files_at(url).pipe_file(f"{url}/toy/2/weights.safetensors", b"")
    with structlog.testing.capture_logs() as log:
        tell(look(url, "all"))
    (said,) = [entry for entry in log if entry["event"] == "bundle_refused"]
    assert said["bundle"] == "toy/2"
    assert said["error"].startswith("weights.safetensors: its sha256 is e3b0c44298fc…, but bundle.json says ")
    with serving(url, versions="all") as client:
        assert client.get("/models/toy").json()["version"] == 1


@pytest.mark.parametrize(
    ("file", "damage"),
    [("weights.safetensors", Path.unlink), ("bundle.json", lambda path: path.write_bytes(b"damaged"))],
)
def test_a_copy_that_is_damaged_here_is_made_again(url: str, file: str, damage: Callable[[Path], object]) -> None:
    copy = cache_of(url) / "toy/1" / file
    look(url)
    damage(copy)
    with serving(url, engine="reference") as client:
        assert client.get("/models/toy").json()["version"] == 1
    damage(copy)
    assert repository_at(url).read("toy").manifest.version == 1


def test_a_copy_that_is_whole_is_not_made_again_where_it_cannot_be_loaded(url: str) -> None:
    look(url)
    made = (cache_of(url) / "toy/1").stat().st_ino
    with serving(url, engine="reference", max_time_steps=1) as client:
        assert "time_steps" in client.get("/health/ready").text
    assert (cache_of(url) / "toy/1").stat().st_ino == made


@each_storage
def test_a_damaged_version_is_copied_again_once_its_files_have_changed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, copy = list[int](), Remote.copy

    def counted(there: Remote, name: str, version: int, folder: Path) -> None:
        copies.append(version)
        copy(there, name, version, folder)

    monkeypatch.setattr(Remote, "copy", counted)
    whole = files_at(url).cat_file(f"{url}/toy/1/card.md")
    files_at(url).pipe_file(f"{url}/toy/1/card.md", b"damaged")
    refused = [look(url, "all").refused for _ in range(3)]
    assert refused[0].keys() == {"toy/1"}
    assert refused[1:] == refused[:1] * 2
    assert len(copies) == 1
    files_at(url).pipe_file(f"{url}/toy/1/card.md", whole)
    repaired = look(url, "all")
    assert (repaired.copied, repaired.refused, len(copies)) == (["toy/1"], {}, 2)


def test_only_the_versions_that_are_served_are_copied(url: str) -> None:
    for _ in range(2):
        repository_at(url).publish(contents(toy()))
    look(url)
    assert [path.name for path in (cache_of(url) / "toy").iterdir()] == ["3"]


def test_a_client_may_have_the_newest_version_loaded_at_once(url: str) -> None:
    with serving(url) as client:
        repository_at(url).publish(contents(toy()))
        loaded = client.post("/v2/repository/models/toy/load", json={})
        assert loaded.status_code == 200, loaded.text
        assert client.get("/models/toy").json()["version"] == 2


@pytest.mark.parametrize(
    ("repository", "seconds", "cache", "sentence"),
    [
        ("{kind}://nothing/here", 60, None, "repository: {kind}://nothing/here is not there, expected"),
        ("nowhere://bucket", 60, None, "repository: 'nowhere://bucket' is no URL that fsspec opens"),
        ("{url}", 0.01, None, "repository: {url} took longer than 0.01 seconds"),
        ("{url}", 60, "/proc/nothing", "SPIKESERVE_REPOSITORY_CACHE: /proc/nothing"),
    ],
)
def test_a_repository_that_cannot_be_copied_is_a_sentence(
    url: str, monkeypatch: pytest.MonkeyPatch, repository: str, seconds: float, cache: str | None, sentence: str
) -> None:
    monkeypatch.setattr(mirror, "MAX_SECONDS", seconds)
    if cache is not None:
        monkeypatch.setenv(CACHE, cache)
    known = {"url": url, "kind": url.partition("://")[0]}
    failed = refresh(Settings(repository=repository.format(**known))).failed
    assert failed is not None
    assert failed.startswith(sentence.format(**known))


def test_a_server_without_any_copy_does_not_start(url: str) -> None:
    said = f"spikeserve: repository: {url}/nothing holds no model, expected <name>/<version>/ with a bundle.json\n"
    with Fork(SERVICE, ["--port", "0", "--repository", f"{url}/nothing"]) as ended:
        assert (ended.wait(60), ended.stderr.read()) == (2, said)


@contextmanager
def mirroring(url: str) -> Iterator[Future[RefreshResult]]:
    """Copy all versions by a process of its own; on leaving, wait for its end."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(refresh, Settings(repository=url, versions="all"))


def one_that_waits_for_a_lock() -> int:
    """Return the process, one of those that this process has started, that waits for a lock."""
    while True:
        waiting = [line.split()[5] for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
        for child in children(os.getpid()):
            if str(child) in waiting:
                return child
        time.sleep(0.05)  # the kernel tells of it in no other way


@pytest.mark.skipif(sys.platform != "linux", reason="who waits for a lock is read from /proc")
def test_what_another_process_copied_meanwhile_is_kept(url: str) -> None:
    folder = cache_of(url)
    with mirroring(url) as waiting:
        with locked(folder):  # as the other process does
            one_that_waits_for_a_lock()
            repository_at(url).publish(contents(toy()))
            Remote(url).copy("toy", 2, folder)
        done = waiting.result(timeout=120)
    assert (done.copied, done.removed, done.failed) == (["toy/1"], [], None)
    assert ModelRepository(folder).versions("toy") == [1, 2]


def test_processes_that_share_the_copies_leave_them_whole_while_versions_come_and_go(url: str) -> None:
    folder, published = cache_of(url), Event()

    def come_and_go() -> None:
        for version in range(2, 5):
            assert repository_at(url).publish(contents(toy())) == version
            files_at(url).rm(f"{url}/toy/{version - 1}", recursive=True)
        published.set()

    publisher = Thread(target=come_and_go)
    publisher.start()
    rounds = 0
    while not published.is_set() or rounds < 2:
        with mirroring(url) as one, mirroring(url) as other:
            done = [one.result(timeout=120), other.result(timeout=120)]
        rounds += 1
        copied = [place for each in done for place in each.copied]
        assert len(copied) == len(set(copied))  # no version is copied by both
    publisher.join()
    with mirroring(url) as last:
        assert last.result(timeout=120).failed is None
    here = ModelRepository(folder)
    assert here.versions("toy") == [4]
    assert here.read("toy", 4).digest == repository_at(url).read("toy", 4).digest
    assert sorted(path.name for path in (folder / "toy").iterdir()) == ["4"]


def test_half_of_a_copy_that_a_killed_process_left_is_removed(url: str) -> None:
    left = cache_of(url) / "toy/.incoming-killed"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half of them")
    assert look(url).copied == ["toy/1"]
    assert sorted(path.name for path in (cache_of(url) / "toy").iterdir()) == ["1"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_a_storage_whose_answers_have_no_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed here: it is of the extra 'remote'")
    monkeypatch.setenv("SPIKESERVE_REPOSITORY_CACHE", str(tmp_path))
    with endless(b"<" * 2**20, 10**12, 0) as url:
        for name, value in (("ENDPOINT_URL", url), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setattr(mirror, "MAX_MEMORY", 600_000 * 1024)  # which is reached sooner
        failed = refresh(Settings(repository="s3://b/models")).failed
    assert failed is not None  # by what s3fs says, or that it took all of the memory
    assert re.match("repository: s3://b/models (answers with more than there is memory for|cannot be used: )", failed)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_the_process_that_copies_has_4_gib_of_addresses_and_its_time_of_a_core(url: str) -> None:
    with mirroring(url) as waiting:
        with locked(cache_of(url)):
            limits = Path(f"/proc/{one_that_waits_for_a_lock()}/limits").read_text()
        assert waiting.result(timeout=120).failed is None
    assert re.search(rf"Max address space +{2**32} ", limits)
    assert re.search(r"Max cpu time +601 ", limits)  # a second more than it may take
