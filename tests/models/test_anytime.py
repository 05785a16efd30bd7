"""Anytime answers: a sample ends early, and its answer is that of a run of the steps that it took, to the bit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeserve.models.coding import EventInputs, encode
from spikeserve.models.engines import ENGINES, RunResult, create
from spikeserve.models.engines.anytime import Calibration, StopRule, confident, decided, run_anytime, run_until
from spikeserve.models.engines.base import Record, joined
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from tests.networks import Case, dyadic_cases, network_of, task, toy, votes
from tests.same import EVERYTHING, assert_same

drawn = settings(max_examples=settings().max_examples // 2 + 1, suppress_health_check=[HealthCheck.too_slow])
every_engine = pytest.mark.parametrize("engine", list(ENGINES))
pytestmark = pytest.mark.timeout(max(300, settings().max_examples))


@dataclass(frozen=True)
class AnyRule:
    """Ends samples at random."""

    checks: Sequence[int]
    data: st.DataObject

    def ended(self, result: RunResult, _: int) -> NDArray[np.bool_]:
        batch = len(result.readout)
        return np.array(self.data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)), np.bool_)


@every_engine
@drawn
@given(case=dyadic_cases(), data=st.data())
def test_a_sample_that_ends_early_gets_the_bits_of_a_run_of_its_steps_and_a_decided_one_its_class(
    engine: str, case: Case, data: st.DataObject
) -> None:
    time_steps = case.inputs.time_steps
    looks = data.draw(st.lists(st.integers(1, time_steps), max_size=3, unique=True))
    rule = AnyRule(sorted({*looks, time_steps}), data)
    as_events = not case.inputs.constant and data.draw(st.booleans())
    inputs = EventInputs.of(case.inputs) if as_events else case.inputs
    runner = create(engine, case.network)
    whole, _ = ReferenceEngine(case.network).run(case.inputs)
    found = run_anytime(runner, inputs, StopRule.DECIDED)
    np.testing.assert_array_equal(found.class_index, whole.class_index)
    result = run_until(runner, inputs, rule, EVERYTHING)
    used = result.steps_used
    assert used is not None
    assert used.dtype == np.int64
    for sample, steps in enumerate(used.tolist()):
        alone = slice(sample, sample + 1)
        expected, _ = ReferenceEngine(case.network).run(case.inputs[alone].between(0, steps), record=EVERYTHING)
        assert_same(cut(result[alone], steps), expected)


def cut(result: RunResult, steps: int) -> RunResult:
    """Return the steps of one sample that ran, having checked that what was recorded after them is 0."""
    for recorded in [*result.rasters.values(), *result.membranes.values()]:
        assert not recorded[steps:].any()
    return RunResult(
        result.spike_counts,
        result.readout,
        result.synaptic_operations,
        result.spikes_per_node,
        {name: raster[:steps] for name, raster in result.rasters.items()},
        {name: membrane[:steps] for name, membrane in result.membranes.items()},
    )


@drawn
@given(case=dyadic_cases(), data=st.data())
def test_a_run_that_asks_the_rule_by_itself_is_a_run_in_slices(case: Case, data: st.DataObject) -> None:
    spec, steps = case.network.spec, case.inputs.time_steps
    first, then = data.draw(st.integers(1, steps)), data.draw(st.integers(1, steps))
    calibrated = calibration(data.draw(st.sampled_from([0.0, 0.25, 0.5, 2.0])), first, then, steps)
    engine = EventEngine(case.network)
    # So that two samples are shared.
    engine.cores = Cores(data.draw(st.integers(1, 2)), least_work=0.6 * engine.plan.work_per_step * steps)
    engine.plan.look_time *= data.draw(st.sampled_from([0.0, 1e9]))  # one by one, or all together
    as_events = not case.inputs.constant and data.draw(st.booleans())
    inputs = EventInputs.of(case.inputs) if as_events else case.inputs
    for rule in (decided(spec, steps), confident(spec, calibrated)):
        found, expected = run_until(engine, inputs, rule), run_until(ReferenceEngine(case.network), case.inputs, rule)
        assert found.steps_used is not None
        np.testing.assert_array_equal(found.steps_used, expected.steps_used)
        for sample, used in enumerate(found.steps_used.tolist()):
            alone = slice(sample, sample + 1)
            taken, _ = engine.run(inputs[alone].between(0, used))
            assert_same(replace(found[alone], steps_used=None), taken)


@pytest.mark.parametrize("remaining", [1, 2, 3])
def test_counts_are_decided_exactly_where_no_spikes_to_come_change_the_class(remaining: int) -> None:
    # Every count of three classes up to 4, and every number of spikes that each may still fire: none to all steps.
    counts = np.array(list(product(range(5), repeat=3)), np.int64)
    futures = np.array(list(product(range(remaining + 1), repeat=3)), np.int64)
    ends = (counts[:, np.newaxis] + futures).argmax(axis=2)  # (counts, futures), with ties to the lowest index
    unchanged = (ends == counts.argmax(axis=1)[:, np.newaxis]).all(axis=1)
    result = RunResult(counts, counts.astype(np.float32), counts.sum(1), {})
    taken = 4
    found = decided(three().spec, taken + remaining).ended(result, taken)
    np.testing.assert_array_equal(found, unchanged)
    assert unchanged.any()
    assert not unchanged.all()


def test_an_only_class_is_decided_at_the_first_look_whether_it_has_fired_or_not() -> None:
    network = network_of([{"type": "IF", "name": "out"}], {}, **task(1, 8, ["only"], "spikes"))
    counts = np.array([[0], [3]])
    result = RunResult(counts, counts.astype(np.float32), counts.sum(1), {})
    assert decided(network.spec, 8).ended(result, 5).all()


def three(readout: str = "spike_count", fire: str = "at_threshold", time_steps: int = 8) -> Network:
    return votes("abc", time_steps, fire=fire, low=0, high=4, readout=readout)


@pytest.mark.parametrize("readout", ["spike_count", "sum", "mean"])
@every_engine
def test_counts_end_once_the_lead_is_more_than_what_remains(engine: str, readout: str) -> None:
    # Eight steps, looked at after 5, 6 and 8. Neuron a of the first sample and b of the second fire at every step: 5
    # against 0 with 3 to come. a and b of the third are level to the end, and the tie goes to a. In the fourth, b has 6
    # after 6 steps and c, which fires at three of four, 4, with 2 to come: a tie would go to b, which is before c. In
    # the fifth they are the other way round, and c would have to be 3 ahead.
    network = three(readout)
    inputs = encode(np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0.75], [0, 0.75, 1]], np.float32), network.spec)
    result = run_anytime(create(engine, network), inputs, StopRule.DECIDED)
    assert np.asarray(result.steps_used).tolist() == [5, 5, 8, 6, 8]
    assert result.class_index.tolist() == [0, 1, 0, 1, 2]
    assert result.spike_counts.tolist() == [[5, 0, 0], [0, 5, 0], [8, 8, 0], [0, 6, 4], [0, 6, 8]]


@every_engine
@pytest.mark.parametrize("as_events", [False, True])
def test_each_sample_of_a_batch_ends_by_its_own_spikes(engine: str, as_events: bool) -> None:
    # Four steps of spikes of a and b, looked at after three. Three to none are decided, and two to one of a, which wins
    # ties; two to one of b are not, and what comes last is counted.
    network = votes("ab", 4, "spikes")
    a, b, none = [1, 0], [0, 1], [0, 0]
    samples = [[a, a, a, b], [none, none, none, a], [b, b, b, a], [a, b, a, b], [b, a, b, a]]
    dense = encode(np.array(samples, np.float32), network.spec)
    inputs = EventInputs.of(dense) if as_events else dense
    result = run_anytime(create(engine, network), inputs, StopRule.DECIDED)
    assert np.asarray(result.steps_used).tolist() == [3, 4, 3, 3, 4]
    assert result.spike_counts.tolist() == [[3, 0], [1, 0], [0, 3], [2, 1], [2, 2]]


@every_engine
def test_the_first_spike_decides(engine: str) -> None:
    # b fires first, at the second step, c at the fourth; a run of 8 steps is looked at after 1, 2, 4 and 8.
    network = three("first_spike")
    inputs = encode(np.array([[0, 0.5, 0.25], [0, 0, 0]], np.float32), network.spec)
    result = run_anytime(create(engine, network), inputs, StopRule.DECIDED)
    assert np.asarray(result.steps_used).tolist() == [2, 8]  # the second never fires
    assert result.class_index.tolist() == [1, 0]


def test_a_run_is_decided_only_from_its_half_on() -> None:
    # No lead is more than the steps taken, so that up to the half of 100 steps it is no more than what remains; then
    # after an eighth of the run, thirteen steps, and after twice as many.
    assert decided(three().spec, 100).checks == (51, 64, 90, 100)
    assert decided(three().spec, 2).checks == (2,)
    assert decided(three().spec, 1).checks == (1,)


def calibration(threshold: float, first: int = 1, then: int = 1, time_steps: int = 8) -> Calibration:
    own = {"threshold": threshold, "first": first, "then": then, "time_steps": time_steps}
    others = {"samples": 1, "accuracy": 1, "target": 0, "lost": 0, "changed": 0, "mean_steps": 1}
    return Calibration.model_validate(own | others)


def test_confident_samples_end_where_their_lead_is_enough_for_each_remaining_step() -> None:
    # A lead of n after n steps, and half of that: with 0.5 for each of the 8 - n that remain, n >= 0.5 * (8 - n) from
    # 3 on, and floor(n / 2) >= 0.5 * (8 - n) from 4 on, where it is 2 >= 2. It is looked at after 2, 3, 5 and 8 steps.
    network = three()
    inputs = encode(np.array([[1, 0, 0], [0, 0, 0.5]], np.float32), network.spec)
    result = run_anytime(EventEngine(network), inputs, StopRule.CONFIDENT, calibration(0.5, first=2))
    assert np.asarray(result.steps_used).tolist() == [3, 5]
    looked = run_anytime(EventEngine(network), inputs, StopRule.CONFIDENT, calibration(0.5, 2, 4))
    assert np.asarray(looked.steps_used).tolist() == [6, 6]  # after 2 steps the leads are 2 and 1, and 3 are needed


@every_engine
@pytest.mark.parametrize("parts", [[3], [1, 2], [1, 1, 1]])
@pytest.mark.parametrize("record", [Record.NONE, Record.RASTER, Record.MEMBRANE, EVERYTHING])
@pytest.mark.parametrize("rule", [None, *StopRule])
def test_each_engine_gives_one_answer_in_any_parts(
    engine: str, parts: list[int], record: Record, rule: StopRule | None
) -> None:
    # Both inputs of the second sample meet 2 weights each, once; parts that end after 5 and 8 steps are one result.
    network = toy(time_steps=8)
    inputs = encode(np.array([[1.0, 0.0], [1.0, 0.5], [2.0, 1.0]], np.float32), network.spec)
    whole, _ = ReferenceEngine(network).run(inputs, record=record)
    runner, calibrated = create(engine, network), calibration(2.0, 1, 1, 8)
    results = []
    for end, size in zip(accumulate(parts), parts, strict=True):
        part = inputs[end - size : end]
        results.append(
            run_anytime(runner, part, rule, calibrated, record) if rule else runner.run(part, record=record)[0]
        )
    found = joined(results)
    used = [8, 8, 8] if found.steps_used is None else found.steps_used.tolist()
    assert (used == [5, 5, 8]) is (rule is StopRule.DECIDED)
    assert found.synaptic_operations.tolist() == [2, 4, 4]
    assert found.class_index.tolist() == whole.class_index.tolist()
    for kind in ("rasters", "membranes"):
        assert getattr(found, kind).keys() == getattr(whole, kind).keys()
        for name, recorded in getattr(found, kind).items():
            expected = getattr(whole, kind)[name][: len(recorded)].copy()
            expected[np.arange(len(recorded))[:, np.newaxis] >= used] = 0
            np.testing.assert_array_equal(recorded, expected)
