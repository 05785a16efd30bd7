"""The event engine beyond what all engines share: runs of any length and activity, threads, memory, kernels."""

from typing import Any

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.event import call, currents
from spikeserve.models.engines.event.call import Call
from spikeserve.models.engines.event.compiled import Kernel, engine_kernels
from spikeserve.models.engines.event.connections import FLOATS, INTEGERS, feed_of
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Conv2d
from tests.networks import network_of, task
from tests.same import EVERYTHING, assert_same, assert_same_runs, assert_same_state


def dyadic(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Draw weights of 9 bits: one more than narrow ones have, whose kernels are tested by themselves."""
    return (rng.integers(-200, 201, shape) / 256).astype(np.float32)


def eighths(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def stack(hidden: int = 150, steps: int = 6, **lif: Any) -> Network:
    """784-hidden-10, wide enough for every way through the gathers."""
    rng = np.random.default_rng(0)
    return network_of(
        [
            {"type": "Linear", "name": "fc1", "in_features": 784, "out_features": hidden},
            {"type": "LIF", "name": "lif1", "decay": 0.9} | lif,
            {"type": "Linear", "name": "fc2", "in_features": hidden, "out_features": 10},
            {"type": "LIF", "name": "lif2", "decay": 0.75},
        ],
        {
            "fc1.weight": dyadic(rng, hidden, 784) / 8,
            "fc1.bias": dyadic(rng, hidden) / 8,
            "fc2.weight": dyadic(rng, 10, hidden),
            "fc2.bias": dyadic(rng, 10),
        }
        | ({"lif1.recurrent.weight": dyadic(rng, hidden, hidden) / 8} if "recurrent" in lif else {}),
        **task(784, steps, 10, "spikes"),
    )


def raster(activity: float, steps: int, batch: int, *shape: int) -> DenseInputs:
    rng = np.random.default_rng(1)
    return DenseInputs((rng.random((steps, batch, *shape)) < activity).astype(np.float32), steps)


def assert_exact(network: Network, *inputs: DenseInputs) -> None:
    for each in inputs:
        assert_same_runs(each, ReferenceEngine(network), EventEngine(network))


@pytest.mark.parametrize(
    ("hidden", "activity", "steps", "batch"),
    [(150, activity, 6, 3) for activity in (0.0, 0.02, 0.2, 0.36, 0.39, 0.5, 1.0)]
    + [(hidden, activity, 6, 3) for hidden in (1, 8, 421) for activity in (0.02, 0.39)]
    + [(20, 0.05, 1, 7), (20, 0.05, 2, 0), (20, 0.05, 1000, 1)],
)
def test_any_activity_width_and_length_is_exact(hidden: int, activity: float, steps: int, batch: int) -> None:
    assert_exact(stack(hidden, steps), raster(activity, steps, batch, 784))


def convolution(shape: tuple[int, int, int], *, first: tuple[dict[str, Any], ...] = (), **fields: Any) -> Network:
    """A convolution of images, perhaps behind other nodes, and neurons behind it."""
    rng, channels = np.random.default_rng(3), shape[0]
    node = Conv2d.model_validate({"name": "conv", "in_channels": channels, "kernel_size": 3} | fields)
    outputs, size = node.output_shape(shape), int(np.prod(node.output_shape(shape)))
    return network_of(
        [
            *first,
            node.model_dump(),
            {"type": "LIF", "name": "lif1", "decay": 0.75},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": size, "out_features": 3},
            {"type": "IF", "name": "out", "threshold": 4.0},
        ],
        {
            "conv.weight": dyadic(rng, *node.tensor_shapes(shape)["weight"]),
            "conv.bias": dyadic(rng, outputs[0]),
            "fc.weight": dyadic(rng, 3, size),
            "fc.bias": dyadic(rng, 3),
        },
        **task(shape, 5, "abc", "spikes"),
    )


@pytest.mark.parametrize("channels", [3, 8, 16, 24, 48, 70])
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (2, 1)])
def test_a_convolution_of_any_width_is_exact(channels: int, groups: int, stride: int) -> None:
    # A line of a block is a few half vectors, a few whole ones, or long enough for adding channels together.
    network = convolution((4, 6, 6), out_channels=channels * groups, groups=groups, stride=stride, padding=1)
    values = eighths(np.random.default_rng(3), 5, 3, 4, 6, 6)
    assert_exact(network, raster(0.4, 5, 3, 4, 6, 6), DenseInputs(values, 5))


@pytest.mark.parametrize(("stride", "dilation"), [(2, 2), (2, 4), (4, 2), (2, 3)])
def test_a_convolution_with_stride_and_dilation_is_exact(stride: int, dilation: int) -> None:
    # With stride 2 and dilation 2 all taps that meet one input are of one parity, and their outputs are neighbours.
    network = convolution((2, 11, 11), out_channels=16, padding=2, stride=stride, dilation=dilation)
    assert_exact(network, raster(0.3, 5, 2, 2, 11, 11))


def test_a_grouped_convolution_after_neurons_keeps_its_groups_apart_where_lines_are_long() -> None:
    # Kernel width 4 × 16 channels a group = 64 floats, from where on one position's channels are added together: those
    # of two groups must not be. Behind neurons a position's channels follow each other.
    first = ({"type": "IF", "name": "first"},)
    assert_exact(
        convolution((4, 6, 6), first=first, out_channels=32, kernel_size=4, groups=2), raster(0.6, 5, 2, 4, 6, 6)
    )


def test_every_neuron_spiking_at_every_step_fills_the_arrays_to_the_brim() -> None:
    network, inputs = stack(64, drive=100.0), raster(1.0, 6, 5, 784)
    assert EventEngine(network).run(inputs)[0].spikes_per_node["lif1"].tolist() == [64 * 6] * 5
    assert_exact(network, inputs)


def test_a_batch_that_does_not_fit_is_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = stack(20), raster(0.1, 6, 11, 784)
    whole, _ = EventEngine(network).run(inputs, record=EVERYTHING)
    monkeypatch.setattr("spikeserve.models.engines.event.call.CHUNK_BYTES", 1)
    assert_same(EventEngine(network, 2).run(inputs, record=EVERYTHING)[0], whole)


@pytest.mark.parametrize("kind", ["stack", "every way", "any weights"])
def test_a_run_gets_more_room_where_the_arena_has_none(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = stack(20), raster(0.1, 6, 11, 784)
    if kind == "every way":
        network, inputs = every_way(), raster(0.4, 5, 3, 2, 6, 6)
    elif kind == "any weights":
        network = lines_of(32, dyadic_weights=False)
        inputs = DenseInputs(eighths(np.random.default_rng(2), 5, 2, 4, 7, 7), 5)
    engine = EventEngine(network)
    whole, state = engine.run(inputs, record=EVERYTHING)
    monkeypatch.setattr(call, "ARENA", 4)
    monkeypatch.setattr(call._room, "arena", np.empty(4, np.uint8))
    result, after = engine.run(inputs, record=EVERYTHING)
    assert_same(result, whole)
    assert_same_state(after, state)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_batch_runs_no_more_parts_at_once_than_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = [], []

    class Watched(Call):
        def run_part(self, first: int, end: int) -> None:
            alive.append(first)
            most.append(len(alive))
            super().run_part(first, end)
            alive.remove(first)

    monkeypatch.setattr("spikeserve.models.engines.event.call.CHUNK_BYTES", 1)
    monkeypatch.setattr("spikeserve.models.engines.event.engine.Call", Watched)
    EventEngine(stack(20), threads).run(raster(0.1, 6, 40, 784))
    assert len(most) == 40
    assert max(most) <= threads


@pytest.mark.parametrize("kind", ["constant", "every way", "any weights"])
def test_no_call_leaves_anything_allocated(kind: str, digits_like: Network) -> None:
    # A function that counts no references must not call one that returns an array: nobody would free it.
    network, inputs = digits_like, DenseInputs(np.ones((1, 4, 64), np.float32), 12)
    if kind == "every way":
        network, inputs = every_way(), raster(0.4, 5, 3, 2, 6, 6)
    elif kind == "any weights":  # whose sums are integers, or float64 behind values
        network = lines_of(32, dyadic_weights=False)
        inputs = DenseInputs(eighths(np.random.default_rng(2), 5, 2, 4, 7, 7), 5)
    engine = EventEngine(network)
    _, state = engine.run(inputs)
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    for _ in range(50):
        engine.run(inputs, state)
    after = rtsys.get_allocation_stats()
    assert after.alloc - before.alloc == after.free - before.free > 0


def lines_of(channels: int, *, dyadic_weights: bool) -> Network:
    """A convolution of 3 x 3, behind it one of 5 x 3 whose lines are three times so many channels, and a pool."""
    rng = np.random.default_rng(8)

    def weight(*shape: int) -> NDArray[Any]:
        return dyadic(rng, *shape) if dyadic_weights else rng.normal(0, 0.3, shape)

    return network_of(
        [
            {"type": "Conv2d", "name": "first", "in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1},
            {"type": "LIF", "name": "spikes", "decay": 0.75},
            {"type": "Conv2d", "name": "conv", "in_channels": 8, "out_channels": channels}
            | {"kernel_size": [5, 3], "padding": [2, 1]},
            {"type": "LIF", "name": "lif", "decay": 0.75},
            {"type": "MaxPool2d", "name": "pool", "kernel_size": 2},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": channels * 9, "out_features": 3},
            {"type": "IF", "name": "out", "threshold": 4.0},
        ],
        {
            "first.weight": weight(8, 4, 3, 3),
            "first.bias": weight(8),
            "conv.weight": weight(channels, 8, 5, 3),
            "conv.bias": weight(channels),
            "fc.weight": weight(3, channels * 9),
            "fc.bias": weight(3),
        },
        **task((4, 7, 7), 5, "abc", "spikes"),
    )


@pytest.mark.parametrize("dyadic_weights", [True, False], ids=["floats", "integers"])
@pytest.mark.parametrize("channels", [16, 32, 64, 80, 96])
def test_three_lines_of_a_kernel_are_added_together_where_they_fill_the_registers(
    channels: int, dyadic_weights: bool
) -> None:
    # Inside the image a spike reaches five lines of 3 x channels: with 32 channels six vectors, with 64 twice and with
    # 96 three times six. At its edges lines are shorter and fewer, and lines of 16 and 80 channels are no multiple.
    network, inputs = lines_of(channels, dyadic_weights=dyadic_weights), raster(0.5, 5, 3, 4, 7, 7)
    plan = EventEngine(network).plan
    assert plan.rows[plan.names.index("conv")]["summed"] == (FLOATS if dyadic_weights else INTEGERS)
    found = assert_same_runs(inputs, ReferenceEngine(network), EventEngine(network))
    assert found.rasters["spikes"].mean() > 0.2  # so that a position has several spikes


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 31, 33])
def test_rows_of_any_width_are_searched_to_their_end_and_no_further(width: int) -> None:
    # The last value of each row, of which the first sample's is a spike and the second's is not; NaN lies behind them.
    network = network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": width, "out_features": 1, "bias": False},
            {"type": "LI", "name": "out", "decay": 0.0},
        ],
        {"fc.weight": np.ones((1, width), np.float32)},
        **task(width, 1, 1, "current", low=0, high=2, readout="last_membrane"),
    )
    held = np.full(2 * width + 16, np.nan, np.float32)
    steps = held[: 2 * width].reshape(1, 2, width)
    steps[...] = 0.0
    steps[0, :, -1] = 1.0, 1.5
    result, _ = EventEngine(network).run(DenseInputs(steps, 1))
    assert result.readout.tolist() == [[1.0], [1.5]]
    assert result.synaptic_operations is not None
    assert result.synaptic_operations.tolist() == [1, 1]


def test_every_kernel_has_one_signature_which_is_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    EventEngine(stack(8))  # which compiles, or did so before
    assert len(engine_kernels) == 17
    for kernel in engine_kernels:
        assert len(kernel.dispatcher.signatures) == 1, kernel.name
        if isinstance(kernel, Kernel):  # others are called by their address
            assert kernel.call is not kernel.dispatcher
            monkeypatch.setattr(kernel, "call", kernel.dispatcher)
    # Numba, asked again for each call's types, finds no other: nothing that a run passes is read as what it is not.
    for network, inputs in ((stack(70), raster(0.2, 6, 3, 784)), (every_way(), raster(0.4, 5, 3, 2, 6, 6))):
        EventEngine(network, cores=Cores(2, least_work=0.0)).run(inputs, record=EVERYTHING)
    for kernel in engine_kernels:
        assert len(kernel.dispatcher.signatures) == 1, kernel.name


def every_way() -> Network:
    """Convolution, pools, a recurrent layer that fires several times, a shortcut, a scale, a delay and a readout."""
    return network_of(
        [
            {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1},
            {"type": "LIF", "name": "lif", "charge": "euler", "rate": 0.5, "fire": "multiple", "threshold": 0.5}
            | {"recurrent": {"bias": True, "bias_at_start": False}},
            {"type": "Scale", "name": "scale", "scale": 0.5, "inputs": ["conv", "lif"]},
            {"type": "Delay", "name": "delay", "delay": 2},
            {"type": "AvgPool2d", "name": "average", "kernel_size": 2},
            {"type": "MaxPool2d", "name": "largest", "kernel_size": 1},
            {"type": "Flatten", "name": "flat"},
            {"type": "CubaLI", "name": "out", "decay": 0.5, "syn_decay": 0.5},
        ],
        {
            "conv.weight": dyadic(np.random.default_rng(0), 3, 2, 3, 3),
            "conv.bias": [0.5, 0, 0],
            "lif.recurrent.weight": dyadic(np.random.default_rng(1), 108, 108) / 8,
            "lif.recurrent.bias": dyadic(np.random.default_rng(2), 108),
        },
        **task((2, 6, 6), 5, 27, "spikes", readout="last_membrane"),
    )


@pytest.mark.parametrize("fields", [{}, {"stride": 2}, {"stride": 3, "padding": 2}, {"dilation": 2}, {"groups": 2}])
def test_a_convolutions_tables_stay_within_its_arrays(fields: dict[str, Any]) -> None:
    node = Conv2d(name="conv", in_channels=2, out_channels=6, kernel_size=(3, 3), **fields)
    spec = Spec.read(
        {
            "input": {"shape": [2, 9, 7]},
            "time_steps": 1,
            "readout": "last_membrane",
            "labels": [str(k) for k in range(int(np.prod(node.output_shape((2, 9, 7)))))],
            "nodes": [node.model_dump(), {"type": "Flatten", "name": "f"}, {"type": "LI", "name": "out", "decay": 1}],
        }
    )
    network = Network(spec, {name: np.ones(shape, np.float32) for name, shape in spec.tensor_shapes.items()})
    before, after = Layout.of((2, 9, 7)), Layout.of(spec.output_shapes["conv"])
    feed = feed_of(node, network, before, after)
    assert len(feed.sender) == before.size
    assert min(feed.sender.min(), feed.output_step, feed.weight_step) >= 0
    unit = 8 if feed.halves else 16
    _, place, start, lines, blocks, vectors = feed.sender.T
    end = start + (lines - 1) * feed.weight_step + (blocks - 1) * feed.kernel_step + unit * vectors
    assert end.max() <= feed.weight.size
    end = place + (lines - 1) * feed.output_step + (blocks - 1) * feed.column_step + unit * vectors
    assert end.max() <= after.size + 16


def test_a_busy_layer_over_more_than_one_block_keeps_no_stale_spikes() -> None:
    # 784 inputs: BLOCK // 784 = 167 steps at once. All spike in the first 300 of 600 steps, and every second one later,
    # which is still more than BUSY: what an earlier block wrote must not count in a later one.
    steps = 600
    assert steps > 2 * currents.BLOCK // 784
    spikes = np.ones((steps, 1, 784), np.float32)
    spikes[300:, :, ::2] = 0.0
    assert_exact(stack(8, steps), DenseInputs(spikes, steps))


def test_averages_of_windows_whose_sums_are_all_1_are_no_spikes() -> None:
    # One spike in each window of four at every step: a current of 1/4, which reaches the threshold 1 at the fourth.
    network = network_of(
        [
            {"type": "AvgPool2d", "name": "average", "kernel_size": 2},
            {"type": "Flatten", "name": "flat"},
            {"type": "IF", "name": "out"},
        ],
        {},
        **task([1, 2, 4], 4, ["left", "right"], "spikes"),
    )
    spikes = np.zeros((4, 1, 1, 2, 4), np.float32)
    spikes[:, 0, 0, 0, [0, 3]] = 1.0
    result, _ = EventEngine(network).run(DenseInputs(spikes, 4), record=EVERYTHING)
    assert result.membranes["out"][:, 0].tolist() == [[0.25, 0.25], [0.5, 0.5], [0.75, 0.75], [0.0, 0.0]]
    assert result.spike_counts.tolist() == [[1, 1]]
