"""Networks of lava-dl: Loihi's whole numbers in every engine, and what Lava would compute otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Record, available, create
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import Shape
from spikeserve.plugins.nir.lava.convert import convert
from spikeserve.plugins.nir.lava.file import read
from spikeserve.training.errors import InvalidGraph, TrainingError
from spikeserve.training.importers.options import Options
from tests.apps import app
from tests.plugins.nir.loihi import CUBA, LIMIT, SDNN, Layer, conv, dense, simulated, write
from tests.reference_data import reference_data

Make = Callable[[np.random.Generator], list[Layer]]


def network(path: Path, layers: list[Layer], steps: int, shape: Shape | None, *, latency: bool = False) -> Network:
    file = read(write(path / "network.net", *layers))
    return convert(file.layers, Options(input_shape=shape, time_steps=steps, low=-100, high=100), latency=latency)


def require_equal(network: Network, steps: Any, expected: list[tuple[Any, Any]]) -> None:
    """Compare the spikes and membranes of each layer in each engine with whole numbers (steps, *shape)."""
    neurons = [node.name for node in network.spec.nodes if node.type == "Neuron"]
    for engine in available():
        inputs = DenseInputs(steps.astype(np.float32)[:, np.newaxis], network.spec.time_steps)
        result, _ = create(engine, network).run(inputs, record=Record.RASTER | Record.MEMBRANE)
        for name, (spikes, membranes) in zip(neurons, expected, strict=True):
            np.testing.assert_array_equal(result.rasters[name][:, 0], spikes, f"{engine}: spikes of {name}")
            np.testing.assert_array_equal(result.membranes[name][:, 0], membranes, f"{engine}: membranes of {name}")


def require_answers(network: Network, frames: Any, expected: Any) -> None:
    """Compare the answer after each step in each engine, for an input (steps, *shape)."""
    for engine in available():
        runner, state = create(engine, network), None
        for step, frame in enumerate(frames):
            result, state = runner.run(DenseInputs(frame.astype(np.float32)[np.newaxis, np.newaxis], 1), state)
            np.testing.assert_array_equal(result.readout[0], expected[step], f"{engine}, step {step}")


def cuba(rng: np.random.Generator, least: int = 1) -> dict[str, Any]:
    decays = [0, 1, 2048, 4095, 4096, *rng.integers(0, 4097, 3)]
    current, membrane = rng.choice(decays, 2)
    return CUBA | {"iDecay": int(current), "vDecay": int(membrane), "vThMant": int(rng.integers(least, 200))}


def whole(rng: np.random.Generator, *shape: int, most: int = 254) -> Any:
    return rng.integers(-most, most + 1, shape)


def stack(rng: np.random.Generator) -> list[Layer]:
    return [
        dense(whole(rng, 7, 6), neuron=cuba(rng), bias=whole(rng, 7)),
        dense(whole(rng, 5, 7), neuron=cuba(rng), delay=rng.integers(0, 4, 5).astype(np.float32)),
        dense(whole(rng, 4, 5), neuron=cuba(rng), delay=rng.uniform(0, 70, 5).astype(np.float32)),
        dense(whole(rng, 4, 4), neuron=cuba(rng), delay=np.arange(1, 5).astype(np.float32)),  # of outputs, if square
        dense(whole(rng, 12, most=9), shape=np.array([3, 1, 1]), delay=2),
    ]


def recurrent(rng: np.random.Generator) -> list[Layer]:
    feedback = whole(rng, 6, 6).astype(np.float32)
    return [
        dense(whole(rng, 6, 6), type="dense_rec", weight_rec=feedback, neuron=cuba(rng), bias=whole(rng, 6)),
        {key: value for key, value in dense(whole(rng, 3, 6)).items() if key != "neuron"},  # adds up what arrives
    ]


def image(rng: np.random.Generator) -> list[Layer]:
    sizes = {"stride": np.array([2, 1]), "padding": np.array([1, 0]), "dilation": np.array([1, 2]), "groups": 2}
    return [
        conv(whole(rng, 4, 1, 3, 2, most=60), neuron=cuba(rng), bias=whole(rng, 4), **sizes),
        conv(whole(rng, 3, 4, 2, 2, 1, most=60)[..., 0], neuron=cuba(rng)),
        {"type": "flatten", "shape": np.array([3 * 2 * 4, 1, 1])},
        dense(whole(rng, 5, 24), neuron=cuba(rng)),
    ]


@pytest.mark.parametrize("latency", [False, True])
@pytest.mark.parametrize(("make", "shape"), [(stack, (6,)), (recurrent, (6,)), (image, (2, 6, 7))])
def test_each_engine_computes_as_loihi(make: Make, shape: tuple[int, ...], latency: bool, tmp_path: Path) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        layers, steps = make(rng), (rng.random((40, *shape)) < rng.choice([0.2, 0.7])).astype(np.int64)
        found = network(tmp_path, layers, 40, shape, latency=latency)
        kept = [layer for layer in layers if layer["type"] != "flatten"]
        require_equal(found, steps, simulated(kept, steps, latency=latency))


def test_a_current_wraps_round_at_24_bits_and_a_membrane_stays_within_them(tmp_path: Path) -> None:
    # 500 weights of 254 and 253 add 8,124,000 times 64 to the current in each step: 2**23 is 8,388,608, which the last
    # two reach in step 2 without a decay. From -2**23 a current goes to 2**23, where it stays.
    ends = [[-256] * 256 + [0] * 244, [254] * 258 + [4] + [0] * 241]
    rows = [[254] * 500, [253, -256] * 250, [-254] * 499 + [1], *ends]
    layers = [dense(rows, neuron=CUBA | {"iDecay": decay, "vThMant": 2**17 - 1}, bias=[9, -9, 2**17, 0, 0])
              for decay in (0, 3)]  # fmt: skip
    steps = np.ones((60, 500), np.int64)
    steps[30:] = 0
    for layer in layers:
        expected = simulated([layer], steps)
        assert np.abs(expected[0][1]).max() == LIMIT - 1
        require_equal(network(tmp_path, [layer], 60, (500,)), steps, expected)


def test_neurons_at_the_input_are_driven_by_a_weight_and_a_bias_cut_to_whole_numbers(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.26, 0.99], [1.0, -2.0, 0.5]])  # times 40 plus 36: 36, 46.4, 75.6; 76, -44, 56
    drive = np.array([[36, 46, 75], [76, -44, 56]])
    layers: list[Layer] = [
        {"type": "input", "shape": np.array([1, 2, 3]), "weight": 40.0, "bias": np.full(1, 36.0),
         "neuron": CUBA | {"type": "LOIHI", "iDecay": 0, "vDecay": 1024, "vThMant": 25}},
        dense(whole(np.random.default_rng(0), 2, 6)),
    ]  # fmt: skip
    found = network(tmp_path, layers, 16, (1, 2, 3))
    assert found.spec.coding is Coding.DIRECT
    require_equal(found, values[np.newaxis, np.newaxis], simulated(layers, np.tile(drive[np.newaxis], (16, 1, 1, 1))))


@pytest.mark.parametrize("latency", [False, True])
def test_sigma_delta_neurons_send_what_has_changed(latency: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    drive = rng.integers(-60, 60, (12, 2, 5, 5)) * (rng.random((12, 1, 1, 1)) < 0.5)
    layers: list[Layer] = [
        {"type": "input", "shape": np.array([2, 5, 5]), "neuron": SDNN},
        conv(whole(rng, 3, 2, 3, 3, most=20), neuron=SDNN, bias=whole(rng, 3, most=30)),
        dense(whole(rng, 6, 27, most=9), neuron=SDNN, bias=whole(rng, 6, most=90)),
        dense(whole(rng, 3, 6, most=9), neuron=SDNN | {"sigma_output": True}),
    ]
    expected = simulated(layers, drive, latency=latency)[-1][0]
    assert len(np.unique(expected)) > 12
    found = network(tmp_path, layers, 12, (2, 5, 5), latency=latency)
    assert (found.spec.readout, found.spec.coding) == (Readout.LAST, Coding.DIRECT)
    require_answers(found, drive / 64, expected)  # the weight of an input is 64 where the file has none


def test_the_gradient_of_a_decay_is_its_factor(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from spikeserve.models.engines.torch.operations import HardThreshold, operations
    from spikeserve.models.neurons.layer import NeuronLayer

    rates = CUBA | {"iDecay": 4096, "vDecay": 1024}
    node: Any = network(tmp_path, [dense([[1.0]], neuron=rates)], 2, (1,)).spec.nodes[-1]
    layer = NeuronLayer[Any](node.read_program, lambda key: torch.tensor(node.parameters[key]),
                             operations(HardThreshold()), torch.tensor)  # fmt: skip
    first = torch.tensor([[7.0]], requires_grad=True)
    *_, last = layer.scan({"v": torch.zeros(1, 1)}, [first, torch.zeros(1, 1)], False)
    last.membrane.sum().backward()
    assert first.grad is not None
    assert last.membrane.item() == 7 * 64 * 3072 // 4096
    assert first.grad.item() == 64 * 0.75


def test_a_last_layer_that_cannot_fire_is_read_by_its_membrane(tmp_path: Path) -> None:
    assert network(tmp_path, recurrent(np.random.default_rng(0)), 5, (6,)).spec.readout is Readout.LAST_MEMBRANE


ROW = [[1.0, -2.0]]


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (dense(ROW, type="pool"), "a layer of type 'pool' is not one that Lava's netx runs there"),
        (dense(ROW, neuron={"type": "RF"}), "its neurons are of type 'RF', expected CUBA, LOIHI"),
        (dense(ROW, neuron={"type": "SDNN"}), "SDNN neurons are served with activation relu, and not"),
        (dense(ROW, neuron=CUBA | {"refDelay": 2}), "refDelay is not 1, which Lava's netx does not"),
        (dense(ROW, neuron=CUBA | {"gradedSpike": True}), "gradedSpike is not 0"),
        (dense(ROW, neuron=CUBA | {"vDecay": 4097}), "vDecay holds 4097, expected whole numbers from"),
        (dense(ROW, neuron={"type": "CUBA"}), "CUBA lacks iDecay"),
        (dense(ROW, neuron=CUBA | {"vThMant": [1, 2]}), "threshold has 2 values, expected one, or one"),
        (dense([[0.5, 1]]), "weight holds 0.5, expected whole numbers from -256 to 254"),
        (dense([[np.nan, 1]]), "weight holds NaN or infinite values, expected finite ones"),
        (dense([[-3.0, -4.0]]), "has weights of one sign alone that Lava changes when it packs"),
        (dense([[-7.0, 200.0]], type="dense_rec", weight_rec=[[3.0]]), "has weights of one sign alone"),
        (dense([[254.0] * 600]), "a neuron's weights add up to 152,400, expected less than 131,072"),
        (dense(ROW, type="dense_rec", weight_rec=np.ones((2, 2))), "weight_rec has shape 2×2, expected 1×1"),
        (dense(ROW, neuron=SDNN | {"activation": [1.0, 2.0]}), "SDNN neurons are served with activation relu, and not"),
        (conv(np.float64(1)), "weight has shape scalar, expected (out, in / groups, height, width)"),
        (dense(ROW, delay=[1, 2, 3]), "a dense layer has 3 delays from 1 on, expected of a dense layer 1, 1 or 2"),
        (dense(ROW, type="dense_rec", weight_rec=[[1.0]], delay=1), "a dense_rec layer has 1 delays"),
        (dense(ROW) | {"weight": {"real": ROW, "imag": ROW}}, "weight is {'imag': array"),
        (conv(np.ones((1, 2, 1, 1)), delay=1), "has a delay, which Lava's netx simulates for dense"),
        (conv(np.ones((1, 2, 1, 1)), stride=[1, 1, 1]), "stride has 3 values, expected one, or height"),
        ({"type": "input", "shape": [2], "weight": [1, 2], "neuron": CUBA}, "weight has 2 values"),
        (conv(np.ones((1, 2, 1, 1)), groups=[np.inf]), "groups is array([inf]), expected whole"),
        ({"type": "", "shape": [2]}, "it, or its neuron, has no type, expected a word such as dense"),
    ],
)  # fmt: skip
def test_what_lava_would_compute_otherwise_is_refused(layer: Layer, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as refused:
        network(tmp_path, [layer], 5, (2,) if layer["type"] != "conv" else (2, 3, 3))
    assert str(refused.value).startswith("node 'layer_0")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: file.move("layer/0", "layer/7"), "its layers are named 7, expected 0, 1, 2 and so on"),
        (lambda file: file.update({"layer/1": 5}), "layer_1 is no group, expected one with a type"),
    ],
)  # fmt: skip
def test_layers_out_of_order_are_refused(change: Callable[[h5py.File], Any], sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "network.net", {"type": "dense"})
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InvalidGraph, match=sentence):
        read(path)


def test_the_command_takes_steps_and_readout_of_the_file_and_says_what_latency_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "toy.net", *stack(np.random.default_rng(1)), time_steps=30)
    words = ["import", "lava", str(path), "--repository", str(tmp_path), "--name", "toy", "--latency"]
    assert CliRunner().invoke(app, words).exit_code == 0
    bundle = ModelRepository(tmp_path).read("toy")
    assert (bundle.network.spec.time_steps, bundle.network.spec.readout) == (30, Readout.SPIKE_COUNT)
    assert "**Latency**: a step for each connection" in bundle.card


def test_a_convolution_needs_the_shape_of_the_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="node 'layer_0': the file does not say the input's shape: give --input-sh"):
        network(tmp_path, [conv(np.ones((1, 2, 1, 1)))], 5, None)


PILOT = ("input", "conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2")
TRACES = {  # the file, what drives the input, the layers, and the steps until the input is reset
    "tinynet": ("tiny.net", "input_bias", ("input", "layer1", "output"), 15),
    "pilotnet_lif": ("gts/pilotnet_lif/network.net", "image", PILOT, 17),
}


@pytest.fixture
def traces() -> Path:
    """Lava-dl's tests/lava/lib/dl/netx."""
    folder = reference_data() / "lava"
    return folder if folder.is_dir() else pytest.skip("no folder 'lava' of lava-dl's traces")


