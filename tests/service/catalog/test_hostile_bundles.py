"""The whole corpus of hostile bundles: each is refused by its sentence, and what serves beside it goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from tests.bundles import publish
from tests.hostile_bundles import HostileBundle, hostile_bundles
from tests.networks import toy
from tests.onnx_graphs import own, publish_with
from tests.service.asgi import LEFT, started
from tests.serving import running

CORPUS = list(hostile_bundles())
BY_ITS_NAME = {f"hostile-{index}": each for index, each in enumerate(CORPUS)}
LONGEST = 600  # characters of a sentence


def is_the_sentence(found: str, bundle: HostileBundle, root: Path) -> bool:
    assert bundle.sentence is not None, found
    assert bundle.sentence in found
    assert str(root) not in found
    assert "internal error" not in found
    assert found.isprintable()
    return len(found) <= LONGEST


# What ends by itself gets long, for a machine that is busy, and what does not is stopped soon.
@pytest.mark.parametrize(("engine", "seconds"), [("auto", 60), ("onnx", 2), ("onnx", 60)])
@pytest.mark.anyio
async def test_a_server_of_all_serves_the_one_sound_network(tmp_path: Path, engine: str, seconds: int) -> None:
    root = tmp_path / "repository"
    publish(root, toy())
    there = {
        name: each for name, each in BY_ITS_NAME.items() if each.engine == engine and each.is_endless == (seconds == 2)
    }
    assert there
    for name, bundle in there.items():
        bundle.make(root, name)
    limits = {"load_seconds": seconds, "max_model_bytes": 2**28}
    async with started(root, default_model="toy", engine=engine, **limits) as client:
        assert (await client.post(LEFT)).status == 200
        listed = {model["name"]: model["versions"][0] for model in (await client.get("/models")).json["models"]}
        for name, bundle in there.items():
            status = listed[name]
            if bundle.sentence is None:
                assert status["state"] == "ready", status
                continue
            assert status["state"] == "failed", bundle.kind
            assert is_the_sentence(status["error"], bundle, tmp_path)
            asked = await client.post(LEFT, f"/models/{name}/predict")
            assert asked.status == 503
            assert asked.json == {"error": f"model '{name}' version 1 could not be loaded: {status['error']}"}


def test_every_line_of_the_log_is_json_where_graphs_fail_at_load(tmp_path: Path) -> None:
    unknown, odd = own(), own()
    unknown.graph.node[0].op_type = "Nonsense"
    odd.graph.initializer.append(numpy_helper.from_array(np.zeros(7, np.float32), "unused"))  # which it warns of
    for name, model in {"unknown": unknown, "odd": odd}.items():
        publish_with(tmp_path, model, name)
    with running(tmp_path, "--default-model", "odd", "--engine", "onnx", until="listening") as service:
        states = {entry["model"]: entry["event"] for entry in (service.wait_for("model_") for _ in range(2))}
        assert states == {"odd": "model_ready", "unknown": "model_failed"}
        assert service.stop() == 0  # which parses every line of standard output
        assert service.process.stderr is not None
        assert service.process.stderr.read() == ""
