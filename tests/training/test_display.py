"""What is shown of a run in progress: on a terminal, in a file, and in TensorBoard.

Warnings: one sentence for each kind of trouble, told once; a healthy run has none.
"""

import io
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from spikeserve.training.data.dataset import Dataset
from spikeserve.training.fit.checkpoint import Progress
from spikeserve.training.fit.diagnostics import Diagnostics
from spikeserve.training.report.display import duration, shown
from spikeserve.training.report.epochs import Epoch, accuracy_by_minutes

RATES = {"hidden": 0.1, "output": 0.3}
HUGE = Epoch(4999, 1e12, 1.0, 1e12, 1.0, dict.fromkeys(RATES, 1.0), 99_999.0, 1e16, (1e16,))


def epochs(number: int) -> list[Epoch]:
    return [
        Epoch(index, 1.5, 0.5, 1.0, 0.1 * index, RATES, 30.0, 2.5, (2.0, 3.0), ("the gradient explodes.",)[index:])
        for index in range(number)
    ]


def test_a_run_of_a_minute_says_how_far_it_had_come_after_1_2_and_4_minutes() -> None:
    # Epochs of 30 s that validate at 0, 10, 20 %: two are over after a minute, and eight after four.
    assert accuracy_by_minutes(epochs(9)) == (
        "Best validation accuracy: 10.00% after 1 min, 30.00% after 2 min, 70.00% after 4 min, 80.00% after 4.5 min"
    )
    worse = replace(epochs(1)[0], seconds=90.0)
    assert accuracy_by_minutes([*epochs(2), worse]).endswith("after 1 min, 10.00% after 2 min, 10.00% after 2.5 min")
    assert accuracy_by_minutes(epochs(2)) == ""
    assert accuracy_by_minutes([]) == ""
    assert accuracy_by_minutes([replace(worse, validation_samples=49)]) == ""


