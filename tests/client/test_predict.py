"""Predictions from a real server: whatever form a sample is sent in, the answer is the same."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spikeserve
from spikeserve import errors
from spikeserve._async.client import TIMEOUT
from spikeserve.models.coding.records import make_records
from spikeserve.service.keys import new_key
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import regression
from tests.service.sessions.conftest import pairs
from tests.serving import Process, running

# Unit 0 at steps 0, 1 and 3, unit 1 at step 2: three events of one unit make one spike, and one makes none.
RASTER = np.array([[1, 0], [1, 0], [0, 1], [1, 0]])
IN_STEPS = {"t": [0, 1, 2, 3], "unit": [0, 0, 1, 0]}
RECORDING = make_records([500, 1500, 2500, 3500], [0, 0, 1, 0])


def shown(prediction: spikeserve.Prediction) -> tuple[Any, ...]:
    return (
        *(prediction.class_index, prediction.label, prediction.spike_counts.tolist(), prediction.synaptic_operations),
        *(prediction.model, prediction.version, prediction.time_steps, prediction.values),
    )


EXPECTED = (0, "left", [1, 0], 8, "pairs", 1, 4, None)


def test_a_client_waits_as_long_as_a_server_takes_by_default() -> None:
    assert Settings.model_fields["request_timeout_ms"].default == 1000 * TIMEOUT


@pytest.mark.parametrize(
    "inputs",
    [
        RASTER, RASTER[np.newaxis].astype(np.float64), RASTER.tolist(), IN_STEPS, [IN_STEPS], RECORDING, [RECORDING],
        np.array([(500, 0), (1500, 0), (2500, 1), (3500, 0)], [("t", "<i8"), ("unit", "<i8")]),
    ],
)  # fmt: skip
def test_a_sample_has_the_same_answer_in_every_form(client: spikeserve.Client, inputs: Any) -> None:
    (prediction,) = client.predict(inputs, model="pairs")
    assert shown(prediction) == EXPECTED
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities, [0.7311, 0.2689], atol=1e-4)  # the softmax of 1 and 0


def test_a_list_of_recordings_has_a_prediction_for_each(client: spikeserve.Client) -> None:
    recordings = [make_records([0, 0, 1000], [unit, unit, unit]) for unit in (1, 0)]
    assert [each.label for each in client.predict(recordings)] == ["right", "left"]


def test_a_file_is_answered_as_its_events(client: spikeserve.Client, tmp_path: Path) -> None:
    lines = [f"{t},{unit}\n" for t, unit in zip([500, 1500, 2500, 3500], [0, 0, 1, 0], strict=True)]
    (tmp_path / "events.csv").write_text("t,unit\n" + "".join(lines))
    np.save(tmp_path / "raster.npy", RASTER)
    for name in ("events.csv", "raster.npy"):
        (prediction,) = client.predict(tmp_path / name)
        assert shown(prediction) == EXPECTED


def test_a_server_says_its_default_model(client: spikeserve.Client) -> None:
    assert client.default_model() == "pairs"


def test_fields_of_a_newer_server_are_kept() -> None:
    given = {"class_index": 0, "label": "a", "spike_counts": [2, 0], "steps_used": 3, "certainty": 0.5}
    answer = {"model": "m", "version": 2, "engine": "event", "time_steps": 8, "predictions": [given]}
    (prediction,) = spikeserve.Prediction.all_of(answer)
    assert (prediction.steps_used, prediction.time_steps, prediction.more) == (3, 8, {"certainty": 0.5})


@pytest.mark.parametrize(
    ("options", "kind", "status", "sentence"),
    [
        ({"inputs": np.zeros((4, 3))}, spikeserve.InvalidRequest, 422, "the body is an array of shape"),
        ({"inputs": RASTER, "model": "none"}, spikeserve.ModelNotFound, 404, "model 'none' is not served here"),
        ({"inputs": RASTER, "model": "a/b c"}, spikeserve.ModelNotFound, 404, ""),
        ({"inputs": np.zeros((1025, 1, 2))}, spikeserve.TooLarge, 413, "inputs"),
        ({"inputs": RASTER, "stop": "someday"}, spikeserve.InvalidRequest, 422, "stop is"),
    ],
)
def test_a_refusal_carries_the_servers_status_and_sentence(
    client: spikeserve.Client, options: dict[str, Any], kind: type[spikeserve.AnswerError], status: int, sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        client.predict(**options)
    assert caught.value.status == status
    assert sentence in caught.value.sentence


def test_each_status_is_the_error_that_the_tree_says() -> None:
    tree = re.findall(r"── (\w+) +(\d{3}[^:\n]*)", str(errors.__doc__))
    said = {int(status): name for name, statuses in tree for status in re.findall(r"\d+", statuses)}
    assert {400, 401, 403, 404, 408, 413, 415, 422, 503, 504} < said.keys()  # those of the page, and a proxy's
    assert {status: type(errors.answer_error(status, {}, b"")).__name__ for status in said} == said


def test_a_server_that_is_not_there_and_an_address_that_is_none_are_errors_of_this_client() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with spikeserve.Client(url) as client, pytest.raises(spikeserve.ConnectionLost, match="refused"):
            client.predict(RASTER)
    with spikeserve.Client("localhost:8000") as client, pytest.raises(spikeserve.ConnectionLost):
        client.predict(RASTER)


def test_a_server_that_says_nothing_is_waited_for_as_long_as_was_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it listens, and answers nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with spikeserve.Client(url, model="pairs", timeout=0.1) as client:
            with pytest.raises(spikeserve.ConnectionLost, match="timed out"):
                client.predict(RASTER)
            with (
                client.session(retries=0) as session,
                pytest.raises(spikeserve.ConnectionLost, match="did not answer in time"),
            ):
                session.advance(0)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    """A server with a key, two models and no default one, which takes one session at a time; and the key."""
    root, (key, digest) = tmp_path_factory.mktemp("repository"), new_key()
    publish(root, regression(units=["rad", "m/s"]), "arm")
    publish(root, pairs(), "pairs")
    with running(root, "--engine", "reference", "--api-keys", digest, "--max-sessions", "1", ready=2) as process:
        yield process, key


def test_a_key_is_sent_with_requests_and_with_sessions(guarded: tuple[Process, str]) -> None:
    service, key = guarded
    with spikeserve.Client(service.url, key, "pairs") as client:
        assert client.predict(RASTER)[0].label == "left"
        assert [each.window_counts for each in client.stream(RECORDING)] == [[1, 0], [0, 0]]
    with spikeserve.Client(service.url, model="pairs") as client:
        with pytest.raises(spikeserve.NoKey, match="401: this path takes a key"):
            client.predict(RASTER)
        with pytest.raises(spikeserve.NoKey, match="401: this path takes a key"):
            list(client.stream(RECORDING))


def test_an_overloaded_server_says_when_to_come_back(guarded: tuple[Process, str]) -> None:
    service, key = guarded
    with spikeserve.Client(service.url, key, "pairs") as client, client.session() as one:
        one.advance(0)
        with (
            client.session(retries=0) as other,
            pytest.raises(spikeserve.ConnectionLost, match="503: 1 sessions are open") as caught,
        ):
            other.advance(0)
    assert isinstance(caught.value.__cause__, Exception)
    assert isinstance(caught.value.__cause__.__cause__, spikeserve.Unavailable)
    assert caught.value.__cause__.__cause__.retry_after == 1
