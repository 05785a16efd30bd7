"""The plots of a run: what each of them says, in every form that data and networks have."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from spikeserve.models.engines import create
from spikeserve.models.spec.network import Network
from spikeserve.plugins.report.plots.run import save_confusion, save_curves
from spikeserve.plugins.report.plots.sample import RecordedSample, save_raster
from spikeserve.plugins.report.plots.style import STYLE
from spikeserve.training.report.epochs import Epoch
from tests.networks import network_of, task


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Figure]]:
    """Draw with a function of this module's subject, into a file that has to be a picture; return the figure."""
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setitem(STYLE, "savefig.dpi", 20)  # which is quick

    def keep(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(function: Callable[..., None], *arguments: Any) -> Figure:
        path = tmp_path / "picture.png"
        function(*arguments, path)
        assert path.read_bytes().startswith(b"\x89PNG")
        return drawn[-1]

    yield draw
    for each in drawn:
        each.clear()


def multiple(**fields: Any) -> Network:
    """Two neurons that fire once for each multiple of their threshold, which is 1."""
    node = {"type": "Threshold", "name": "out", "fire": "multiple"}
    return network_of([node], {}, **task(2, 2, "ab", "spikes", low=0, high=4, **fields))


def recorded(network: Network, sample: Any) -> RecordedSample:
    return RecordedSample.of(create("reference", network), np.asarray(sample, np.float32))


def epochs(number: int, **fields: Any) -> list[Epoch]:
    values = {"firing_rates": {"hidden": 0.25, "out": 0.5}} | fields
    return [
        Epoch(index, 2.0 / (index + 1), 0.5, 1.0, 0.25 + 0.1 * (index == 1), seconds=1.0, **values)
        for index in range(number)
    ]


def titles(figure: Figure, where: str = "left") -> list[str]:
    return [title for axes in figure.axes if (title := axes.get_title(loc=where))]  # type: ignore[arg-type]


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_a_raster_says_all_spikes_of_a_neuron_that_fires_several_times_a_step(figure: Callable[..., Figure]) -> None:
    picture = figure(save_raster, recorded(multiple(), [[3.5, 0], [0, 1]]), "x")
    assert titles(picture) == ["input: 2 values", "out: 2 neurons"]
    # Three spikes of a at step 1 and one of b at step 2, of two neurons at two steps.
    assert picture.axes[1].get_title(loc="right") == "4 spikes, 1.000 per neuron and step"
    (spikes,) = picture.axes[1].collections
    assert [segment.mean(axis=0).tolist() for segment in spikes.get_segments()] == [[1, 0], [2, 1]]  # type: ignore[attr-defined]
    three, one = spikes.get_linewidths()  # type: ignore[attr-defined]
    assert three == 3 * one
    assert [tick.get_text() for tick in picture.axes[1].get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(("dt", "label", "places"), [(None, "step", [1, 2]), (0.005, "time (ms)", [5, 10])])
def test_the_axis_of_time_has_steps_or_milliseconds_where_a_step_is_known(
    dt: float | None, label: str, places: list[float], figure: Callable[..., Figure]
) -> None:
    # A step of 5 ms ends after 5 ms, the second after 10.
    picture = figure(save_raster, recorded(multiple(dt=dt), [[3.5, 0], [0, 1]]), "x")
    assert picture.axes[-1].get_xlabel() == label
    (spikes,) = picture.axes[-1].collections
    assert [segment[0][0] for segment in spikes.get_segments()] == pytest.approx(places)  # type: ignore[attr-defined]


CONV: list[dict[str, Any]] = [
    {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 20, "kernel_size": 1, "bias": False},
    {"type": "IF", "name": "fires"},
    {"type": "Flatten", "name": "flat"},
]  # fmt: skip
LEAKY = {"type": "LI", "name": "out", "decay": 0.5}


def convolution(coding: str, size: int = 4) -> Network:
    """Twenty channels of images: channel k adds k/16 of the first channel of the input to itself at each step."""
    features = 20 * size * size
    weights = np.zeros((20, 2, 1, 1), np.float32)
    weights[:, 0, 0, 0] = np.arange(20) / 16
    return network_of(
        [
            *CONV,
            {"type": "Linear", "name": "classes", "in_features": features, "out_features": 3, "bias": False},
            LEAKY,
        ],
        {"conv.weight": weights, "classes.weight": np.full((3, features), 0.25, np.float32)},
        **task((2, size, size), 8, "abc", coding, readout="last_membrane"),
    )


@pytest.mark.parametrize("coding", ["direct", "rate", "latency", "spikes", "current"])
def test_every_coding_and_layer_has_a_panel_with_its_size(coding: str, figure: Callable[..., Figure]) -> None:
    sample = np.ones((8, 2, 4, 4) if coding in ("spikes", "current") else (2, 4, 4))
    shown = recorded(convolution(coding), sample)
    raster = figure(save_raster, shown, "x")
    still = ", the same at every step" if coding == "direct" else ""
    assert titles(raster) == [
        f"input: 2×4×4 values{still}",
        "fires: 20×4×4 neurons",
        "out: 3 neurons, read by last membrane",
    ]
    of_input, of_many = (axes.get_position().height for axes in raster.axes[:2])
    assert of_many == pytest.approx(2 * of_input, rel=0.01)
    # The readout does not fire: it has the membrane of each class.
    assert set(lines(raster.axes[2])) == {"a (predicted)", "other classes"}


def test_a_current_at_each_step_is_drawn_as_values(figure: Callable[..., Figure]) -> None:
    sample = np.linspace(0, 1, 8 * 32, dtype=np.float32).reshape(8, 2, 4, 4)
    picture = figure(save_raster, recorded(convolution("current"), sample), "x")
    shown = np.asarray(picture.axes[0].images[0].get_array())
    np.testing.assert_array_equal(shown, sample.reshape(8, 32).T)  # inputs, steps
    assert picture.axes[0].get_title(loc="right") == "a current at each step"


def test_a_layer_of_many_neurons_is_drawn_as_rates_of_channels(figure: Callable[..., Figure]) -> None:
    picture = figure(save_raster, recorded(convolution("direct"), np.ones((2, 4, 4))), "x")
    (image,) = picture.axes[1].images
    shown = np.asarray(image.get_array())
    assert shown.shape == (20, 8)  # channels, steps
    # Channel 16 gets a current of 1, which reaches the threshold at each of 8 steps; channel 8 at every other step.
    assert shown[16].tolist() == [1] * 8
    assert shown[8].tolist() == [0, 1] * 4


def test_the_rows_of_an_event_camera_are_drawn_as_two_channels_say_little(figure: Callable[..., Figure]) -> None:
    network = convolution("spikes", size=20)
    sample = np.zeros((8, 2, 20, 20))
    sample[3, 1, 7] = 1  # at step 4, all of row 7 of the second channel: the 28th row of 40
    picture = figure(save_raster, recorded(network, sample), "x")
    shown = np.asarray(picture.axes[0].images[0].get_array())
    assert shown.shape == (40, 8)
    assert [index.tolist() for index in np.nonzero(shown)] == [[27], [3]]
    assert picture.axes[0].get_ylabel() == "rows of 2 channels"


@pytest.mark.parametrize("number", [1, 30])
def test_curves_have_titles_units_and_the_best_epoch(number: int, figure: Callable[..., Figure]) -> None:
    picture = figure(save_curves, epochs(number))
    assert titles(picture) == ["Loss", "Accuracy", "Firing rates on the validation split"]
    assert [axes.get_xlabel() for axes in picture.axes] == ["epoch"] * 3
    # The second epoch validates best, with 35 %; the others have 25 %.
    assert titles(picture, "right") == ["best: 25.0% in epoch 1" if number == 1 else "best: 35.0% in epoch 2"]
    assert set(lines(picture.axes[2])) == {"hidden", "out"}
    broken = [Epoch(index, float("nan"), 0.5, float("inf"), 0.5, {}, 1.0) for index in range(number)]
    assert figure(save_curves, broken).axes


@pytest.mark.parametrize("classes", [2, 45, 200])
def test_the_confusion_matrix_says_how_many_are_right_of_all(classes: int, figure: Callable[..., Figure]) -> None:
    confusion = np.eye(classes, dtype=np.int64) * 3
    confusion[0, 1] = 1
    labels = tuple(f"class with a long name {index}" for index in range(classes))
    picture = figure(save_confusion, confusion, labels)
    assert titles(picture) == [f"Test split: {3 * classes / (3 * classes + 1):.1%} of {3 * classes + 1} right"]
    assert len(picture.axes[0].get_xticklabels()) <= 60
    assert ("1" in [text.get_text() for text in picture.axes[0].texts]) == (classes <= 30)
