"""The tutorials run as they stand there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from spikeserve import Client
from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import PRETRAINED
from tests.pages import LOCAL, ROOT, block_with, blocks, serve_flags
from tests.programs import run_here
from tests.reference_data import VARIABLE
from tests.serving import running
from tests.training.command_line import training_here

SNNTORCH = (ROOT / "docs/tutorials/snntorch.md").read_text()
GRADIENT = (ROOT / "docs/tutorials/gradient.md").read_text()
CONVERT = (ROOT / "docs/tutorials/convert.md").read_text()
NEURON = (ROOT / "docs/tutorials/neuron.md").read_text()
SERVE = ("-m", "spikeserve", "serve")
GALLERY = (ROOT / "docs/tutorials/gallery.md").read_text()
pytestmark = pytest.mark.deep


def run(program: str | Path, folder: Path, expected_status: int = 0) -> str:
    """Run a program of a page in a folder; return its standard output and, behind it, its errors."""
    done = run_here(program, folder)
    assert done.returncode == expected_status, done.stderr
    return done.stdout + done.stderr


def test_the_broken_program_ends_in_the_error_of_the_title(tmp_path: Path) -> None:
    (error, *_) = blocks(GRADIENT, "text")
    assert run(block_with(GRADIENT, "python", "(hidden >= 1)"), tmp_path, expected_status=1).endswith(error)


def mended() -> str:
    """Return the broken program with what the page says to put into it."""
    program = block_with(GRADIENT, "python", "(hidden >= 1)")
    for membrane, spikes in (("hidden", "spikes"), ("output", "fired")):
        line = f"{spikes} = Threshold.apply({membrane} - 1)"
        assert f"`{line}`" in GRADIENT
        program = program.replace(f"{spikes} = ({membrane} >= 1).float()", line)
    (end,) = re.findall(r"^loss = .*\nloss.backward\(\)\n", program, re.MULTILINE)
    program = program.replace(
        end, block_with(GRADIENT, "python", "for epoch in range(10):\n    for batch in torch.randperm(len(x))")
    )
    return program.replace(
        "def count_spikes", block_with(GRADIENT, "python", "class Threshold") + "\n\ndef count_spikes"
    )


def fewer(program: str, epochs: int) -> str:
    """Return a program that trains for fewer epochs than the ten of its page."""
    assert "for epoch in range(10):" in program
    return program.replace("for epoch in range(10):", f"for epoch in range({epochs}):")


def test_the_same_program_learns_with_a_surrogate(tmp_path: Path) -> None:
    printed = run(fewer(mended(), 5), tmp_path)
    epochs = re.findall(r"^epoch (\d+): loss ([\d.]+), right on ([\d.]+)% of the images", printed, re.MULTILINE)
    assert [number for number, _, _ in epochs] == [str(number) for number in range(1, 6)]
    assert float(epochs[-1][2]) > 90
    assert float(epochs[-1][1]) < float(epochs[0][1])


def test_a_membrane_that_is_kept_leads_into_the_batch_before(tmp_path: Path) -> None:
    program = mended()
    start = "hidden, output, counts = torch.zeros(len(x), 128), torch.zeros(len(x), 10), torch.zeros(len(x), 10)"
    kept = "hidden, output = torch.zeros(64, 128), torch.zeros(64, 10)\n\n\ndef count_spikes"
    program = program.replace(f"    {start}\n", "    global hidden, output\n    counts = torch.zeros(len(x), 10)\n")
    program = program.replace("def count_spikes", kept)
    said = run(program, tmp_path, expected_status=1)
    assert "Trying to backward through the graph a second time" in said


def test_a_published_network_is_served_with_its_own_counts(tmp_path: Path) -> None:
    trained = fewer(block_with(GRADIENT, "python", '"my-digits"'), 4)
    counts = "print(network(x[:10].expand(8, -1, -1)).sum(dim=0).int().tolist())"
    lines = run(trained + counts, tmp_path).splitlines()
    assert "my-digits version 1" in lines
    (measured,) = re.findall(r"\*\*Accuracy\*\*: ([\d.]+)%", (tmp_path / "repository/my-digits/1/card.md").read_text())
    assert float(measured) > 90
    (command,) = blocks(GRADIENT, "sh")
    repository = tmp_path / "repository"
    with running(repository, *serve_flags(command, repository), program=SERVE) as service:
        asked = block_with(GRADIENT, "python", "urlopen").replace(f"http://{LOCAL}", service.url)
        answers = run(asked, tmp_path).splitlines()
    assert [answer.partition(" ")[2] for answer in answers] == re.findall(r"\[[\d, ]+\]", lines[-1])


def test_a_loss_that_is_dead_says_what_the_page_says(tmp_path: Path) -> None:
    program = block_with(GRADIENT, "python", '"my-digits"').replace(
        "loss = spike_loss", "with torch.no_grad():\n            loss = spike_loss"
    )
    (_, message, _) = blocks(GRADIENT, "text")
    said = run(program, tmp_path, expected_status=1)
    assert " ".join(message.split()) in " ".join(said.split())


def test_a_class_of_ones_own_is_published_batch_first_and_a_sigmoid_output_becomes_a_readout(tmp_path: Path) -> None:
    program = fewer(block_with(GRADIENT, "python", '"my-digits"'), 3)
    (line,) = re.findall(r"^network = .*\n", program, re.MULTILINE)
    for its, other in (
        (line, block_with(GRADIENT, "python", "class Net(")),
        ("x[~test][batch].expand(8, -1, -1)", "x[~test][batch].unsqueeze(1).expand(-1, 8, -1)"),
        ("x[test].expand(8, -1, -1)).sum(dim=0)", "x[test].unsqueeze(1).expand(-1, 8, -1)).sum(dim=1)"),
        ("y[~test][batch])", "y[~test][batch], batch_first=True)"),
        ("my-digits", "my-net"),
    ):
        assert its in program
        program = program.replace(its, other)
    (tmp_path / "net.py").write_text(program)
    printed = run(tmp_path / "net.py", tmp_path)
    (last,) = re.findall(r"^epoch 3: loss [\d.]+, right on ([\d.]+)% of the test images$", printed, re.MULTILINE)
    assert float(last) > 80
    assert printed.endswith("my-net version 1\n")
    returns = block_with(GRADIENT, "python", "return torch.sigmoid")
    hard = "        return self.lif2(self.fc2(self.lif1(self.fc1(x))))\n"
    (tmp_path / "net.py").write_text(program.replace(hard, returns).replace("range(3)", "range(1)"))
    run(tmp_path / "net.py", tmp_path)
    (bundle,) = tmp_path.rglob("my-net/2/bundle.json")
    last = json.loads(bundle.read_text())["spec"]["nodes"][-1]
    assert (last["type"], last["program"]["step"]) == ("Integrator", [blocks(GRADIENT, "text")[-1].strip()])


def test_an_snntorch_network_is_served_by_the_pages_commands(tmp_path: Path) -> None:
    pytest.importorskip("snntorch")
    program = block_with(SNNTORCH, "python", "def trained()")
    (tmp_path / "mynet.py").write_text(program)
    run(program, tmp_path)
    (commands,) = blocks(SNNTORCH, "sh")
    imported, verified, served = commands.splitlines()
    said = []
    for command in (imported, verified):
        program, *words = shlex.split(command)
        assert program == "spikeserve"
        done = training_here(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "Published mine version 1" in said[0]
    assert said[1].endswith("".join(blocks(SNNTORCH, "text")))
    repository = tmp_path / "repository"
    with running(repository, *serve_flags(served, repository), program=SERVE) as service:
        asked = block_with(SNNTORCH, "python", "urlopen").replace(f"http://{LOCAL}", service.url)
        answers = [int(answer.split()[0]) for answer in run(asked, tmp_path).splitlines()]
    assert sum(answer == digit for digit, answer in enumerate(answers)) >= 9  # the first ten digits are 0 to 9


def test_a_pulled_model_answers_in_the_pages_pipes(tmp_path: Path) -> None:
    (tmp_path / "camera.py").write_text(block_with(GALLERY, "python", "mgrid"))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"python": "", "spikeserve": "-m spikeserve "}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def shell(command: str) -> list[str]:
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    look, whole, windows, numbers = blocks(GALLERY, "sh")
    assert shell(look)[-1] == "Copied to repository/gestures/1"
    (answer,) = map(json.loads, shell(whole))
    assert answer["label"] == "up"
    *lines, end = map(json.loads, shell(windows))
    assert (lines[-1]["label"], [each["window"] for each in lines], end["windows"]) == ("up", [0, 1, 2, 3], 4)
    right, left = map(json.loads, shell(numbers))
    assert right["values"][0] > 0 > left["values"][0]  # the cart is driven under the pole that falls to its right


def letters() -> tuple[torch.Tensor, torch.Tensor]:
    """Braille letters (n, 256, 12) and their classes: the recordings, or some that ship, with other gaps in each."""
    folder = Path(os.environ.get(VARIABLE, ""))
    if (folder / "braille7.npz").is_file():
        data = np.load(folder / "braille7.npz")
        return torch.tensor(np.unpackbits(data["x"], axis=-1)[..., :12]).float(), torch.tensor(data["y"])
    golden = Bundle.read(PRETRAINED / "braille/1").golden
    x = torch.tensor(golden.inputs.steps).transpose(0, 1).repeat(100, 1, 1)
    y = torch.tensor(golden.spike_counts.argmax(axis=1)).repeat(100)
    return x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.9), y


def test_a_neuron_of_ones_own_is_trained_and_served_by_the_pages_programs(tmp_path: Path) -> None:
    x, y = letters()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for part, chosen in zip(("test", "val", "train"), order.tensor_split([200, 300]), strict=True):
        torch.save(TensorDataset(x[chosen], y[chosen]), tmp_path / f"ds_{part}.pt")
    trained = fewer(block_with(NEURON, "python", "Neuron(128"), 5)
    asked = "print([letters[k] for k in network(test[0][:5]).mean(dim=1).argmax(dim=1)])"
    lines = run(trained + asked, tmp_path).splitlines()
    (last,) = re.findall(
        r"^epoch 5: loss [\d.]+, right on ([\d.]+)% of the test letters$", "\n".join(lines), re.MULTILINE
    )
    assert float(last) > 60
    assert lines[-2] == "my-braille version 1"
    repository = tmp_path / "repository"
    (command,) = blocks(NEURON, "sh")
    events = [dict(zip(("t", "unit"), each.nonzero().T.tolist(), strict=True)) for each in x[order[:5]]]
    flags = serve_flags(command, repository)
    with running(repository, *flags, program=SERVE) as service, Client(service.url) as client:
        assert str([each.label for each in client.predict(events)]) == lines[-1]


def test_a_cnn_becomes_a_spiking_network_and_loses_little(tmp_path: Path) -> None:
    (tmp_path / "mycnn.py").write_text(block_with(CONVERT, "python", "def trained"))
    run(tmp_path / "mycnn.py", tmp_path)
    (line,) = re.findall(r"^spikeserve (convert .*)$", block_with(CONVERT, "sh", "spikeserve convert"), re.MULTILINE)
    told = training_here(*shlex.split(line), cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    card = (tmp_path / "repository/mine/1/card.md").read_text()
    rows = dict(re.findall(r"^\| (source|\d+) \| .* \| ([\d.]+)% \| [-\d.]* \| \d* \|$", card, re.MULTILINE))
    assert list(rows) == ["source", "4", "8", "16", "32", "64"]
    assert float(rows["source"]) > 95
    assert min(float(rows["16"]), float(rows["64"])) > float(rows["source"]) - 1
