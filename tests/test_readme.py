"""The README tells the truth: its examples run as they stand there, from the data to the answer."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.engines import ENGINES
from tests.bundles import publish
from tests.networks import regression
from tests.pages import LOCAL, ROOT, block_with, blocks, curl, section
from tests.serving import Process, running, serving
from tests.training.command_line import train_from_page

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs/api.md").read_text()
MOST_LINES = 200


def test_the_readme_is_read_in_a_sitting() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_the_readme_opens_with_the_chinese_page_and_the_two_commands_that_set_all_up() -> None:
    opening = README.partition("\n## ")[0]
    assert opening.splitlines()[2] == "[中文](docs/zh-tw/README.md)"
    commands = blocks(opening, "sh")[0].splitlines()
    assert [line.split()[0] for line in commands] == ["./scripts/serve", "./scripts/test"]
    assert opening.index("./scripts/serve") < opening.index("docs/images/page.png")


@pytest.mark.parametrize(("page", "title"), [(README, "One request"), (API, "An answer")], ids=["README", "API"])
def test_a_pages_request_gives_the_pages_answer(shipped: Process, page: str, title: str) -> None:
    (request,), (answer,) = blocks(section(page, title), "sh"), blocks(section(page, title), "json")
    assert curl(request, shipped.url) == json.loads(answer)


def test_a_regressions_answer_is_the_pages(tmp_path: Path) -> None:
    (answer,) = blocks(section(API, "An answer of values"), "json")
    publish(tmp_path, regression(units=["rad", "m/s"]), "arm")
    with serving(tmp_path) as client:
        assert client.post("/predict", json={"inputs": [[0.25, 3]]}).json() == json.loads(answer)


def test_the_first_page_of_the_site_sends_the_readmes_request() -> None:
    index = (ROOT / "docs/index.md").read_text()
    assert block_with(index, "sh", "curl") in blocks(section(README, "One request"), "sh")


def test_the_shipped_model_of_events_reads_its_examples(shipped: Process) -> None:
    (pipeline,) = blocks(section(README, "A model of events"), "sh")
    command = pipeline.replace("localhost:8000", shipped.url.removeprefix("http://"))
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=True)
    predictions = json.loads(done.stdout)["predictions"]
    # The examples are the first eight test samples; the card has a table of what the model reads in each.
    letters = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \|$", (PRETRAINED / "braille/1/card.md").read_text(), re.M)
    assert [prediction["label"] for prediction in predictions] == [predicted for _, _, predicted in letters]


def test_events_from_the_data_to_the_answer(tmp_path: Path) -> None:
    text = section(README, "Spikes and events as input")
    train_from_page(text, "moves.npz", tmp_path)
    with running(tmp_path / "repository") as service:
        right, left = curl(block_with(text, "sh", "curl"), service.url)["predictions"]
    assert (right["label"], left["label"]) == ("0", "1")


def test_the_table_of_engines_has_them_all() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section(README, "Engines"), re.MULTILINE) == [
        "event",
        "onnx",
        "torch",
        "reference",
    ]
    assert {"event", "onnx", "torch", "reference"} == set(ENGINES)


def test_the_api_pages_client_of_triton_gets_an_answer(shipped: Process) -> None:
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed here: it is of the extra 'clients'")
    program = block_with(section(API, "The Open Inference Protocol v2"), "python", "tritonclient")
    # A busy machine may take longer than the 50 ms that the page allows.
    program = program.replace(LOCAL, shipped.url.removeprefix("http://")).replace("50_000", "50_000_000")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    # One sample: its class, then ten counts.
    assert re.fullmatch(r"\[\[\d\]\] \[\[(\d+ ?){10}\]\]\n", done.stdout), done.stderr


def test_the_api_pages_array_is_answered_and_its_records_are_the_bytes_that_it_says(shipped: Process) -> None:
    program = block_with(section(API, "A request"), "python", "np.save").replace(f"http://{LOCAL}", shipped.url)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["time_steps"], len(answer["predictions"])) == (4, 5)
    assert "spikes_per_node" in answer["predictions"][0]
    program = block_with(section(API, "A request"), "python", "tobytes")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"# {done.stdout.strip()}\n" in program