def display(watched: list[Epoch], folder: Path, total: int = 40, *, terminal: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    with shown(total, folder, console) as watcher:
        for epoch in watched:
            watcher.batch(epoch.number, 0.5, 0.0, 0.0)
            watcher.epoch(epoch)
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_file_gets_a_header_and_one_line_for_each_epoch_and_warning(width: int, tmp_path: Path) -> None:
    worse = [replace(epochs(1)[0], number=number, validation_accuracy=number / 40, warnings=()) for number in (3, 4)]
    lines = display([*epochs(3), *worse], tmp_path, width=width).splitlines()
    # Loss 1.5, mean firing rate (0.1 + 0.3) / 2, 30 seconds for each of the 39, 38, … epochs that are left.
    assert [line.split() for line in lines] == [
        ["epoch", "loss", "accuracy", "validation", "firing", "rate", "gradient", "time", "left"],
        ["1/40", "1.5000", "50.00%", "0.00%", "20.0%", "2.50", "19:30", "*"],
        ["warning:", "the", "gradient", "explodes."],
        ["2/40", "1.5000", "50.00%", "10.00%", "20.0%", "2.50", "19:00", "*"],
        ["3/40", "1.5000", "50.00%", "20.00%", "20.0%", "2.50", "18:30", "*"],
        ["4/40", "1.5000", "50.00%", "7.50%", "20.0%", "2.50", "18:00"],
        ["5/40", "1.5000", "50.00%", "10.00%", "20.0%", "2.50", "17:30"],
    ]


def test_the_columns_stand_below_their_names_and_fit_into_80_whatever_the_numbers(tmp_path: Path) -> None:
    small = Epoch(0, 1e-9, 0.0, 1e-9, 0.0, {}, 0.001, None)  # without measurements, which are dashes
    broken = Epoch(1, float("nan"), 0.0, float("inf"), 0.0, RATES, 1.0, float("inf"))
    lines = display([small, broken, HUGE], tmp_path, total=5000).splitlines()
    assert max(map(len, lines)) <= 79
    ends = [match.end() for match in re.finditer(r"time left|firing rate|\w+", lines[0])]
    assert lines[1].split()[4:6] == ["–", "–"]
    for line in lines[1:]:
        assert [match.end() for match in re.finditer(r"[^ *]+", line)] == ends, line


def test_a_terminal_has_a_bar_below_the_rows_and_warnings_in_yellow(tmp_path: Path) -> None:
    output = display(epochs(2), tmp_path, terminal=True)
    assert "epoch 2 of 40" in output
    assert "\x1b[33mwarning: the gradient explodes." in output
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output)
    assert max(len(line) for line in re.split(r"[\r\n]+", plain)) <= 80


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")])
def test_a_duration_has_minutes_and_seconds_and_hours_where_there_are_some(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tensorboard_has_every_figure_of_an_epoch_and_the_gradient_of_every_batch(tmp_path: Path) -> None:
    display(epochs(2), tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # which takes a second

    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {
        *("loss/training", "loss/validation", "accuracy/training", "accuracy/validation"),
        *("firing_rate/hidden", "firing_rate/output", "gradient_norm/median", "gradient_norm/batch"),
        "time/seconds_per_epoch",
    }
    gradients = [(each.step, each.value) for each in events.Scalars("gradient_norm/batch")]
    assert gradients == [(1, 2), (2, 3), (3, 2), (4, 3)]
    assert [each.step for each in events.Scalars("gradient_norm/median")] == [1, 2]
    assert events.Tags()["tensors"] == ["warnings/text_summary"]
    assert len(list(tmp_path.iterdir())) == 1  # one file, whatever is written


def test_a_checkpoint_from_before_gradients_were_recorded_is_read(tmp_path: Path) -> None:
    old = {"number", "training_loss", "training_accuracy", "validation_loss", "validation_accuracy", "firing_rates"}
    epoch = {name: value for name, value in asdict(epochs(1)[0]).items() if name in old | {"seconds"}}
    content = {"weights": {}, "optimiser": {}, "epochs": [epoch], "best": epoch, "best_weights": {}}
    torch.save(content, tmp_path / "checkpoint.pt")
    (read,) = Progress.load(tmp_path / "checkpoint.pt").epochs
    assert (read.gradient_norm, read.gradient_norms, read.warnings) == (None, (), ())


HEALTHY = Epoch(0, 0.7, 0.6, 0.7, 0.6, {"neuron1": 0.1, "output": 0.05}, 1.0, gradient_norm=0.8)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, None),  # a healthy run
        ({"gradient_norm": 1e-9, "training_loss": 1e-3}, None),  # all is learned
        ({"number": 3, "training_accuracy": 0.5}, None),  # the first epochs
        ({"gradient_norm": 1e16}, "explode: their median length is 1.0e+16"),
        ({"gradient_norm": float("nan")}, "explode"),
        ({"gradient_norm": 1e-9}, "vanish: their median length is 1.0e-09"),
        ({"training_loss": float("nan")}, "the training loss is nan"),
        ({"firing_rates": {"neuron1": 0.0, "output": 0.05}}, "neuron1 is silent"),
        ({"firing_rates": {"neuron1": 0.97, "output": 0.05}}, "neuron1 fires at nearly every step (97%)"),
        # Of 115 samples 58 are of one class, 50.4 %, and three deviations of 4.7 % above it are luck.
        (
            {"number": 4, "training_accuracy": 0.64},
            "after 5 epochs the training accuracy is 64.0%, which chance can explain: always naming the most frequent "
            "class is right in 50.4%, and in up to 64.4% of 115 samples by luck",
        ),
    ],
)
def test_trouble_is_one_sentence_once(fields: dict[str, Any], words: str | None, data: Dataset) -> None:
    epoch, diagnostics = replace(HEALTHY, **fields), Diagnostics(data)
    sentences = diagnostics.of(epoch)
    assert len(sentences) == (words is not None)
    assert all(words in sentence for sentence in sentences if words)
    assert diagnostics.of(epoch) == ()
