"""Several workers are one server: a change that one of them gets all make, and what one counts any of them tells."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.bundles import publish
from tests.networks import toy
from tests.service.versions import COUNTS, HALF, damage, doubled
from tests.serving import Process, running

pytestmark = pytest.mark.usefixtures("reference_engine")

LOAD, UNLOAD = ("/v2/repository/models/toy/load", "/v2/repository/models/toy/unload")

# The service, but that it waits only so long for a process that is stuck, and loads a model only once there is a file:
# in each worker but the first of two.
HELD = """
import os, sys, threading
from pathlib import Path
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.process import control, supervisor
control.ALIVE_SECONDS = supervisor.ALIVE_SECONDS = supervisor.COLLECTING_SECONDS = 3.0
supervisor.CHANGING_SECONDS = 5.0
from spikeserve.service.process.command_line import main
folder, load = Path(sys.argv.pop(1)), LoadedModel.load

def held(*arguments):
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        while not (folder / "go_on").exists():
            threading.Event().wait(0.01)
    return load(*arguments)

LoadedModel.load = held
sys.exit(main(sys.argv[1:]))
"""

# The service, but that a connection waits for a minute for the worker that has fewer.
PATIENT = """
import sys
from spikeserve.service.process import listener
from spikeserve.service.process.server import Server
listener.PATIENCE_SECONDS, begin = 60.0, Server.__init__

def begins(self, app, settings, **options):
    begin(self, app, settings, **options)
    self.config.timeout_keep_alive = 3600

Server.__init__ = begins
from spikeserve.service.process.command_line import main
sys.exit(main(sys.argv[1:]))
"""


class Server:
    """A server of several workers, one of which can be asked while the others are held still."""

    def __init__(self, service: Process) -> None:
        self.service = service
        self.workers: dict[int, int] = {}
        self.note_workers()

    def note_workers(self) -> None:
        """Take from the log which process has which number."""
        for entry in self.service.entries:
            if entry["event"] == "worker_started":
                self.workers[entry["number"]] = entry["worker"]

    @contextmanager
    def stopped(self, number: int) -> Iterator[None]:
        """Have a worker be stuck."""
        os.kill(self.workers[number], signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.workers[number], signal.SIGCONT)

    @contextmanager
    def connected(self, number: int) -> Iterator[httpx.Client]:
        """Open a connection that the worker of that number has accepted: no other could."""
        others = [worker for each, worker in self.workers.items() if each != number]
        with httpx.Client(base_url=self.service.url, timeout=60) as client:
            for worker in others:
                os.kill(worker, signal.SIGSTOP)
            try:
                assert client.get("/health/live").status_code == 200
            finally:
                for worker in others:
                    os.kill(worker, signal.SIGCONT)
            yield client

    def post(self, number: int, path: str, body: Any = None) -> httpx.Response:
        """Ask one worker."""
        with self.connected(number) as client:
            return client.post(path, json=body)

    def answers(self, path: str, body: Any = None) -> list[httpx.Response]:
        """Ask each worker."""
        return [self.post(number, path, body) for number in self.workers]

    def readiness(self) -> list[httpx.Response]:
        """Ask each worker whether the server is ready, in either protocol."""
        answers = []
        for number in self.workers:
            with self.connected(number) as client:
                answers += [client.get("/health/ready"), client.get("/v2/health/ready")]
        return answers

    def versions(self) -> list[int]:
        """Return which version each worker answers with, having seen that its counts are that version's."""
        versions = []
        for answer in self.answers("/models/toy/predict", HALF):
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"][0]["spike_counts"] == COUNTS[answer.json()["version"] % 2]
            versions.append(answer.json()["version"])
        return versions

    def versions_of_index(self) -> list[list[int]]:
        """Return which versions of the toy are ready on each worker."""
        return [
            [int(each["version"]) for each in index.json() if each["name"] == "toy" and each["state"] == "READY"]
            for index in self.answers("/v2/repository/index")
        ]

    def kill(self, number: int) -> None:
        """Kill a worker, and go on once another one is in its place and has loaded its model."""
        os.kill(self.workers[number], signal.SIGKILL)
        assert self.service.wait_for_each("worker_started", "model_ready")["worker_started"]["number"] == number
        self.note_workers()

    def begin_to_replace(self, number: int) -> None:
        """Kill a worker, and go on once another one is in its place and is about to load its models.

        The supervisor logs the one and the worker the other, in either order.
        """
        os.kill(self.workers[number], signal.SIGKILL)
        for _ in range(2):
            self.service.wait_for("worker_started", "Waiting for application startup")

    def scrape(self, number: int) -> dict[str, Counter[str]]:
        """Return the metrics that one worker tells, each by worker; one that was too slow is waited for."""
        while True:
            with self.connected(number) as client:
                told = by_worker(client.get("/metrics").text)
            if len(told["process_open_fds"]) == len(self.workers):
                return told


