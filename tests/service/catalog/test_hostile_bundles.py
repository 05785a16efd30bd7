"""The whole corpus of hostile bundles: each is refused by its sentence, and what serves beside it goes on."""

from pathlib import Path

import pytest

from tests.bundles import publish
from tests.hostile_bundles import HostileBundle, hostile_bundles
from tests.networks import toy
from tests.service.asgi import LEFT, started

BY_ITS_NAME = {f"hostile-{index}": each for index, each in enumerate(hostile_bundles())}


def is_the_sentence(found: str, bundle: HostileBundle, root: Path) -> bool:
    assert bundle.sentence in found
    assert str(root) not in found
    assert "internal error" not in found
    assert found.isprintable()
    return len(found) <= 600  # characters


@pytest.mark.parametrize("half", range(2))
async def test_a_server_of_all_serves_the_one_sound_network(tmp_path: Path, half: int) -> None:
    root, bundles = tmp_path / "repository", [*BY_ITS_NAME.items()][half::2]
    publish(root, toy())
    for name, bundle in bundles:
        bundle.make(root, name)
    async with started(root, default_model="toy", load_seconds=60, max_model_bytes=2**28) as client:
        assert (await client.post(LEFT)).status == 200
        listed = {model["name"]: model["versions"][0] for model in (await client.get("/models")).json["models"]}
        for name, bundle in bundles:
            status = listed[name]
            assert status["state"] == "failed", bundle.kind
            assert is_the_sentence(status["error"], bundle, tmp_path)
            asked = await client.post(LEFT, f"/models/{name}/predict")
            assert (asked.status, int(asked.headers["retry-after"]) > 0) == (503, True)
            assert asked.json == {"error": f"model '{name}' version 1 could not be loaded: {status['error']}"}
            assert (await client.get(f"/models/{name}")).json == asked.json
