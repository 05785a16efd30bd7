"""The whole corpus of hostile bundles: each is refused by its sentence, and what serves beside it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.loaded import verify
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.hostile_bundles import HostileBundle, hostile_bundles
from tests.networks import toy
from tests.service.asgi import LEFT, started

CORPUS = list(hostile_bundles())
IN_PROCESS = [each for each in CORPUS if not each.is_stopped]
BY_ITS_NAME = {f"hostile-{index}": each for index, each in enumerate(CORPUS)}
GRAPHS_WITHOUT_END = ("an endless loop", "loops in loops", "a loop that keeps all", "products", "functions that double")
ENDLESS = {f"graph: {name}" for name in GRAPHS_WITHOUT_END}
LONGEST = 600  # characters of a sentence


def is_the_sentence(found: str, bundle: HostileBundle, root: Path) -> bool:
    assert bundle.sentence is not None, found
    assert bundle.sentence in found
    assert str(root) not in found
    assert "internal error" not in found
    assert found.isprintable()
    return len(found) <= LONGEST


@pytest.mark.parametrize("bundle", IN_PROCESS, ids=lambda bundle: bundle.kind)
def test_a_hostile_bundle_is_refused_by_its_sentence(tmp_path: Path, bundle: HostileBundle) -> None:
    root = tmp_path / "repository"
    bundle.make(root, "hostile")
    settings = Settings(repository=root, engine=bundle.engine)
    if bundle.sentence is None:
        assert verify("hostile", 1, settings).batch_sizes == (1,)
        return
    with pytest.raises(SpikeserveError) as refused:
        verify("hostile", 1, settings)
    assert is_the_sentence(str(refused.value), bundle, tmp_path)


def test_what_has_no_end_is_in_the_corpus() -> None:
    assert {each.kind for each in CORPUS if each.is_stopped} >= ENDLESS


# What ends by itself gets long, for a machine that is busy, and what does not is stopped soon.
@pytest.mark.parametrize(("engine", "seconds"), [("auto", 60), ("auto", 2), ("onnx", 60)])
@pytest.mark.anyio
async def test_a_server_of_the_whole_corpus_serves_its_one_sound_network(
    tmp_path: Path, engine: str, seconds: int
) -> None:
    root = tmp_path / "repository"
    publish(root, toy())
    there = {
        name: each
        for name, each in BY_ITS_NAME.items()
        if each.engine == engine and (each.kind in ENDLESS) == (seconds == 2)
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
            # A limit that is smaller here may be met first by what is over the usual one as well.
            assert "max_model_bytes" in status["error"] or is_the_sentence(status["error"], bundle, tmp_path)
            asked = await client.post(LEFT, f"/models/{name}/predict")
            assert asked.status == 503
            assert asked.json == {"error": f"model '{name}' version 1 could not be loaded: {status['error']}"}
