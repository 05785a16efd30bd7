"""A state as bytes: it comes back bit for bit, and anything else than it is refused in a sentence."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from spikeserve.models.engines import State, create
from spikeserve.models.engines.blob import HEADER, bytes_per_sample, from_bytes, most_bytes, to_bytes
from spikeserve.models.engines.state import arrays_of
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.network import Network
from tests.networks import Case, dyadic_cases, network_of, task
from tests.same import EVERYTHING, assert_same, assert_same_state

BUNDLE, OTHER = hashlib.sha256(b"bundle").hexdigest(), hashlib.sha256(b"other").hexdigest()

slow = settings(suppress_health_check=[HealthCheck.too_slow])


@slow
@given(case=dyadic_cases(), engine=st.sampled_from(["event", "reference"]))
def test_a_run_goes_on_from_bytes_as_from_the_state_itself(case: Case, engine: str) -> None:
    runner = create(engine, case.network)
    state = State.rest(case.network, case.inputs.batch)
    for part in case.parts:
        blob = to_bytes(state, BUNDLE)
        assert len(blob) <= most_bytes(case.network, case.inputs.batch)
        back = from_bytes(blob, case.network, BUNDLE)
        assert_same_state(back, state)
        for name, array in state.arrays.items():
            assert back.arrays[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
        result, after = runner.run(part, back, record=EVERYTHING)
        expected, state = runner.run(part, state, record=EVERYTHING)
        assert_same(result, expected)
        assert_same_state(after, state)


@slow
@given(case=dyadic_cases(), data=st.data())
def test_changed_bytes_are_a_state_that_runs_or_an_error_in_one_sentence(case: Case, data: st.DataObject) -> None:
    _, state = create("reference", case.network).run(case.inputs)
    blob = bytearray(to_bytes(state, BUNDLE))
    match change := data.draw(st.sampled_from(["flip", "hashed", "cut", "more", "other"])):
        case "hashed":  # a change of the content, and what it is known by then
            content = blob[HEADER.size :]
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(0, 255))
            blob = bytearray(sealed(bytes(content)))
        case "flip":
            for _ in range(data.draw(st.integers(1, 3))):
                blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(0, 255))
        case "cut":
            del blob[data.draw(st.integers(0, len(blob) - 1)) :]
        case "more":
            blob += data.draw(st.binary(min_size=1, max_size=20))
        case _:
            blob = bytearray(data.draw(st.binary(max_size=200)))
    try:
        back = from_bytes(bytes(blob), case.network, BUNDLE)
        with np.errstate(all="ignore"):  # membranes may be as large as float32 holds
            create("event", case.network).run(case.inputs, back)
    except InvalidInput as error:
        assert_sentence(error)
    else:
        if change != "hashed":
            assert_same_state(back, state)


def sealed(content: bytes, bundle: str = BUNDLE, version: int = 1) -> bytes:
    digest = hashlib.sha256(content).digest()
    return HEADER.pack(b"SPKSTATE", version, bytes.fromhex(bundle), digest) + content


def assert_sentence(error: InvalidInput) -> None:
    assert str(error).startswith(("state: ", "time_steps is ", "node '"))
    assert "\n" not in str(error)


def network(readout: str = "max_membrane") -> Network:
    node = {"type": "LIF", "name": "out", "decay": 0.5, "threshold": 8.0, "recurrent": {}}
    return network_of(
        [node], {"out.recurrent.weight": [[0.5]]}, **task(1, 2, 1, "current", low=-8, high=8, readout=readout)
    )


def arrays(**changed: Any) -> dict[str, Any]:
    """Return the arrays of a state of two samples, one of which is at rest."""
    whole = State.joined([State(np.array([3]), stepped()), State.rest(network(), 1)])
    return {"steps": whole.steps, **whole.arrays, **changed}


def stepped() -> dict[str, Any]:
    floats = {"out.membrane": [[2.0]], "out.spikes": [[1.0]], "readout": [[-1.0]]}
    return {name: np.array(given, np.float32) for name, given in floats.items()} | {"spike_counts": np.array([[2]])}


def floats(first: float, rest: float = 0.0) -> Any:
    return np.array([[first], [rest]], np.float32)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"out.membrane": floats(np.nan)}, "'out.membrane' holds nan, expected finite values"),
        ({"out.membrane": floats(np.inf)}, "'out.membrane' holds inf, expected finite values"),
        ({"readout": floats(-np.inf, -np.inf)}, "'readout' holds -inf, expected finite values"),
        ({"readout": floats(1, 0)}, "'readout' of a sample that has taken no step is not what it is at rest"),
        ({"out.membrane": floats(0, 1)}, "'out.membrane' of a sample that has taken no step is not what it is at rest"),
        ({"out.spikes": floats(-1)}, "'out.spikes' holds -1.0, expected 0 to 1"),
        ({"out.spikes": floats(2)}, "'out.spikes' holds 2.0, expected 0 to 1"),
        ({"out.spikes": floats(0.5)}, "'out.spikes' holds parts of spikes, expected whole numbers"),
        ({"spike_counts": np.array([[-1], [0]])}, "'spike_counts' holds -1, expected 0 to 9007199254740992"),
        ({"steps": np.array([3, 0, 0])}, "the shape of 'out.membrane' is 2×1, expected 3×1 for 3 samples"),
        ({"steps": np.array(3)}, "the shape of its steps is scalar, expected 0 for 0 samples"),
        ({"steps": np.array([3, 0], np.int32)}, "the type of 'steps' is I32, expected F32, F64, I64"),
        ({"m" * 99 + "\n": floats(0)}, f"holds '{'m' * 80}', which the network does not have"),
        ({"out.membrane": floats(0).astype(np.float64)}, "the type of 'out.membrane' is float64, expected float32"),
    ],
)
def test_arrays_that_no_run_leaves_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        from_bytes(sealed(save(arrays(**changed))), network(), BUNDLE)
    assert str(raised.value) == f"state: {sentence}"


@pytest.mark.parametrize("first", [-2, 3])
def test_a_first_spike_is_at_a_step_that_was_taken(first: int) -> None:
    given = {"steps": np.array([3]), **stepped(), "readout": np.array([[first]])}
    with pytest.raises(InvalidInput, match=rf"^state: 'readout' holds {first}, expected -1 to 2$"):
        from_bytes(sealed(save(given)), network("first_spike"), BUNDLE)


GOOD = sealed(save(arrays()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda _: b"", r"its first bytes are b'', expected b'SPKSTATE' and a state"),
        (lambda blob: b"x" + blob[1:], r"its first bytes are b'xPKSTATE', expected b'SPKSTATE' and a state"),
        (lambda blob: blob[: HEADER.size - 1], r"its first bytes are b'SPKSTATE', expected b'SPKSTATE' and a state"),
        (lambda blob: blob[:8] + b"\x02" + blob[9:], r"its format is version 2, expected 1"),
        (lambda blob: blob[:-1], r"its bytes are not those that were given out, expected them unchanged"),
        (lambda blob: blob[:-1] + b"\x07", r"its bytes are not those that were given out, expected them unchanged"),
        (lambda _: sealed(b""), r"holds no safetensors: .+"),
        (lambda _: sealed(b"\xff" * 16), r"holds no safetensors: .+"),
        (lambda _: sealed(save({})), r"lacks 'steps', expected the number of steps of each sample"),
        (
            lambda blob: sealed(blob[HEADER.size :], OTHER),
            rf"is of the bundle {OTHER[:12]}…, but this model is {BUNDLE[:12]}…",
        ),
    ],
)
def test_bytes_that_are_no_state_of_this_bundle_are_refused(change: Callable[[bytes], bytes], sentence: str) -> None:
    assert_same_state(from_bytes(GOOD, network(), BUNDLE), State(arrays().pop("steps"), {**arrays_only()}))
    with pytest.raises(InvalidInput, match=f"^state: {sentence}$"):
        from_bytes(change(GOOD), network(), BUNDLE)


def arrays_only() -> dict[str, Any]:
    return {name: array for name, array in arrays().items() if name != "steps"}


def test_a_state_that_overflowed_is_not_written() -> None:
    state = State(np.array([1]), stepped() | {"out.membrane": np.array([[np.inf]], np.float32)})
    with pytest.raises(InvalidInput, match=r"^state: 'out.membrane' holds inf, expected finite values$"):
        to_bytes(state, BUNDLE)


def test_a_state_is_of_the_bytes_that_its_price_says() -> None:
    # A membrane, a spike and a readout of 4 bytes each, a count and the steps of 8: 28 for a sample.
    assert bytes_per_sample(network()) == 28
    assert arrays_of(network()).keys() == arrays_only().keys()
    assert sum(array.nbytes for array in load(GOOD[HEADER.size :]).values()) == 2 * 28
    assert len(GOOD) <= most_bytes(network(), 2)
    assert len(GOOD) > most_bytes(network(), 2) - 2000  # and no bound that holds anything
    assert most_bytes(network(), 9) - most_bytes(network(), 1) == 8 * bytes_per_sample(network())
