"""Sessions and sequences behind a proxy: they stay with a replica, or take their state to the other one."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from spikeserve import Client, Window
from spikeserve.models.bundle.repository import PRETRAINED
from tests.pages import ROOT, block_with
from tests.replicas import NEEDS_HAPROXY, proxied, replica
from tests.serving import Process

pytestmark = [NEEDS_HAPROXY, pytest.mark.usefixtures("fast_servers")]

STICKY = block_with((ROOT / "deploy/README.md").read_text(), "text", "balance source")
STEP_US, WINDOW_STEPS = 5000, 4
LEAVES_AT = 70  # windows; the client has the state after 50 of them


class Replicas(NamedTuple):
    """Two replicas by the names that HAProxy gives them, and what each does alone."""

    one: Process
    two: Process

    def with_the_session(self) -> tuple[Process, Process]:
        """Return the replica that has the session, and the other one."""
        shown = [httpx.get(f"{each.url}/metrics").text for each in self]
        (has,) = [at for at, text in enumerate(shown) if 'spikeserve_sessions{model="braille"} 1.0' in text]
        return self[has], self[1 - has]


def pair(folder: Path) -> Iterator[Replicas]:
    """Start two replicas."""
    shutil.copytree(PRETRAINED / "braille", folder / "repository" / "braille")
    with replica(folder / "repository", 0) as one, replica(folder / "repository", 1) as two:
        yield Replicas(one, two)


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    yield from pair(tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two replicas of which none goes."""
    yield from pair(tmp_path_factory.mktemp("lasting"))


def touches(url: str) -> Iterator[dict[str, np.ndarray] | int]:
    """Yield the events of the model's first two examples, letter after letter, window by window."""
    card = httpx.get(f"{url}/models/braille").json()
    letters = httpx.get(f"{url}/models/braille/examples").json()["inputs"][:2]
    steps = card["time_steps"]
    step = np.concatenate([np.array(letter["t"]) + at * steps for at, letter in enumerate(letters)])
    unit = np.concatenate([letter["unit"] for letter in letters])
    yield 0  # when the session begins
    for end in range(WINDOW_STEPS, 2 * steps + 1, WINDOW_STEPS):
        now = (step >= end - WINDOW_STEPS) & (step < end)
        yield {"t": step[now] * STEP_US, "unit": unit[now]}
        yield end * STEP_US


def told(window: Window) -> tuple[Any, ...]:
    """Return all that a window says, but for how long it took."""
    assert window.scores
    return *(value for name, value in vars(window).items() if name not in ("lag_ms", "scores")), tuple(window.scores)


def stream(url: str) -> Iterator[Window]:
    with Client(url, model="braille") as client:
        yield from client.stream(touches(url), step_us=STEP_US, window_steps=WINDOW_STEPS)


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "drained"])
def test_a_session_goes_on_at_the_other_replica_bit_for_bit(replicas: Replicas, tmp_path: Path, dies: bool) -> None:
    went, found = [], []
    with proxied(*replicas, tmp_path) as url:
        for window in stream(url):
            found.append(told(window))
            if window.window == LEAVES_AT:
                has, other = replicas.with_the_session()
                has.process.kill() if dies else has.process.terminate()
                went.append(has)
    assert [each.ended() for each in went] == [-9 if dies else 0]
    expected = [told(window) for window in stream(other.url)]
    assert len(expected) == 128  # two letters of 256 steps, four steps a window
    assert sum(mine != theirs for mine, theirs in zip(found, expected, strict=True)) == 0
    assert len({window[-1] for window in expected}) == 128  # whose scores are all different


def infer(client: httpx.Client, url: str, steps: np.ndarray, **parameters: Any) -> tuple[list[float], httpx.Response]:
    tensor = {"name": "inputs", "shape": [1, *steps.shape], "datatype": "FP32", "data": steps.ravel().tolist()}
    answer = client.post(f"{url}/v2/models/braille/infer", json={"inputs": [tensor], "parameters": parameters})
    found = {each["name"]: each["data"] for each in answer.json().get("outputs", ())}
    return found.get("spike_counts", []), answer


def slices() -> list[np.ndarray]:
    raster = (np.random.default_rng(6).random((256, 12)) < 0.3).astype(np.float32)
    return np.split(raster, 8)


def sequence(client: httpx.Client, url: str) -> tuple[list[list[float]], set[str]]:
    """Send a sequence in eight requests, and return the counts of each and the replicas that answered."""
    counts, names = [], set()
    for at, steps in enumerate(slices()):
        found, answer = infer(client, url, steps, sequence_id=1, sequence_start=at == 0, sequence_end=at == 7)
        assert answer.status_code == 200, answer.text
        counts.append(found)
        names.add(answer.headers.get("x-replica", ""))
    return counts, names


@pytest.mark.parametrize("way", ["balance", "cookie"])
def test_a_sequence_stays_with_its_replica_where_that_is_set(lasting: Replicas, tmp_path: Path, way: str) -> None:
    lines = [f"{line}\n" for line in STICKY.splitlines() if way in line]
    assert lines
    with httpx.Client(timeout=60) as client:
        expected, _ = sequence(client, lasting.one.url)
        with proxied(*lasting, tmp_path, backend="".join(lines)) as url:
            found, names = sequence(client, url)
            assert len(client.cookies) == (way == "cookie")
    assert found == expected
    assert len(names) == 1
