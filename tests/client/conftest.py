"""One server for the tests of the client that only read from it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from spikeserve import Client
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.training.data.audio import AudioToSpikes
from tests.bundles import publish
from tests.networks import network_of, toy
from tests.service.sessions.conftest import pairs
from tests.serving import Process, running

SIZE = 4  # pixels of the camera, each way
BANDS = 2 * AudioToSpikes().bands


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of 'pairs', whose two units spike at every second event, and whose windows last 2 ms.

    It has models of values, 'mine' and 'direct', one of a camera, whose classes are the polarities, and one of sound.
    """
    root = tmp_path_factory.mktemp("repository")
    camera = halves((2, SIZE, SIZE), step_us=1000, window_steps=10, sensor=(SIZE, SIZE))
    models = {"pairs": pairs(), "mine": toy(Coding.CURRENT), "direct": toy(Coding.DIRECT), "camera": camera}
    for name, network in {**models, "sound": halves((BANDS,))}.items():
        publish(root, network, name)
    with running(root, "--default-model", "pairs", ready=5) as process:
        yield process


def halves(shape: Sequence[int], **events: Any) -> Network:
    """A network of two classes: the first half of the inputs, and the second."""
    inputs = int(np.prod(shape))
    nodes = [{"type": "Flatten", "name": "flat"}] if len(shape) > 1 else []
    return network_of(
        [
            *nodes,
            {"type": "Linear", "name": "fc", "in_features": inputs, "out_features": 2, "bias": False},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": np.repeat(np.eye(2), inputs // 2, axis=1)},
        input={"shape": list(shape)} | ({"events": events} if events else {}),
        coding="spikes",
        time_steps=10,
        labels=["first", "second"],
    )


@pytest.fixture
def client(service: Process) -> Iterator[Client]:
    with Client(service.url) as each:
        yield each