@pytest.mark.parametrize("folder", TRACES)
def test_the_spikes_of_lava_dls_traces_are_the_same(folder: str, traces: Path) -> None:
    file, drive, names, steps = TRACES[folder]
    layers = [layer for layer in read(traces / file).layers if layer.block.type != "flatten"]
    first = layers[0].block.parameters
    values = (np.load(traces / f"gts/{folder}/{drive}.npy").T - np.float32(first["bias"])) / np.float32(first["weight"])
    found = convert(tuple(layers), Options(time_steps=steps, low=-100, high=100), latency=False)
    inputs = DenseInputs(values.astype(np.float32)[np.newaxis, np.newaxis], steps)
    for engine in available():
        rasters = create(engine, found).run(inputs, record=Record.RASTER)[0].rasters
        for place, name in enumerate(names):
            trace = np.load(traces / f"gts/{folder}/{name}.npy")
            # One of a batch, with a step before the first; or of a pipeline, where each layer begins a step later.
            trace = np.moveaxis(trace[0], -1, 0)[1:] if trace.ndim == 5 else trace.T[place : place + steps]
            raster = rasters[layers[place].block.name][: len(trace), 0]
            np.testing.assert_array_equal(raster, trace, f"{engine}: {name}")


def test_the_answers_of_lava_dls_sigma_delta_trace_are_the_same(traces: Path) -> None:
    folder = traces / "gts/pilotnet_sdnn"
    values, output = np.load(folder / "input.npy").T / 64, np.load(folder / "output.npy").T
    found = convert(read(folder / "network.net").layers, Options(time_steps=9, low=-1), latency=True)
    require_answers(found, np.repeat(values, len(output), axis=0), output)
