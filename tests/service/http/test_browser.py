"""The page for people and the API's documentation, used in a real browser by somebody who clicks, draws and types."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle.repository import PRETRAINED
from models.spec import Coding, Spec
from models.spec.network import Network
from service.http.middleware.keys import new_key
from tests import external
from tests.bundles import publish
from tests.networks import regression, toy
from tests.serving import Process, running, running_shipped

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed here: it is of the extra 'clients'"
)
expect = sync_api.expect
WAIT = 60_000  # milliseconds, for a machine that is busy
expect.set_options(timeout=WAIT)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Without these it looks for updates, and in a container, as root, it does not start at all.
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
pytestmark = pytest.mark.usefixtures("reference_engine")  # for the servers that a test starts for itself


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no browser is installed here; on Debian: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def shipped() -> Iterator[Process]:
    """A server of the models that ship, which the tests only read from."""
    with running_shipped() as service:
        yield service


@pytest.fixture(scope="module")
def locked() -> Iterator[tuple[Process, str]]:
    """A server of the models that ship that asks for a key, and the key."""
    key, digest = new_key()
    with running(PRETRAINED, "--api-keys", digest) as service:
        yield service, key


class Visit:
    """A browser's page, and what it asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def counts(self) -> list[int]:
        return [int(text) for text in self.page.locator("#bars .count").all_inner_texts()]

    def spikes_drawn(self) -> int:
        """Return how many pixels of the raster have the colour of a layer's spikes."""
        return int(
            self.page.evaluate(
                """() => {
                  const canvas = document.getElementById("raster");
                  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                  const colours = theme("--layers").split(",").map((colour) => parseInt(colour.trim().slice(1), 16));
                  let drawn = 0;
                  for (let at = 0; at < data.length; at += 4)
                    drawn += colours.includes(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
                  return drawn;
                }"""
            )
        )

    def click_the_pad(self) -> dict[str, Any]:
        """Paint one dot in the middle of the pad, and return the request that the page makes of it."""
        with self.page.expect_response(re.compile("/predict$")) as answer:
            self.page.locator("#pad").click()
        asked: dict[str, Any] = answer.value.request.post_data_json
        return asked


