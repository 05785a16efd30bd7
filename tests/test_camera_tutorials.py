"""The tutorials from a camera's events to a cluster run as they stand there: one trained network serves both pages."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from spikeserve import Client, read_events
from spikeserve.models.version import VERSION
from spikeserve.service.settings import ENVIRONMENT_PREFIX, Settings
from tests.pages import LOCAL, ROOT, block_with, blocks, section
from tests.replicas import CLUSTER, NEEDS_HAPROXY, SERVE, proxied, replica
from tests.serving import Process, running
from tests.training.command_line import train_from_page, training_here

pytestmark = [
    pytest.mark.deep,
    pytest.mark.usefixtures("fast_servers"),
    pytest.mark.skipif(find_spec("faery") is None, reason="the extra 'events' has faery"),
]

EVENTS = (ROOT / "docs/tutorials/events.md").read_text()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the first page makes: the recordings, the run and the bundle."""
    folder = tmp_path_factory.mktemp("motion")
    train_from_page(EVENTS, "def motion", folder)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Process]:
    with running(folder / "repository", program=SERVE) as service:
        yield service


def here(block: str, url: str) -> str:
    """Return a page's block with the server at `url`."""
    return block.replace(f"http://{LOCAL}", url).replace(LOCAL, url.removeprefix("http://"))


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recordings_are_real_files_and_the_network_reads_most_that_were_held_out(folder: Path) -> None:
    made = sorted((folder / "recordings").rglob("*.aedat4"))
    assert len(made) == 400
    assert made[0].read_bytes().startswith(b"#!AER-DAT4.0")
    assert (folder / "turn.raw").read_bytes().startswith(b"% evt 3.0")
    metrics = json.loads((folder / "runs/recordings-1/metrics.json").read_text())
    assert metrics["test_accuracy"] > 0.9  # of four classes


def test_the_bundle_says_what_the_page_says(service: Process) -> None:
    (said,) = blocks(EVENTS, "json")
    card = httpx.get(f"{service.url}/models/motion").json()
    assert card["input"]["events"] == json.loads(said)
    assert card["input"]["shape"] == [2, 12, 16]


def test_a_file_is_read_as_the_page_says(service: Process, folder: Path) -> None:
    program = block_with(EVENTS, "python", ".predict(")
    assert run([sys.executable, "-c", here(program, service.url)], folder).split()[0] == "left"
    assert "# left" in program


def window_lines(windows: Any) -> list[str]:
    return [f"{each.t // 1000} ms: {each.events} events, {each.label}, spikes {each.window_counts}" for each in windows]


def test_a_session_and_another_servers_go_on_as_one_over_the_whole_file(service: Process, folder: Path) -> None:
    with Client(service.url, model="motion") as client:
        events = read_events(folder / "turn.raw")
        whole = window_lines(client.stream(events, window_steps=5, scores="decay", decay=0.5))
    live = run([sys.executable, "-c", here(block_with(EVENTS, "python", "packets"), service.url)], folder)
    with running(folder / "repository", program=SERVE) as other:
        rest = run([sys.executable, "-c", here(block_with(EVENTS, "python", "from_json"), other.url)], folder)
    assert (live + rest).splitlines() == whole
    # The times and numbers of events are the page's on every machine, and so are two classes before and after the turn.
    told = re.findall(r"^(\d+ ms: \d+ events), (\w+)", "".join(blocks(EVENTS, "text")), re.MULTILINE)
    found = re.findall(r"^(\d+ ms: \d+ events), (\w+)", live + rest, re.MULTILINE)
    assert [line for line, _ in found] == [line for line, _ in told]
    assert len(live.splitlines()) == len(blocks(EVENTS, "text")[0].splitlines())
    assert (found[2], found[-1]) == (told[2], told[-1])
    assert (found[2][1], found[-1][1]) == ("right", "up")


class Answer(NamedTuple):
    """A line of ask.py."""

    t: str
    status: str
    replica: str
    version: str


class Asking:
    """ask.py of the page as a process, whose lines are read while they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.answers: list[Answer] = []
        self.process = process

    def wait_for(self, count: int = 20, **fields: str) -> None:
        """Read answers until `count` of them have these fields."""
        while count:
            assert self.process.stdout is not None
            self.answers.append(Answer(*self.process.stdout.readline().strip().split(",")))
            count -= fields.items() <= self.answers[-1]._asdict().items()

    def stop(self) -> None:
        """End it, and read what it had written; its last line may be cut off."""
        self.process.terminate()
        written = self.process.communicate(timeout=60)[0]
        self.answers += [Answer(*line.strip().split(",")) for line in written.splitlines(True) if line.endswith("\n")]


@contextmanager
def asking(url: str, folder: Path) -> Iterator[Asking]:
    program = here(block_with(CLUSTER, "python", "def ask"), url)
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        asked = Asking(process)
        try:
            yield asked
        finally:
            asked.stop()


@NEEDS_HAPROXY
def test_no_request_is_lost_while_a_replica_and_a_version_are_replaced(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(folder / "repository", repository)
    with replica(repository, 0) as one, replica(repository, 1) as two, proxied(one, two, tmp_path) as url:
        with asking(url, folder) as asked:
            for name in ("one", "two"):
                asked.wait_for(replica=name)
            assert one.stop() == 0
            asked.wait_for(100, replica="two")
            with replica(repository, 0, one.url.rpartition(":")[2]):
                asked.wait_for(replica="one")
                (line,) = blocks(section(CLUSTER, "One goes, and a version comes"), "sh")[:1]
                words = shlex.split(line.replace("--repository repository", f"--repository {repository}"))[1:]
                assert training_here(*words, cwd=folder).returncode == 0
                for name in ("one", "two"):
                    asked.wait_for(replica=name, version="2")
                asked.stop()
        assert {answer.status for answer in asked.answers} == {"200"}
        assert {answer.version for answer in asked.answers} == {"1", "2"}
    answers = tmp_path / "answers.csv"
    answers.write_text("".join(f"{','.join(answer)}\n" for answer in asked.answers))
    count = block_with(CLUSTER, "sh", "uniq")
    assert run(["/bin/bash", "-c", count], tmp_path).split() == [str(len(asked.answers)), "200"]


def test_the_image_is_made_of_ours_with_a_repository_that_is_checked(folder: Path) -> None:
    check = block_with(CLUSTER, "sh", "spikeserve check").splitlines()[0]
    assert "motion" in run([sys.executable, "-m", *shlex.split(check)], folder)
    image = block_with(CLUSTER, "text", "FROM")
    assert f"FROM spikeserve:{VERSION}\n" in image
    assert f"-t spikeserve:{VERSION} ." in block_with(CLUSTER, "sh", "docker build -t spikeserve:")
    names = {name.lower() for name in re.findall(rf"{ENVIRONMENT_PREFIX}(\w+)", CLUSTER)}
    assert names == {"repository", "poll_seconds"}
    assert names <= Settings.model_fields.keys()
