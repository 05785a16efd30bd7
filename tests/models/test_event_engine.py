"""The event engine beyond what all engines share: memory, threads and kernels, and runs of any length."""

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.event import call, currents
from spikeserve.models.engines.event.compiled import Kernel, engine_kernels
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from tests.contracts.nodes import TOGETHER
from tests.models.test_wide import FIRST, TWO, image, layer, raster
from tests.same import EVERYTHING, assert_same, assert_same_runs, assert_same_state

ROWS = TOGETHER["each step"]
RUNS = {
    "a layer": (layer(neurons=20), raster(0.1, 11, layer())),
    "every node": (ROWS.network, DenseInputs(np.stack([ROWS.steps, ROWS.steps[::-1]], 1), len(ROWS.steps))),
    # whose sums are integers, or float64 behind values
    "any weights": (network := image("floats", (4, 7, 7), *FIRST, out_channels=32), raster(0.4, 3, network)),
    "a constant": (layer(fields={"coding": "direct"}), DenseInputs(np.ones((1, 4, 784), np.float32), 12)),
}
every_run = pytest.mark.parametrize("kind", RUNS)


def test_every_neuron_spiking_at_every_step_fills_the_arrays_to_the_brim() -> None:
    network, inputs = layer(neurons=64, drive=100.0), raster(1.0, 5, layer())
    assert EventEngine(network).run(inputs)[0].spikes_per_node["hidden"].tolist() == [64 * 6] * 5
    assert_same_runs(inputs, ReferenceEngine(network), EventEngine(network))


def test_a_batch_that_does_not_fit_is_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = RUNS["a layer"]
    whole, _ = EventEngine(network).run(inputs, record=EVERYTHING)
    monkeypatch.setattr("spikeserve.models.engines.event.call.CHUNK_BYTES", 1)
    assert_same(EventEngine(network, 2).run(inputs, record=EVERYTHING)[0], whole)


@every_run
def test_a_run_gets_more_room_where_the_arena_has_none(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = RUNS[kind]
    engine = EventEngine(network)
    whole, state = engine.run(inputs, record=EVERYTHING)
    monkeypatch.setattr(call, "ARENA", 4)
    monkeypatch.setattr(call._room, "arena", np.empty(4, np.uint8))
    result, after = engine.run(inputs, record=EVERYTHING)
    assert_same(result, whole)
    assert_same_state(after, state)


@every_run
def test_no_call_leaves_anything_allocated(kind: str) -> None:
    # A function that counts no references must not call one that returns an array: nobody would free it.
    network, inputs = RUNS[kind]
    engine = EventEngine(network)
    engine.run(inputs)
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    for _ in range(50):
        engine.run(inputs)
    after = rtsys.get_allocation_stats()
    assert after.alloc - before.alloc == after.free - before.free
    assert after.alloc > before.alloc or kind != "a constant"


def test_every_kernel_has_one_signature_which_is_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    EventEngine(layer(neurons=8))  # which compiles, or did so before
    assert len(engine_kernels) == 16
    for kernel in engine_kernels:
        assert len(kernel.dispatcher.signatures) == 1, kernel.name
        if isinstance(kernel, Kernel):  # others are called by their address
            assert kernel.call is not kernel.dispatcher
            monkeypatch.setattr(kernel, "call", kernel.dispatcher)
    # Numba, asked again for each call's types, finds no other: nothing that a run passes is read as what it is not.
    for network, inputs in RUNS.values():
        EventEngine(network, cores=TWO).run(inputs, record=EVERYTHING)
    for kernel in engine_kernels:
        assert len(kernel.dispatcher.signatures) == 1, kernel.name


def test_a_busy_layer_over_more_than_one_block_keeps_no_stale_spikes() -> None:
    # 784 inputs: BLOCK // 784 = 167 steps at once. All spike in the first 300 of 600 steps, and every second one later,
    # which is still more than BUSY: what an earlier block wrote must not count in a later one.
    steps = 600
    assert steps > 2 * currents.BLOCK // 784
    spikes = np.ones((steps, 1, 784), np.float32)
    spikes[300:, :, ::2] = 0.0
    network = layer(neurons=8, steps=steps)
    assert_same_runs(DenseInputs(spikes, steps), ReferenceEngine(network), EventEngine(network))