@contextmanager
def visiting(browser: Any, url: str) -> Iterator[Visit]:
    """Open `url`, and see to it in the end that nothing but its server was asked and that no script failed."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(WAIT)
    visit = Visit(context.new_page())
    visit.page.goto(url)
    yield visit
    origin = httpx.URL(url).copy_with(path="/")
    assert [asked for asked in visit.asked if not asked.startswith((str(origin), "data:"))] == []
    assert visit.complaints == []
    context.close()


def test_the_page_opens_on_an_example_with_its_answer(browser: Any, shipped: Process) -> None:
    with visiting(browser, shipped.url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        document = httpx.get(f"{shipped.url}/openapi.json").json()
        body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
        (prediction,) = httpx.post(f"{shipped.url}/predict", json=body).json()["predictions"]
        assert visit.text("#label") == prediction["label"]
        assert visit.counts() == prediction["spike_counts"]
        assert f"{prediction['synaptic_operations']:,} synaptic operations" in visit.text("#facts")
        assert visit.spikes_drawn() > 0
        assert visit.text("#error") == ""


def test_what_is_drawn_is_asked_and_shown_until_it_is_wiped(browser: Any, shipped: Process) -> None:
    with visiting(browser, shipped.url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        visit.page.locator("#clear").click()
        assert (visit.text("#label"), visit.text("#facts"), visit.spikes_drawn()) == ("–", "Draw something.", 0)
        asked = visit.click_the_pad()
        # A dot in the middle of 8 × 8 pixels, of radius 1.1, is √0.5 from the middle of the four around it, and so has
        # 1.25 × (1 − √0.5 / 1.1) = 0.4465 of the ink there: 7.14 of the 16 that this model takes.
        (pixels,) = asked["inputs"][0]
        inked = {(row, column): ink for row, line in enumerate(pixels) for column, ink in enumerate(line) if ink}
        assert inked == {place: pytest.approx(7.14, abs=0.1) for place in ((3, 3), (3, 4), (4, 3), (4, 4))}
        (prediction,) = httpx.post(f"{shipped.url}/predict", json=asked).json()["predictions"]
        expect(visit.page.locator("#bars .count").first).to_have_text(str(prediction["spike_counts"][0]))
        assert visit.counts() == prediction["spike_counts"]
        visit.page.locator("#clear").click()
        assert (visit.text("#label"), visit.spikes_drawn()) == ("–", 0)


def test_the_slider_runs_it_for_as_many_steps(browser: Any, shipped: Process) -> None:
    with visiting(browser, shipped.url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        with visit.page.expect_response(re.compile("/predict$")) as answer:
            visit.page.locator("#steps").fill("3")
        assert answer.value.json()["time_steps"] == 3
        assert visit.text("#steps-text") == "3 time steps"


def test_where_keys_are_set_the_page_asks_for_one_and_forgets_it(browser: Any, locked: tuple[Process, str]) -> None:
    service, key = locked
    with visiting(browser, service.url) as visit:
        fault, field = visit.page.locator("#error"), visit.page.locator("#key")
        expect(fault).to_have_text("This server needs a key.")
        expect(visit.page.get_by_role("link")).to_have_text(["API"])  # a browser would open the others without the key
        field.fill("guessed")
        field.press("Enter")
        expect(fault).to_contain_text("is not one that this server knows")
        field.fill(key)
        field.press("Enter")
        expect(visit.page.locator("#asked")).to_have_text("Draw here, 8 × 8")
        expect(field).to_be_hidden()
        visit.click_the_pad()
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        visit.page.reload()
        expect(fault).to_have_text("This server needs a key.")
        visit.complaints.clear()  # a browser complains of each 401, which were meant


def test_a_sample_that_is_no_picture_is_typed_in_and_what_is_wrong_with_it_is_said(
    browser: Any, repository: Path
) -> None:
    with running(repository) as service, visiting(browser, service.url) as visit:
        typed, run = visit.page.locator("#json"), visit.page.locator("#run")
        typed.fill("[0, 1]")
        run.click()
        expect(visit.page.locator("#bars .count").first).not_to_be_empty()
        (prediction,) = httpx.post(f"{service.url}/predict", json={"inputs": [[0, 1]]}).json()["predictions"]
        assert visit.counts() == prediction["spike_counts"]
        typed.fill("[0, 1, 2]")
        run.click()
        sentence = httpx.post(f"{service.url}/predict", json={"inputs": [[0, 1, 2]]}).json()["error"]
        expect(visit.page.locator("#error")).to_have_text(sentence)
        visit.complaints.clear()  # of the 422, which was meant


def test_examples_of_spikes_are_offered_and_the_first_is_asked_at_once(browser: Any, tmp_path: Path) -> None:
    publish(tmp_path, toy(Coding.SPIKES))
    with running(tmp_path) as service, visiting(browser, service.url) as visit:
        examples = httpx.get(f"{service.url}/models/toy/examples").json()
        counts = [
            each["spike_counts"] for each in httpx.post(f"{service.url}/predict", json=examples).json()["predictions"]
        ]
        expect(visit.page.locator("#bars .count").first).to_have_text(str(counts[0][0]))
        assert visit.counts() == counts[0]
        visit.page.locator("#examples").select_option(index=2)
        expect(visit.page.locator("#json")).to_have_value(re.sub(r"\s", "", json.dumps(examples["inputs"][2])))
        expect(visit.page.locator("#bars .count").first).to_have_text(str(counts[2][0]))


def test_a_regressions_values_are_shown_with_their_names_and_units(browser: Any, tmp_path: Path) -> None:
    # A Linear that passes both on and takes 1 from the second.
    publish(tmp_path, regression(units=["rad", ""]))
    with running(tmp_path) as service, visiting(browser, service.url) as visit:
        visit.page.locator("#json").fill("[0.123456, 3]")
        visit.page.locator("#run").click()
        expect(visit.page.locator("#label")).to_have_text("2 values")
        assert visit.page.locator("#bars .name").all_inner_texts() == ["angle", "speed"]
        assert visit.page.locator("#bars .count").all_inner_texts() == ["0.1235 rad", "2"]
        assert visit.page.locator("#bars .best").count() == 0


def test_probabilities_are_shown_where_no_spikes_are_counted(browser: Any, tmp_path: Path) -> None:
    publish(tmp_path, regression("probabilities"))
    with running(tmp_path) as service, visiting(browser, service.url) as visit:
        visit.page.locator("#json").fill("[0.25, 1.75]")
        visit.page.locator("#run").click()
        expect(visit.page.locator("#label")).to_have_text("speed")
        assert visit.page.locator("#bars .count").all_inner_texts() == ["25.0 %", "75.0 %"]


def test_time_steps_are_offered_and_asked_for_only_where_a_model_takes_others(browser: Any, tmp_path: Path) -> None:
    publish(tmp_path, toy(), "any")
    publish(tmp_path, toy(Coding.SPIKES), "raster")  # brings its own
    publish(tmp_path, toy(Coding.CURRENT), "series")  # likewise
    ranges = {"shape": [2], "low": [-1, 0.5], "high": [1, 30], "out_of_range": "clip"}
    own = Spec.read(toy().spec.model_dump(mode="json") | {"input": ranges})
    publish(tmp_path, Network(own, toy().tensors), "ranges")
    external.publish(tmp_path, external.scores(), external.contract(), "fixed")
    flags = ("--engine", "auto", "--default-model", "any")  # for the model of a graph
    with running(tmp_path, *flags, until="listening") as service:
        for _ in range(5):
            service.wait_for("model_ready")
        with visiting(browser, service.url) as visit:
            steps = {"time_steps": 3}
            for name, asked in {"any": steps, "ranges": steps, "raster": {}, "series": {}, "fixed": {}}.items():
                visit.page.locator("#models").select_option(name)
                expect(visit.page.locator("#about")).to_contain_text(f"{name}, version 1")
                expect(visit.page.locator("#steps")).to_be_visible(visible="time_steps" in asked)
                with visit.page.expect_response(re.compile("/predict$")) as answer:
                    visit.page.locator("#run").click()
                assert answer.value.status == 200
                body = answer.value.request.post_data_json
                assert {field: body[field] for field in body.keys() & {"time_steps"}} == asked


def test_labels_that_look_like_html_are_shown_as_they_are(browser: Any, tmp_path: Path) -> None:
    label = "<img src=x onerror=alert(1)>"
    network = toy()
    spec = Spec.read(network.spec.model_dump(mode="json") | {"labels": [label, "b"]})
    publish(tmp_path, Network(spec, network.tensors))
    with running(tmp_path) as service, visiting(browser, service.url) as visit:
        expect(visit.page.locator("#bars .name").first).to_have_text(label)
        expect(visit.page.locator("#bars img")).to_have_count(0)


def test_a_call_is_tried_out_in_the_documentation_with_a_key(browser: Any, locked: tuple[Process, str]) -> None:
    service, key = locked
    with visiting(browser, f"{service.url}/docs") as visit:
        page = visit.page
        page.get_by_role("button", name="Authorize").first.click()
        page.get_by_label("auth-bearer-value").fill(key)
        page.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").click()
        block = page.locator(".opblock", has=page.get_by_text("/models", exact=True)).first
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        expect(block.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
        expect(block.locator(".live-responses-table")).to_contain_text('"digits"')