def by_worker(text: str) -> dict[str, Counter[str]]:
    """Return metrics by name and worker; every family comes once, and no series comes twice."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    series = Counter((each.name, *sorted(each.labels.items())) for family in families for each in family.samples)
    assert set(series.values()) == {1}
    assert all(family.type != "unknown" and family.documentation for family in families)
    found: dict[str, Counter[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, Counter())[sample.labels["worker"]] += sample.value  # type: ignore[assignment]
    return found


@contextmanager
def serving(
    repository: Path,
    *flags: str,
    workers: int = 2,
    models: int = 1,
    program: Sequence[str] = ("-m", "spikeserve.service"),
) -> Iterator[Server]:
    with running(repository, "--workers", str(workers), *flags, ready=0, program=program) as service:
        for _ in range(workers):
            service.wait_for("worker_started")
        loaded = sum(entry["event"] == "model_ready" for entry in service.entries)
        for _ in range(workers * models - loaded):
            service.wait_for("model_ready")
        server = Server(service)
        assert sorted(server.workers) == list(range(workers))
        yield server
        if service.process.poll() is None:
            assert service.stop() == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """Return a server of three workers that serves the toy, and soon takes a process for stuck; and its repository."""
    root, folder = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("folder")
    publish(root, toy())
    (folder / "go_on").touch()
    with serving(root, "--engine", "reference", workers=3, program=("-c", HELD, str(folder))) as server:
        yield server, root


def publish_next(root: Path) -> int:
    """Publish another version of the toy, whose counts are those of its number."""
    return publish(root, toy() if len(list((root / "toy").iterdir())) % 2 == 0 else doubled())


@pytest.fixture
def fresh(shared: tuple[Server, Path]) -> tuple[Server, Path, int]:
    """Return the server, its repository and a version that all workers have just loaded, and nobody has asked."""
    server, root = shared
    version = publish_next(root)
    with server.connected(0) as client:
        load_at_last(client)
    assert server.versions_of_index() == [[version]] * 3
    return server, root, version


def load_at_last(client: httpx.Client) -> None:
    """Load, as soon as a worker that was stuck has answered."""
    while (answer := client.post(LOAD)).status_code != 200:
        assert answer.json() == {"error": "worker 1 does not answer, so nothing is changed"}


def test_what_one_worker_loads_all_serve_and_what_one_unloads_none(fresh: tuple[Server, Path, int]) -> None:
    server, root, before = fresh
    assert publish_next(root) == before + 1
    assert server.versions() == [before] * 3
    assert server.post(1, LOAD).json() == {"name": "toy", "load": True}
    assert server.versions() == [before + 1] * 3
    assert server.post(2, UNLOAD).status_code == 200
    assert [each.status_code for each in server.answers("/models/toy/predict", HALF)] == [404] * 3
    index = [{"name": "toy", "state": "UNAVAILABLE", "reason": "unloaded"}]
    assert [each.json() for each in server.answers("/v2/repository/index")] == [index] * 3
    assert server.post(0, UNLOAD).status_code == 404
    assert server.post(0, LOAD).status_code == 200
    assert server.versions() == [before + 1] * 3
    nobody = server.post(0, "/v2/repository/models/nobody/load")
    assert nobody.status_code == 404
    assert nobody.json()["error"].startswith("model 'nobody' has no version in the repository")


def test_a_load_that_fails_says_why_and_all_go_on_with_the_old_version(fresh: tuple[Server, Path, int]) -> None:
    server, root, before = fresh
    damage(root, publish_next(root))
    failed = server.post(0, LOAD)
    assert failed.status_code == 400
    sentence = f"model 'toy' version {before + 1} could not be loaded: weights.safetensors"
    assert failed.json()["error"].startswith(sentence)
    assert server.versions() == [before] * 3
    indices = [each.json() for each in server.answers("/v2/repository/index")]
    assert indices == [indices[0]] * 3
    assert [entry["state"] for entry in indices[0]] == ["READY", "UNAVAILABLE"]
    shutil.rmtree(root / "toy" / str(before + 1))


def test_a_worker_in_the_place_of_another_serves_what_the_others_do_and_no_request_fails(
    fresh: tuple[Server, Path, int],
) -> None:
    server, root, version = fresh

    def ask() -> None:
        assert httpx.post(f"{server.service.url}/predict", json=HALF, timeout=60).status_code == 200

    publish(root, toy(), "other")
    assert server.post(1, "/v2/repository/models/other/load").status_code == 200
    assert server.post(1, "/v2/repository/models/other/unload").status_code == 200
    publish_next(root)  # which nobody has loaded
    for number in (0, 1):
        killed = server.workers[number]
        os.kill(killed, signal.SIGKILL)
        ask()
        assert server.service.wait_for("worker_died")["number"] == number
        ask()
        server.service.wait_for_each("worker_started", "model_ready")
        server.note_workers()
        assert server.workers[number] != killed
        assert server.versions() == [version] * 3
        assert [each.status_code for each in server.answers("/models/other/predict", HALF)] == [404] * 3
    shutil.rmtree(root / "other")


def test_where_all_workers_die_at_once_those_in_their_place_serve_what_they_did(
    fresh: tuple[Server, Path, int],
) -> None:
    server, root, version = fresh
    publish_next(root)  # which nobody has loaded
    server.service.process.send_signal(signal.SIGSTOP)  # so that no worker is replaced before the last has died
    for worker in server.workers.values():
        os.kill(worker, signal.SIGKILL)
    server.service.process.send_signal(signal.SIGCONT)
    begun = len(server.service.entries)
    for event in ("worker_started", "model_ready"):
        while [entry["event"] for entry in server.service.entries[begun:]].count(event) < 3:
            server.service.wait_for(event)
    server.note_workers()
    assert server.versions() == [version] * 3


def test_where_what_was_served_is_gone_those_in_its_place_begin_with_what_lies_on_the_disk(
    fresh: tuple[Server, Path, int],
) -> None:
    server, root, version = fresh
    before = max(int(path.name) for path in (root / "toy").iterdir() if path.name != str(version))
    shutil.rmtree(root / "toy" / str(version))  # as one rolls back
    for number in server.workers:
        server.kill(number)
    assert server.versions() == [before] * 3


def test_clients_that_change_the_same_model_at_once_leave_all_workers_alike(fresh: tuple[Server, Path, int]) -> None:
    server, _, version = fresh
    with (
        server.connected(0) as first,
        server.connected(1) as second,
        server.connected(2) as third,
        ThreadPoolExecutor(2) as threads,
    ):
        for _ in range(8):
            changes = [threads.submit(first.post, LOAD), threads.submit(second.post, UNLOAD)]
            loaded, unloaded = (change.result().status_code for change in changes)
            assert unloaded == 200
            assert loaded in (200, 400)  # 400 if it was unloaded while it was loading
            indices = [client.post("/v2/repository/index").json() for client in (first, second, third)]
            assert indices == [indices[0]] * 3
            again = third.post(LOAD)
            assert again.status_code == 200, again.text
        assert server.versions() == [version] * 3


def test_a_worker_that_joins_after_changes_that_met_serves_what_the_others_do(repository: Path, tmp_path: Path) -> None:
    # A load is held up while an unload is asked for. That comes last, so nobody is to serve the model in the end.
    publish(repository, toy(), "other")
    (tmp_path / "go_on").touch()
    with (
        serving(repository, models=2, program=("-c", HELD, str(tmp_path))) as server,
        server.connected(0) as first,
        server.connected(1) as second,
        server.connected(1) as third,
        ThreadPoolExecutor(2) as threads,
    ):
        (tmp_path / "go_on").unlink()
        publish(repository, doubled())
        loading = threads.submit(first.post, LOAD)
        while len(third.get("/models/toy").json()["versions"]) == 1:
            pass
        unloading = threads.submit(second.post, UNLOAD)
        for _ in range(20):  # each asks the supervisor, which has the unload by then
            assert third.get("/health/ready").status_code == 200
        assert unloading.result().status_code == 200  # which ends the load, so that nothing is waited for
        (tmp_path / "go_on").touch()
        assert (loading.result().status_code, "was unloaded while it was loading" in loading.result().text) == (
            400,
            True,
        )
        server.kill(0)
        assert [each.status_code for each in server.answers("/models/toy/predict", HALF)] == [404, 404]


def test_a_connection_is_for_the_worker_that_has_the_fewest_and_none_waits_for_one_that_died(repository: Path) -> None:
    with serving(repository, program=("-c", PATIENT)) as server, ExitStack() as stack:
        for number in server.workers:  # each accepts, and has one
            stack.enter_context(server.connected(number))
        address = server.service.url.removeprefix("http://")
        more = [stack.enter_context(closing(HTTPConnection(address, timeout=30))) for _ in range(4)]

        def live(connection: HTTPConnection) -> bool:
            try:
                connection.request("GET", "/health/live")
                return connection.getresponse().read() != b""
            except ConnectionError:
                return False

        assert [live(each) for each in more] == [True] * 4
        server.kill(0)
        assert sorted(live(each) for each in more) == [False, False, True, True]
        for each in more:
            each.close()
        assert live(more[0])


def test_any_worker_tells_the_metrics_of_all_exactly(fresh: tuple[Server, Path, int]) -> None:
    server, _, _ = fresh
    for number in server.workers:
        with server.connected(number) as client:
            for _ in range(5 + number):
                assert client.post("/predict", json=HALF).status_code == 200
    for number in server.workers:
        told = server.scrape(number)
        for name in ("spikeserve_model_requests_total", "spikeserve_samples_total"):
            assert told[name] == {"0": 5, "1": 6, "2": 7}
        assert told["spikeserve_model_versions"] == {"0": 1, "1": 1, "2": 1}
        # Only the one that is asked has a request in flight.
        assert told["spikeserve_http_requests_in_flight"] == {each: int(each == str(number)) for each in "012"}
        assert set(told["process_resident_memory_bytes"]) == {"0", "1", "2"}
    for asked in range(19, 49):  # each scrape counts every request that was answered before it
        assert httpx.post(f"{server.service.url}/predict", json=HALF).status_code == 200
        told = by_worker(httpx.get(f"{server.service.url}/metrics").text)
        if len(told["process_open_fds"]) == 3:  # unless one was too slow, as a machine that is busy may have it
            assert told["spikeserve_samples_total"].total() == asked
    before = server.scrape(1)["spikeserve_samples_total"]
    server.kill(1)
    told = server.scrape(1)  # the new worker counts from 0, as after any restart
    assert told["spikeserve_samples_total"] == {each: before[each] for each in "02"}


def test_while_a_worker_is_stuck_nothing_is_changed_nor_ready_metrics_leave_it_out_and_others_are_replaced(
    shared: tuple[Server, Path],
) -> None:
    server, root = shared
    before = server.versions()
    version = publish_next(root)
    with server.connected(0) as client:
        with server.stopped(1), ThreadPoolExecutor(4) as threads:
            paths = [("POST", LOAD), ("POST", UNLOAD), ("GET", "/health/ready"), ("GET", "/metrics")]
            *refused, unready, metrics = threads.map(lambda path: client.request(*path), paths)
            server.kill(2)  # another takes its place all the same
        told = by_worker(metrics.text)
        for answer in refused:
            assert answer.status_code == 503
            assert answer.json() == {"error": "worker 1 does not answer, so nothing is changed"}
            assert int(answer.headers["Retry-After"]) > 0
        assert (unready.status_code, unready.json()) == (503, {"error": "worker 1 does not answer"})
        assert set(told["process_open_fds"]) == {"0", "2"}
        while client.get("/health/ready").status_code != 200:
            assert server.service.process.poll() is None
        assert set(server.scrape(0)["process_open_fds"]) == {"0", "1", "2"}
        assert server.versions() == before
        load_at_last(client)
    assert server.versions() == [version] * 3


def test_a_supervisor_that_is_stuck_keeps_nobody_waiting(shared: tuple[Server, Path]) -> None:
    server, _ = shared
    with server.connected(0) as client:
        server.service.process.send_signal(signal.SIGSTOP)
        try:
            refused = [client.post(LOAD), client.get("/health/ready")]
            told = by_worker(client.get("/metrics").text)
            answered = client.post("/predict", json=HALF)
        finally:
            server.service.process.send_signal(signal.SIGCONT)
    for answer in refused:
        assert answer.status_code == 503
        assert answer.json() == {"error": "the supervisor of the workers does not answer"}
    assert set(told["process_open_fds"]) == {"0"}
    assert answered.status_code == 200


def test_a_worker_that_gets_stuck_while_it_loads_is_waited_for_no_longer(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "go_on").touch()
    with serving(repository, program=("-c", HELD, str(tmp_path))) as server:
        (tmp_path / "go_on").unlink()
        publish(repository, doubled())
        with server.connected(0) as client, server.connected(0) as other, ThreadPoolExecutor(1) as threads:
            loading = threads.submit(client.post, LOAD)
            while len(other.get("/models/toy").json()["versions"]) == 1:
                pass
            with server.stopped(1):
                (tmp_path / "go_on").touch()
                begun, later = loading.result(), other.post(LOAD)
            assert (begun.status_code, later.status_code) == (503, 503)
            assert begun.json() == {"error": "worker 1 does not answer and may not have loaded model 'toy'"}
            assert later.json() == {"error": "worker 1 does not answer, so nothing is changed"}
            load_at_last(client)
        assert server.versions() == [2, 2]


def test_a_server_is_ready_once_every_worker_is_and_stays_so_while_one_is_replaced(
    repository: Path, tmp_path: Path
) -> None:
    held = ("-c", HELD, str(tmp_path))
    with running(repository, "--workers", "2", ready=0, program=held) as service:
        service.wait_for_each("worker_started", "model_ready")  # in one of the two; the other one is held up
        while len((server := Server(service)).workers) < 2:
            service.wait_for("worker_started")
        for answer in server.readiness():
            assert answer.status_code == 503
            assert "model 'toy' version 1 is still loading, for " in answer.json()["error"]
        (tmp_path / "go_on").touch()
        while httpx.get(f"{service.url}/health/ready", timeout=60).status_code != 200:
            assert service.process.poll() is None

        def ask_on() -> None:
            """Ask on a connection each, which any worker that is there accepts."""
            for _ in range(20):
                assert httpx.get(f"{service.url}/health/ready", timeout=60).status_code == 200
                assert httpx.post(f"{service.url}/predict", json=HALF, timeout=60).status_code == 200

        ask_on()
        assert [answer.status_code for answer in server.readiness()] == [200] * 4
        service.wait_for("model_ready")
        (tmp_path / "go_on").unlink()
        server.begin_to_replace(1)
        ask_on()  # the new worker accepts nothing, so the other one answers
        (tmp_path / "go_on").touch()
        service.wait_for("model_ready")
        server.note_workers()
        assert server.versions() == [1, 1]
        (tmp_path / "go_on").unlink()
        server.begin_to_replace(0)  # which is not waited for in the end, though it still loads
        assert service.stop() == 0


def test_a_worker_in_the_place_of_another_serves_what_that_found_by_polling_and_nothing_that_was_unloaded(
    repository: Path, tmp_path: Path
) -> None:
    publish(repository, toy(), "other")
    with serving(repository, "--poll-seconds", "0.02", models=2) as server:
        assert server.post(1, "/v2/repository/models/other/unload").status_code == 200
        publish(repository, doubled())
        while server.versions() != [2, 2]:  # so each has polled
            pass
        for _ in range(3):
            publish(tmp_path, toy())
        damage(tmp_path, 3)
        (tmp_path / "toy" / "3").rename(repository / "toy" / "3")  # which nobody can load
        while [len(index.json()) for index in server.answers("/v2/repository/index")] != [3, 3]:
            pass
        for number in server.workers:
            server.kill(number)
        assert server.versions() == [2, 2]  # and not 1, which was served at the start and still lies there
        gone = server.answers("/models/other/predict", HALF)
        assert [each.status_code for each in gone] == [404, 404]
        for index in server.answers("/v2/repository/index"):
            assert {"name": "other", "state": "UNAVAILABLE", "reason": "unloaded"} in index.json()
