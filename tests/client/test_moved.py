"""A client whose servers are killed, and drain, while it streams: every window comes once, and no spike differs."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve import AsyncClient, Client, Summary, Window
from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.spec.network import Network
from tests.bundles import publish
from tests.networks import network_of, task
from tests.serving import Process, running

UNITS, STEPS, WINDOW = 12, 96, 4  # inputs, time steps and steps of a window
WINDOWS = STEPS // WINDOW
REFERENCE = ("--engine", "reference")  # with which a server starts in half the time of the default


def recurrent() -> Network:
    """Recurrent neurons with a current, a leak and a delay, on dyadic weights: every kind of state that there is."""
    rng = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return rng.integers(-6, 9, shape) / 8

    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": UNITS, "out_features": 16, "bias": False},
            {"type": "CubaLIF", "name": "hidden", "syn_decay": 0.5, "decay": 0.75, "recurrent": {"bias": True}},
            {"type": "Delay", "name": "delay", "delay": 3},
            {"type": "Linear", "name": "out", "in_features": 16, "out_features": 4, "bias": False},
            {"type": "LIF", "name": "classes", "decay": 0.875},
        ],
        {
            "fc.weight": weights(16, UNITS),
            "hidden.recurrent.weight": weights(16, 16) / 8,
            "hidden.recurrent.bias": weights(16),
            "out.weight": weights(4, 16),
        },
        **task(
            [UNITS],
            STEPS,
            "abcd",
            "spikes",
            events={"step_us": 1000, "window_steps": WINDOW, "sensor": [UNITS], "polarity": "merged"},
        ),
    )


def events() -> tuple[Records, np.ndarray[Any, Any]]:
    """Return a stream of records, and the raster of them."""
    raster = (np.random.default_rng(8).random((STEPS, UNITS)) < 0.3).astype(int)
    raster[0, 0] = 1  # so that the stream begins with step 0
    t, unit = raster.nonzero()
    return make_records(t * 1000, unit), raster


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path, recurrent(), "net")
    return tmp_path


def undisturbed(service: Process, records: Records) -> list[Window]:
    with Client(service.url) as client:
        return list(client.stream(records))


def shown(windows: list[Window]) -> list[tuple[int, int, int, list[int], list[int], int]]:
    return [
        (each.window, each.t, each.events, each.window_counts, each.spike_counts, each.synaptic_operations)
        for each in windows
    ]


def by_steps(records: Records) -> Iterator[Records]:
    """Yield the events of each step, as a sensor would send them."""
    yield from np.split(records, np.flatnonzero(np.diff(records["t"])) + 1)


def test_workers_that_are_killed_again_and_again_change_no_spike(repository: Path) -> None:
    records, raster = events()
    with running(repository, "--workers", "2", ready=2) as service:
        killed = {entry["worker"] for entry in service.entries if entry["event"] == "worker_started"}
        expected = undisturbed(service, records)
        found = []
        with Client(service.url, model="net") as client:
            for window in client.stream(by_steps(records), state_every=3, retries=20):
                found.append(window)
                if window.window in (5, 13):
                    for worker in killed:
                        os.kill(worker, signal.SIGKILL)
                    killed = {service.wait_for("worker_started")["worker"] for _ in killed}
        with Client(service.url) as client:
            (whole,) = client.predict(raster)
    assert len(found) == WINDOWS
    assert shown(found) == shown(expected)
    assert found[-1].spike_counts == whole.spike_counts.tolist()
    assert sum(found[-1].spike_counts) > 10


def test_a_server_that_drains_and_its_successor_change_no_spike_for_an_awaited_client(repository: Path) -> None:
    records, _ = events()
    chunks, found = list(by_steps(records)), list[Window]()

    async def run(first: Process) -> Summary | None:
        port = first.url.rpartition(":")[2]
        async with AsyncClient(first.url) as client, client.session(model="net", retries=20) as session:
            for chunk in chunks[:50]:
                await session.send(chunk)
                found.extend([window async for window in session])
            assert first.stop() == 0  # it gave the state to the client, which has not read it yet
            with running(repository, "--port", port, *REFERENCE):
                for chunk in chunks[50:]:
                    await session.send(chunk)
                    found.extend([window async for window in session])
                found.extend(await session.end())
        return session.summary

    with running(repository, *REFERENCE) as first:
        expected = undisturbed(first, records)
        summary = asyncio.run(run(first))
    assert shown(found) == shown(expected)
    assert summary is not None
    assert summary.events == len(records)
