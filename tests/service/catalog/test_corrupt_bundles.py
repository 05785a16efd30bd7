"""Some corrupt bundles, and folders that cannot be read, while models are served: what serves goes on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import InvalidBundle
from spikeserve.service.catalog.loader import Loader, scan
from spikeserve.service.errors import LoadFailed
from tests.bundles import publish
from tests.hostile_bundles.files import (
    CORRUPT,
    CORRUPT_ON_ONNX,
    manifest_a_pipe,
    nested_manifest,
    onnx_of_other_weights,
    onnx_truncated_and_hashed,
    symlink_out,
    terabytes_claimed,
    truncated,
    wrong_golden,
)
from tests.networks import toy
from tests.service.asgi import Client, started

# At 1, the first of the toy's neurons reaches its threshold of 1 at each of the three steps and the second at none.
ASKED = {"inputs": [[1, 0]]}
COUNTS = [3, 0]

NOBODY = 65534  # a user who is not root, where the tests run as root


SOME = (
    truncated,
    terabytes_claimed,
    nested_manifest,
    symlink_out,
    manifest_a_pipe,
    wrong_golden,
    onnx_truncated_and_hashed,
    onnx_of_other_weights,
)


async def answers_as_ever(client: Client) -> None:
    answer = await client.post(ASKED, "/models/toy/predict")
    assert (answer.status, answer.json["version"]) == (200, 1)
    assert answer.json["predictions"][0]["spike_counts"] == COUNTS


@pytest.mark.parametrize("corrupt", SOME, ids=lambda corrupt: corrupt.__name__)
@pytest.mark.anyio
async def test_a_corrupt_bundle_is_refused_with_a_sentence_while_the_rest_serves(
    repository: Path, corrupt: Callable[[Path], None]
) -> None:
    sentence, engine = (CORRUPT_ON_ONNX[corrupt], "onnx") if corrupt in CORRUPT_ON_ONNX else (CORRUPT[corrupt], "event")
    await is_refused(repository, corrupt, sentence, engine)


async def is_refused(repository: Path, corrupt: Callable[[Path], None], expected: str, engine: str) -> None:
    """Corrupt a model, and then a new version of one that is served: both are refused, and what serves goes on."""
    publish(repository, toy(), "corrupt")
    corrupt(repository / "corrupt" / "1")
    async with started(repository, default_model="toy", engine=engine) as client:
        await answers_as_ever(client)
        (listed,) = [model for model in (await client.get("/models")).json["models"] if model["name"] == "corrupt"]
        (status,) = listed["versions"]
        asked = await client.post(ASKED, "/models/corrupt/predict")

        publish(repository, toy())
        corrupt(repository / "toy" / "2")
        loader: Loader = client.app.state.services.loader
        with pytest.raises(LoadFailed) as refused:
            await loader.load("toy")
        await answers_as_ever(client)
        assert (await client.get("/health/live")).status == 200

    assert status["state"] == "failed"
    assert asked.status == 503
    assert asked.json == {"error": f"model 'corrupt' version 1 could not be loaded: {status['error']}"}
    for sentence in (status["error"], str(refused.value)):
        assert expected in sentence
        assert str(repository.parent) not in sentence
        assert "Traceback" not in sentence
        assert "internal error" not in sentence
        assert "\n" not in sentence
        assert len(sentence) < 400


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield an empty folder to somebody whom a mode keeps out of a folder, as it does not keep out root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # not pytest's own, whose parents only this user may enter
        if user == 0:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "listed"])
def test_a_version_whose_folder_cannot_be_read_stops_no_other(mode: int) -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy())
        (root / "toy" / "2").chmod(mode)
        found = scan(ModelRepository(root))
        assert {name: list(versions) for name, versions in found.items()} == {"toy": [1, 2]}
        with pytest.raises(InvalidBundle, match=r"^bundle\.json: cannot be read: Permission denied$"):
            ModelRepository(root).read("toy", 2)
        (root / "toy" / "2").chmod(0o755)
        assert scan(ModelRepository(root))["toy"][2] != found["toy"][2]  # and so a poll tries it again


def test_a_model_whose_folder_cannot_be_read_is_logged_and_stops_no_other() -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy(), "closed")
        (root / "closed").chmod(0o000)
        with structlog.testing.capture_logs() as entries:
            assert list(scan(ModelRepository(root))) == ["toy"]
        (entry,) = entries
        assert (entry["event"], entry["model"], entry["error"]) == ("model_unreadable", "closed", "Permission denied")
        with pytest.raises(InvalidBundle, match=r"^the folder of model 'closed' cannot be read: Permission denied$"):
            ModelRepository(root).read("closed", 1)
        (root / "closed").chmod(0o755)
