"""An answer's bytes are known before it is made, bounded and counted; a long one is made and sent in pieces."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.errors import InvalidBundle
from spikeserve.models.spec.network import Network
from spikeserve.service.catalog.limits import ModelLimits
from spikeserve.service.catalog.loaded import LoadedModel, verify
from spikeserve.service.errors import TooLarge
from spikeserve.service.inference.decoding.pieces import PIECE_VALUES, joined, json_fragments
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import network_of, task, toy
from tests.service.asgi import slow, started
from tests.service.infer_requests import INFER, request
from tests.serving import serving

# Of the model of two labels, "left" and "right": a label is 7 bytes of JSON, quoted, and a comma. One sample has two
# classes of 32 bytes of arrays, a count of 21 and a probability of 25, and 128 bytes around them: 128 + 2 x 78 + 8.
SAMPLE = 292
ENVELOPE = 512 + len('"toy"')


def loaded(settings: Settings) -> LoadedModel:
    """Verify and load the model of a repository."""
    return LoadedModel.load("toy", 1, settings, verify("toy", 1, settings))


def wide(classes: int) -> Network:
    """Return a network of many classes, each of which fires as the one input does."""
    nodes = [{"type": "Linear", "name": "fc", "in_features": 1, "out_features": classes, "bias": False}]
    return network_of(
        [*nodes, {"type": "IF", "name": "out"}],
        {"fc.weight": np.ones((classes, 1), np.float32)},
        **task(1, 3, classes, low=0, high=10),
    )


@pytest.mark.parametrize("returned", [[], ["membrane"], ["raster", "membrane", "spikes_per_node"]])
@pytest.mark.parametrize("samples", [1, 7])
def test_no_answer_is_longer_than_was_said_before(repository: Path, samples: int, returned: list[str]) -> None:
    limits = loaded(Settings(repository=repository)).limits
    # Both fire at each step, and leave membranes of as many digits as a float32 may have.
    body = {"inputs": [[9.9, 9.8]] * samples, "time_steps": 50, "return": returned}
    with serving(repository) as client:
        answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    assert len(answer.content) <= limits.answer.native(samples, 50, returned)


def test_an_answer_that_may_be_too_long_is_413_in_both_protocols(repository: Path) -> None:
    most = ENVELOPE + 2 * SAMPLE
    with serving(repository, **answers_of(most)) as client:
        assert client.post("/predict", json={"inputs": [[0, 1]] * 2}).status_code == 200
        native = client.post("/predict", json={"inputs": [[0, 1]] * 3})
        tensors = client.post(INFER, json=request([[0.0, 1.0]] * 3))
        counts = client.post(INFER, json=request([[0.0, 1.0]] * 2) | {"outputs": [{"name": "class_index"}]})
    assert (native.status_code, tensors.status_code, counts.status_code) == (413, 413, 200)
    sentence = "inputs has 3 samples, whose answer may take {} bytes, expected at most {} in one answer of this model"
    assert native.json() == {"error": sentence.format(ENVELOPE + 3 * SAMPLE, most)}
    # Arrays, five outputs of 128 bytes around them, and of each sample 2 counts, 2 probabilities, the class, the label
    # and its length, and the operations.
    size = ENVELOPE + 3 * 64 + 5 * 128 + 3 * (2 * 21 + 2 * 25 + 21 + 12 + 21)
    assert tensors.json() == {"error": sentence.format(size, most)}


def answers_of(most: int) -> dict[str, Any]:
    """Return settings by which an answer takes at most so many bytes."""
    return {"max_body_bytes": 500, "max_pending_bytes": most}


def test_the_budget_is_a_bound_of_one_answer_too(repository: Path) -> None:
    with serving(repository, **answers_of(ENVELOPE + SAMPLE)) as client:
        answers = [client.post("/predict", json={"inputs": [[0, 1]] * samples}) for samples in (1, 2)]
    assert [answer.status_code for answer in answers] == [200, 413]


def test_a_model_whose_answer_for_one_sample_is_too_long_is_not_loaded(repository: Path) -> None:
    most = ENVELOPE + SAMPLE
    assert loaded(Settings(repository=repository, **answers_of(most))).limits.answer_bytes == most
    with pytest.raises(InvalidBundle) as refused:
        loaded(Settings(repository=repository, **answers_of(most - 1)))
    assert str(refused.value) == (
        f"labels: with the model's 2, an answer for one sample may take {most} bytes, expected at most {most - 1}"
    )


def test_a_model_is_described_with_as_many_samples_as_an_answer_may_have(repository: Path) -> None:
    settings = Settings(repository=repository, **answers_of(ENVELOPE + 5 * SAMPLE + SAMPLE // 2))
    assert loaded(settings).limits.max_request_samples == 5


def test_no_fragment_is_made_of_more_values_than_a_slice_has() -> None:
    array = np.arange(3 * PIECE_VALUES + 5)
    nested = {"long": array, "rows": array[:2].reshape(2, 1), "texts": ["x"] * (PIECE_VALUES + 1), "nan": np.nan}
    fragments = list(json_fragments(nested))
    assert json.loads(b"".join(fragments)) == {
        "long": array.tolist(),
        "rows": [[0], [1]],
        "texts": ["x"] * (PIECE_VALUES + 1),
        "nan": None,
    }
    assert max(fragment.count(b",") for fragment in fragments) == PIECE_VALUES - 1


def test_pieces_have_the_bytes_of_one_piece_and_at_most_one_fragment_more() -> None:
    fragments = [b"x" * 1000] * 200  # 66 of them are 66,000 bytes, the first to reach 65,536
    assert [len(piece) for piece in joined(fragments)] == [66_000, 66_000, 66_000, 2000]
    assert joined([]) == [b""]


async def test_the_bytes_of_an_answer_are_reserved_until_it_was_sent_and_are_then_free(tmp_path: Path) -> None:
    # One sample of 3,000 classes may take 234,000 bytes and a little: two fit the budget, and a third does not.
    publish(tmp_path, wide(3000))
    size = loaded(Settings(repository=tmp_path)).limits.answer.native(1, 3)
    async with started(tmp_path, threads=1, max_body_bytes=1000, max_pending_bytes=2 * size) as client:
        held = slow(client.model())
        gone = asyncio.Event()
        first = asyncio.create_task(client.post({"inputs": [[1]]}))
        await held.begun()
        left = asyncio.create_task(client.post({"inputs": [[2]]}, left=gone))
        for _ in range(20):
            await asyncio.sleep(0)
        assert client.reserved == 2 * size
        refused = await client.post({"inputs": [[3]]})
        gone.set()
        assert (await left).status == 0
        assert client.reserved == size
        held.go_on.release(3)
        assert (await first).status == 200
        assert client.reserved == 0
        assert (await client.post({"inputs": [[3]]})).status == 200
    assert refused.status == 503
    assert refused.json == {
        "error": f"the bodies and answers of all requests in progress would have {3 * size} bytes with this one, "
        f"expected at most {2 * size}"
    }


def test_a_raster_of_a_spike_for_each_neuron_and_step_takes_what_was_reckoned_and_one_more_takes_more() -> None:
    # Two samples of three steps and two neurons have room for twelve spikes.
    limits = ModelLimits(toy().spec, Settings(**answers_of(10_000)))
    limits.check_raster(12, 10_000, 2, 3)
    with pytest.raises(TooLarge, match="whose answer may take 10004 bytes, expected at most 10000"):
        limits.check_raster(13, 10_000, 2, 3)
