"""The page for people and the API's documentation, used in a real browser by somebody who clicks, draws and types."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.service.keys import new_key
from spikeserve.training.data.audio import AudioToSpikes
from tests.bundles import publish, rewrite
from tests.client.test_live_examples import write_wav
from tests.networks import network_of, regression, task, toy
from tests.service.http.recordings import camera, npy
from tests.serving import ROOT, Process, running

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed here: it is of the extra 'clients'"
)
expect = sync_api.expect
WAIT = 60_000  # milliseconds, for a machine that is busy
expect.set_options(timeout=WAIT)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Without these it looks for updates, and in a container, as root, it does not start at all.
FLAGS = (
    *("--no-sandbox", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic"),
)
pytestmark = pytest.mark.usefixtures("reference_engine")  # for the servers that a test starts for itself
HTML = "<img src=x onerror=alert(1)>"
TABS = ("try", "live", "versions", "card", "operator")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Return a function that opens a browser, with more flags."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no browser is installed here; on Debian: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=found, args=[*FLAGS, *flags])


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Iterator[Any]:
    opened = chromium()
    yield opened
    opened.close()


def bands() -> Network:
    """Return a network that counts how strong each of eight inputs is."""
    labels = [f"band {band}" for band in range(8)]
    return network_of([{"type": "IF", "name": "out"}], {}, **task(8, 10, labels))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server of the shipped models, digits as two versions, and small networks of other kinds."""
    root = tmp_path_factory.mktemp("models") / "repository"
    shutil.copytree(PRETRAINED, root)
    shutil.copytree(root / "digits" / "1", root / "digits" / "2")
    rewrite(root / "digits" / "2", lambda manifest: manifest.update(version=2))
    publish(root, toy(), "any")
    publish(root, toy(Coding.SPIKES), "raster")  # brings its own time steps
    publish(root, toy(Coding.CURRENT), "series")  # likewise
    ranges = {"shape": [2], "low": [-1, 0.5], "high": [1, 30], "out_of_range": "clip"}
    own = Spec.read(toy().spec.model_dump(mode="json") | {"input": ranges, "labels": [HTML, "b"]})
    publish(root, Network(own, toy().tensors), "ranges")
    publish(root, regression(units=["rad", ""]), "values")
    publish(root, regression("probabilities"), "odds")
    publish(root, camera(), "camera")
    publish(root, toy(Coding.LATENCY), "late")
    publish(root, toy(Coding.RATE), "drawn")
    publish(root, bands(), "bands")
    odd = {"shape": [2], "low": -0.4242129623889923, "high": 2.821486711502075}
    neurons = [{"type": "IF", "name": "out"}]
    publish(root, network_of(neurons, {}, input=odd, time_steps=2, labels=["a", "b"]), "odd")
    with running(root, "--versions", "all", ready=len(list(root.glob("*/*/bundle.json")))) as service:
        yield service.url


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The origin of a web server of the examples. To a browser `localhost` is another site than 127.0.0.1."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing of its requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=ROOT / "examples")) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def locked(elsewhere: str) -> Iterator[tuple[Process, str]]:
    """A server of the models that ship that asks for a key, also of pages of that origin, and the key."""
    key, digest = new_key()
    with running(PRETRAINED, "--api-keys", digest, "--allowed-origins", elsewhere, ready=2) as service:
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

    def choose(self, model: str) -> None:
        """Choose a model, and wait until the page shows it."""
        self.page.locator("#models").select_option(model)
        self.settle()

    def live(self, model: str = "") -> None:
        """Show the sessions of a model, by default of the one that is chosen."""
        if model:
            self.choose(model)
        self.page.get_by_role("tab", name="Live").click()

    def type(self, sample: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Type a sample and run it; return the request and the prediction."""
        self.page.locator("#typed").evaluate("(typed) => { typed.open = true; }")
        self.page.locator("#json").fill(sample)
        return self.ask(self.page.locator("#run").click)

    def settle(self) -> None:
        """Wait until the page shows all that it asked for."""
        expect(self.page.locator("#answer")).to_have_attribute("aria-busy", "false")

    def ask(self, action: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Do what makes the page ask, and return its first request and the answer's first prediction."""
        with self.page.expect_response(re.compile("/predict$")) as answer:
            action()
        request: dict[str, Any] = answer.value.request.post_data_json
        return request, answer.value.json()["predictions"][0]

    def figure(self, title: str) -> Any:
        """Return the figure of the rasters that has this title."""
        return self.page.locator("#rasters figure", has=self.page.get_by_text(title, exact=True))

    def cells(self, title: str, units: int, steps: int) -> set[tuple[int, int]]:
        """Return the (step, unit) of a raster in whose middle there is the colour of a layer's spikes."""
        found = (
            self.figure(title)
            .locator("canvas")
            .first.evaluate(
                """async (canvas, { units, steps }) => {
              const { LEFT, RIGHT, TOP, FOOT } = await import("/page/plot.js");
              const { colours } = await import("/page/dom.js");
              const wanted = colours().map((colour) => parseInt(colour.slice(1), 16));
              const across = (canvas.clientWidth - LEFT - RIGHT) / steps;
              const down = (canvas.clientHeight - TOP - FOOT) / units;
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const cells = [];
              for (let t = 0; t < steps; t += 1) for (let unit = 0; unit < units; unit += 1) {
                const x = Math.floor(LEFT + (t + 0.5) * across), y = Math.floor(TOP + (unit + 0.5) * down);
                const at = 4 * (y * canvas.width + x);
                if (wanted.includes(data[at] << 16 | data[at + 1] << 8 | data[at + 2])) cells.push([t, unit]);
              }
              return cells;
            }""",
                {"units": units, "steps": steps},
            )
        )
        return {(step, unit) for step, unit in found}


@contextmanager
def visiting(browser: Any, url: str, **options: Any) -> Iterator[Visit]:
    """Open `url`, and see to it in the end that nothing but its server was asked and that no script failed."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
    context.set_default_timeout(WAIT)
    visit = Visit(context.new_page())
    visit.page.goto(url)
    yield visit
    origin = httpx.URL(url).copy_with(path="/")
    assert [asked for asked in visit.asked if not asked.startswith((str(origin), "data:"))] == []
    assert visit.complaints == []
    context.close()


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Visit]:
    """A visit of the page, which shows an answer already."""
    with visiting(browser, url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        visit.settle()
        yield visit


@pytest.fixture(scope="module")
def modules(browser: Any, url: str) -> Iterator[Any]:
    """The page, for what its modules compute without showing it."""
    with visiting(browser, url) as visit:
        visit.settle()
        yield visit.page


def asked(url: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the first prediction of the server's own answer."""
    answer = httpx.post(f"{url}/models/{model}/predict", json=body).json()
    return answer["predictions"][0]


def example(url: str, model: str, index: int) -> Any:
    return httpx.get(f"{url}/models/{model}/examples").json()["inputs"][index]


def test_the_page_opens_on_the_default_models_first_example_and_its_answer(visit: Visit, url: str) -> None:
    prediction = asked(url, "digits", {"inputs": [example(url, "digits", 0)]})
    operations = prediction["synaptic_operations"]
    assert visit.text("#label") == prediction["label"]
    assert visit.counts() == prediction["spike_counts"]
    assert f"{operations:,} synaptic operations" in visit.text("#facts")
    assert visit.text("#error") == ""
    dense = httpx.get(f"{url}/models/digits").json()["dense_operations"]
    everything = dense["once"] + 8 * dense["per_step"]
    expect(visit.page.locator("#work")).to_contain_text(
        f"{operations:,} synaptic operations, of {everything:,} in a dense"
    )
    expect(visit.page.locator("#work .count")).to_have_text(f"{100 * operations / everything:.1f} %")
    rows = visit.page.get_by_role("group", name="Time").get_by_role("table").locator("tbody tr")
    names = ["decode", "queue", "encode", "run", "render", "all, with the network"]
    expect(rows.locator("td:first-child")).to_have_text(names)
    *parts, whole = [float(text.removesuffix(" ms")) for text in rows.locator("td:last-child").all_inner_texts()]
    assert 0 < sum(parts) <= whole + 0.05  # each is rounded to 0.01 ms


def test_it_opens_on_a_model_that_can_be_clicked(browser: Any, tmp_path: Path) -> None:
    same = {"shape": [2], "scale": 0, "offset": 1}  # whatever it is sent, so that it has no examples
    publish(
        tmp_path, network_of([{"type": "IF", "name": "out"}], {}, input=same, time_steps=2, labels=["a", "b"]), "first"
    )
    publish(tmp_path, toy(Coding.SPIKES), "second")
    with running(tmp_path, "--default-model", "first", ready=2) as service, visiting(browser, service.url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        expect(visit.page.locator("#models")).to_have_value("second")
        expect(visit.page.get_by_role("button", name="Example 1")).to_have_attribute("aria-pressed", "true")


# A model, the time steps that are asked for where it takes others than its own, and whether it can listen.
KINDS = (
    *(("digits", 8, False), ("braille", None, True), ("any", 3, True), ("ranges", 3, True), ("camera", None, False)),
    *(("raster", None, True), ("series", None, True), ("late", 3, False), ("drawn", 3, True)),
)


@pytest.mark.parametrize(("model", "steps", "listens"), KINDS)
def test_each_kind_of_model_has_examples_and_is_offered_what_it_takes(
    visit: Visit, url: str, model: str, steps: int | None, listens: bool
) -> None:
    visit.choose(model)
    third = visit.page.get_by_role("button", name="Example 3", exact=True)
    request, prediction = visit.ask(third.click)
    assert (request["inputs"], request.get("time_steps")) == ([example(url, model, 2)], steps)
    expect(visit.page.locator("#steps")).to_be_visible(visible=steps is not None)
    expect(third).to_have_attribute("aria-pressed", "true")
    silent = not any(prediction["spikes_per_node"].values())
    expect(visit.page.locator("#label")).to_have_text("–" if silent else prediction["label"])
    visit.live()
    assert visit.page.get_by_role("button", name="Listen").is_visible() is listens


def test_a_rasters_marks_stand_on_their_steps(visit: Visit) -> None:
    _, prediction = visit.ask(visit.page.get_by_role("button", name="Example 2", exact=True).click)
    spikes = prediction["raster"]["output"]
    expect(visit.page.locator("#label")).to_have_text(prediction["label"])
    assert visit.cells("output", 10, 8) == set(zip(spikes["t"], spikes["unit"], strict=True)) != set()
    label = visit.figure("output").locator("canvas").get_attribute("aria-label")
    assert label.startswith(f"Raster of output: 10 neurons over 8 steps; {len(spikes['t'])} spikes")


def test_one_cursor_moves_all_plots_and_says_the_step(visit: Visit, url: str) -> None:
    page = visit.page
    spikes = asked(url, "digits", {"inputs": [example(url, "digits", 0)], "return": ["raster"]})["raster"]
    expect(page.locator("#try .time output")).to_have_text("step 7 (0 to 7)")
    page.locator("#try .time input").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#try .time output")).to_have_text("step 4 (0 to 7)")
    at_4 = {layer: each["t"].count(4) for layer, each in spikes.items()}
    expect(page.locator("#try .time input")).to_have_attribute(
        "aria-valuetext", re.compile(f"step 4 .* {sum(at_4.values())} spikes in all layers")
    )
    for layer, count in at_4.items():
        expect(visit.figure(layer).locator("figcaption")).to_contain_text(re.compile(f"; {count} spikes? at step 4"))
        x = visit.figure(layer).locator(".mark").evaluate("(mark) => new DOMMatrix(mark.style.transform).e")
        width = visit.figure(layer).locator(".plot").evaluate("(plot) => plot.clientWidth")
        assert x == pytest.approx(58 + 4 * (width - 68) / 8, abs=0.5)  # between the margins of 58 and 10 pixels
    maps = visit.figure("neuron1").locator("canvas.maps")
    upto_4 = sum(step <= 4 for step in spikes["neuron1"]["t"])
    expect(maps).to_have_attribute("aria-label", re.compile(f"{at_4['neuron1']} spikes at step 4, {upto_4:,} up to it"))
    page.locator("#try .time button").click()
    expect(page.locator("#try .time output")).to_have_text("step 7 (0 to 7)")
    expect(page.locator("#try .time button")).to_have_text("Play")


def test_a_move_of_the_cursor_draws_no_raster_again(visit: Visit) -> None:
    # 80,000 spikes of 1,000 neurons in 200 steps: 400 a step. Drawing them calls the canvas, moving the mark does not.
    drawn = visit.page.evaluate(
        """async () => {
          const { addRaster } = await import("/page/raster.js");
          const { setSteps, move } = await import("/page/cursor.js");
          const host = document.getElementById("rasters"), places = Array.from({ length: 80000 }, (_, k) => k);
          document.getElementById("race").replaceChildren();
          document.getElementById("membranes").replaceChildren();
          host.replaceChildren();
          const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          let calls = 0;
          const pen = CanvasRenderingContext2D.prototype;
          for (const name of ["drawImage", "putImageData", "fillRect", "stroke", "fillText"]) {
            const own = pen[name];
            pen[name] = function (...given) { calls += 1; return own.apply(this, given); };
          }
          const spikes = { t: places.map((k) => Math.floor(k / 400)), unit: places.map((k) => 7 * k % 1000) };
          addRaster(host, { name: "many", type: "LIF", shape: [1000] }, spikes, 200, { colour: "#c2410c" });
          setSteps(200, () => "");
          await frame();
          const once = calls;
          for (let step = 0; step < 200; step += 50) { move(step); await frame(); }
          return [once > 0, calls - once, host.querySelector("figcaption span").textContent];
        }"""
    )
    assert drawn == [True, 0, "1,000 × LIF; 400 spikes at step 150"]


def test_the_race_says_when_the_answer_was_decided(visit: Visit, url: str) -> None:
    body = {"inputs": [example(url, "digits", 0)]}
    used = {rule: asked(url, "digits", body | {"stop": rule})["steps_used"] for rule in ("decided", "confident")}
    assert used["decided"] < 8  # or there would be no mark to speak of
    race = visit.page.locator("#race")
    expect(race).to_contain_text(f"Decided after {used['decided']} of 8 steps")
    expect(race).to_contain_text(f"it ends after {used['confident']} of 8 steps")
    best = asked(url, "digits", body)
    first = f"{best['label']} has {max(best['spike_counts'])}"
    expect(race.locator("canvas")).to_have_attribute("aria-label", re.compile(f"At the end: {first}, "))
    expect(race.locator("figcaption").first).to_contain_text(f"after step 7: {first}")


def test_a_race_of_membranes_ends_at_what_is_read_out(visit: Visit, url: str) -> None:
    visit.choose("braille")
    body = {"inputs": [example(url, "braille", 0)], "return": ["membrane"]}
    prediction = asked(url, "braille", body)
    mean = np.mean(prediction["membrane"]["output"], axis=0)
    best = int(np.argmax(mean))
    expect(visit.page.locator("#race figcaption").first).to_contain_text(
        f"after step 255: {prediction['label']} has {float(f'{mean[best]:.4g}'):g}, "
    )
    expect(visit.figure("input").locator("canvas")).to_have_attribute(
        "aria-label", re.compile("Raster of input: 12 inputs over 256 steps; 659 spikes")
    )


def test_membranes_of_chosen_neurons_are_drawn_with_their_threshold(visit: Visit, url: str) -> None:
    page, membranes = visit.page, visit.page.locator("#membranes")
    body = {"inputs": [example(url, "digits", 0)], "return": ["membrane"]}
    values = asked(url, "digits", body)["membrane"]["neuron5"]
    page.locator("#membrane-layer").select_option("neuron5")
    page.locator("#membrane-neurons").fill("3, 60")
    page.locator("#membrane-neurons").press("Enter")
    last = ", ".join(f"{float(f'{values[7][neuron]:.4g}'):g}" for neuron in (3, 60))
    expect(membranes.locator("figcaption").first).to_contain_text(f"after step 7: {last}")
    expect(membranes.locator("canvas")).to_have_attribute(
        "aria-label", re.compile("^Membranes of neuron5 .*: neuron 3 from .*, threshold 1; neuron 60 from")
    )
    page.locator("#membrane-neurons").fill("64")
    page.locator("#membrane-neurons").press("Enter")
    expect(membranes).to_have_text("A neuron is 64, expected a whole number from 0 to 63.")
    visit.figure("output").locator(".plot").dblclick(position={"x": 100, "y": 7})  # in the first of ten rows
    expect(membranes.locator("canvas")).to_have_attribute("aria-label", re.compile("Membranes of output .* neuron 0 "))


def test_what_is_drawn_is_asked_and_shown_until_it_is_wiped(visit: Visit, url: str) -> None:
    page = visit.page
    page.locator("#clear").click()
    assert (visit.text("#label"), visit.text("#facts")) == ("–", "Draw something.")
    request, _ = visit.ask(page.locator("#pad").click)
    # A dot in the middle of 8 × 8 pixels, of radius 1.1, is √0.5 from the middle of the four around it, and so has
    # 1.25 × (1 − √0.5 / 1.1) = 0.4465 of the ink there: 7.14 of the 16 that this model takes.
    (pixels,) = request["inputs"][0]
    inked = {(row, column): ink for row, line in enumerate(pixels) for column, ink in enumerate(line) if ink}
    assert inked == {place: pytest.approx(7.14, abs=0.1) for place in ((3, 3), (3, 4), (4, 3), (4, 4))}
    prediction = asked(url, "digits", request)
    expect(page.locator("#bars .count").first).to_have_text(str(prediction["spike_counts"][0]))
    assert visit.counts() == prediction["spike_counts"]
    page.locator("#clear").click()
    assert visit.text("#label") == "–"
    expect(page.locator("#rasters")).to_have_text("There is no answer yet.")


def test_the_pad_is_drawn_on_by_keyboard(visit: Visit) -> None:
    visit.page.locator("#clear").click()
    visit.page.locator("#pad").focus()
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("ArrowRight")
    request, _ = visit.ask(lambda: visit.page.keyboard.press("Space"))
    assert np.argwhere(np.array(request["inputs"][0][0]) == 16).tolist() == [[1, 1]]


def test_the_slider_runs_it_for_as_many_steps(visit: Visit) -> None:
    request, _ = visit.ask(lambda: visit.page.locator("#steps").fill("3"))
    assert request["time_steps"] == 3
    assert visit.text("#steps-text") == "3 time steps"
    expect(visit.page.locator("#try .time output")).to_have_text("step 2 (0 to 2)")


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Return a grey image (height, width) as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def file(name: str, content: bytes, kind: str = "") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def test_a_file_is_an_input_an_image_an_array_or_a_recording(visit: Visit, url: str) -> None:
    page, opened = visit.page, visit.page.locator("#file")
    # Black ink on white paper, 8 × 8 squares of 10 × 10 pixels, whose column 4 is ink: the model has 16 for ink.
    paper = np.full((80, 80), 255, np.uint8)
    paper[10:70, 40:50] = 0
    request, _ = visit.ask(lambda: opened.set_input_files(file("one.png", png(paper), "image/png")))
    pixels = np.array(request["inputs"][0][0])
    assert pixels[1:7, 4].min() > 12
    assert np.delete(pixels, 4, axis=1).max() < 3

    sample = np.array(example(url, "digits", 1), np.uint8)
    with page.expect_response(re.compile(r"/predict\?")) as answer:
        opened.set_input_files(file("two.npy", npy(sample.reshape(1, 8, 8))))
    assert answer.value.request.headers["content-type"] == "application/x-npy"
    prediction = asked(url, "digits", {"inputs": [sample.tolist()]})
    expect(page.locator("#label")).to_have_text(prediction["label"])
    expect(page.locator("#file-name")).to_contain_text("two.npy")
    assert visit.counts() == prediction["spike_counts"]

    recording = np.zeros(3, [("t", "<u4"), ("x", "<u2"), ("y", "<u2")]).tobytes()
    kind = {"Content-Type": "application/octet-stream"}
    sentence = httpx.post(f"{url}/models/digits/predict", content=recording, headers=kind).json()["error"]
    opened.set_input_files(file("three.events", recording))
    expect(page.locator("#error")).to_have_text(sentence)
    expect(page.locator("#label")).to_have_text("–")  # the answer to another input is not left there
    visit.complaints.clear()  # of the status, which was meant


def test_a_file_that_is_dropped_is_an_input(visit: Visit, url: str) -> None:
    visit.choose("braille")
    events = example(url, "braille", 4)
    raster = np.zeros((256, 12), np.uint8)
    raster[events["t"], events["unit"]] = 1
    with visit.page.expect_response(re.compile(r"/predict\?")) as answer:
        visit.page.evaluate(
            """(bytes) => {
              const dropped = new DataTransfer();
              dropped.items.add(new File([new Uint8Array(bytes)], "letter.npy"));
              const event = new DragEvent("drop", { dataTransfer: dropped, bubbles: true });
              document.getElementById("drop").dispatchEvent(event);
            }""",
            list(npy(raster)),
        )
    prediction = asked(url, "braille", {"inputs": [events]})
    assert answer.value.json()["predictions"][0]["label"] == prediction["label"]
    expect(visit.page.locator("#label")).to_have_text(prediction["label"])
    expect(visit.figure("input").locator("canvas")).to_have_attribute(
        "aria-label", re.compile(f"; {len(events['t'])} spikes")
    )


def test_what_is_wrong_with_a_typed_sample_is_said_in_the_servers_sentence(visit: Visit, url: str) -> None:
    visit.choose("any")
    typed, run = visit.page.locator("#json"), visit.page.locator("#run")
    visit.page.get_by_text("Type a sample").click()
    typed.fill("[0, 1]")
    visit.ask(run.click)
    prediction = asked(url, "any", {"inputs": [[0, 1]]})
    expect(visit.page.locator("#label")).to_have_text(prediction["label"])
    assert visit.counts() == prediction["spike_counts"]
    typed.fill("[0, 1, 2]")
    run.click()
    sentence = httpx.post(f"{url}/models/any/predict", json={"inputs": [[0, 1, 2]]}).json()["error"]
    expect(visit.page.locator("#error")).to_have_text(sentence)
    typed.fill("[0, 1")
    run.click()
    expect(visit.page.locator("#error")).to_contain_text("The sample is not JSON")
    visit.complaints.clear()  # of the 422, which was meant


def test_values_and_probabilities_are_shown_where_no_spikes_are_counted(visit: Visit) -> None:
    # A Linear that passes both on and takes 1 from the second.
    visit.choose("values")
    visit.type("[0.123456, 3]")
    expect(visit.page.locator("#label")).to_have_text("2 values")
    assert visit.page.locator("#bars .name").all_inner_texts() == ["angle", "speed"]
    expect(visit.page.locator("#bars .count")).to_have_text(["0.1235 rad", "2"])
    assert visit.page.locator("#bars .best").count() == 0
    visit.choose("odds")
    visit.type("[0.25, 1.75]")
    expect(visit.page.locator("#label")).to_have_text("speed")
    expect(visit.page.locator("#bars .count")).to_have_text(["25.0 %", "75.0 %"])


def test_labels_that_look_like_html_are_shown_as_they_are(visit: Visit) -> None:
    visit.choose("ranges")
    expect(visit.page.locator("#bars .name").first).to_have_text(HTML)
    expect(visit.page.locator("#race figcaption").last).to_contain_text(HTML)
    expect(visit.page.locator("main img")).to_have_count(0)


def test_the_pointer_and_the_keyboard_make_events_of_a_session(visit: Visit) -> None:
    page = visit.page
    visit.live("braille")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_have_text("The session is open.")
    board = page.locator(".board canvas")
    board.hover(position={"x": 20, "y": 100})
    page.mouse.down()
    expect(page.locator("#live tbody tr td:nth-child(3)").filter(has_text=re.compile("[1-9]")).first).to_be_visible()
    page.mouse.up()
    board.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_contain_text("The session has ended after")
    expect(page.get_by_role("button", name="Start")).to_be_visible()


def test_the_pointer_makes_events_as_a_cameras_sensor_tells_them(visit: Visit) -> None:
    # Its model has an IF for each pixel and polarity, and so counts the events of each.
    page = visit.page
    visit.live("camera")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_have_text("The session is open.")
    box = page.locator(".board canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.5)  # column 4 of 10, row 6 of 12
    page.mouse.down()
    # What was at 0, 0 becomes darker, and what is at 4, 6 brighter, each with the pixels around.
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("windows and 13 events; 0 came too late.")
    off = {row * 10 + column for row in (0, 1) for column in (0, 1)}
    on = {120 + row * 10 + column for row in (5, 6, 7) for column in (3, 4, 5)}
    expect(page.locator("#live .count")).to_have_text([str(int(unit in off | on)) for unit in range(240)])


def test_a_cameras_events_are_a_picture_up_to_the_cursor(visit: Visit, url: str) -> None:
    page = visit.page
    visit.choose("camera")
    events = example(url, "camera", 0)
    picture = page.locator("#picture")
    total = len(events["t"])
    for step in (2, 0):  # of three; it begins at the last
        if step == 0:
            page.locator("#try .time input").press("Home")
        some = [unit for t, unit in zip(events["t"], events["unit"], strict=True) if t <= step]
        label = f"up to the cursor, 12 × 10 pixels, brighter and darker in two colours: {len(some)} of {total} events"
        expect(picture).to_have_attribute("aria-label", f"What the events have drawn {label}")
        found = picture.evaluate(
            """async (canvas) => {
              const { theme } = await import("/page/dom.js"), { bytesOf } = await import("/page/raster.js");
              const { data } = canvas.getContext("2d").getImageData(0, 0, 10, 12);
              const wanted = (name) => bytesOf(theme(`--${name}`));
              const near = (k, name) => wanted(name).every((part, j) => Math.abs(part - data[4 * k + j]) < 4);
              return Array.from({ length: 120 }, (_, k) => data[4 * k + 3] === 0 ? "" :
                ["brighter", "darker"].find((name) => near(k, name)) ?? "both");
            }"""
        )
        expected = ["", "darker", "brighter", "both"]
        kinds = [(pixel in some) + 2 * (pixel + 120 in some) for pixel in range(120)]
        assert found == [expected[kind] for kind in kinds]
    assert set(kinds) == {0, 1, 2, 3}  # or it would say little


def test_a_session_shows_what_a_cameras_events_have_drawn(visit: Visit, url: str) -> None:
    page = visit.page
    visit.choose("camera")
    events = example(url, "camera", 0)
    visit.live()
    page.get_by_role("button", name="Stream it").click()
    expect(page.get_by_role("status")).to_contain_text("The session has ended after 3 windows")
    drawn = page.locator(".board canvas").evaluate(
        """async (canvas) => {
          const { theme } = await import("/page/dom.js"), { bytesOf } = await import("/page/raster.js");
          const paper = bytesOf(theme("--paper")).join(), pen = canvas.getContext("2d");
          return Array.from({ length: 120 }, (_, k) => [...pen.getImageData((k % 10 + 0.5) * canvas.width / 10,
            (Math.floor(k / 10) + 0.5) * canvas.height / 12, 1, 1).data].slice(0, 3).join() !== paper);
        }"""
    )
    seen = {unit % 120 for unit in events["unit"]} | {0}  # where the pointer is
    assert {pixel for pixel, is_drawn in enumerate(drawn) if is_drawn} == seen


def test_a_session_is_reset_and_its_scores_are_chosen_while_it_runs(visit: Visit) -> None:
    page = visit.page
    opened: list[str] = []
    page.on("websocket", lambda socket: opened.append(socket.url))
    visit.live()
    first = page.locator("#live tbody tr").last.locator("td").first
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()
    page.get_by_label("Scores").select_option("total")
    page.get_by_role("button", name="Start").click()
    best = page.locator("#live .item.best .count")
    # A window of 8 steps has at most 8 spikes of a class: more are those of two windows and all before.
    expect(best).to_have_text(re.compile("^(9|[1-9][0-9]+)$"))
    expect(first).not_to_have_text("0")  # of the eight lines that are shown
    page.get_by_role("button", name="Reset").click()
    expect(first).to_have_text("0")
    page.get_by_label("Scores").select_option("window")
    expect(first).to_have_text("0")
    expect(best).to_have_text(re.compile("^[1-8]$"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()
    assert [url.rpartition("scores=")[2] for url in opened] == ["total", "total", "window"]


def test_numbers_are_rounded_for_people_and_a_sample_keeps_its_bits(visit: Visit) -> None:
    visit.choose("odd")
    assert visit.text("#asked").endswith("A sample of shape 2, from -0.4242 to 2.821.")
    written, read = visit.page.evaluate(
        """async () => {
          const { asJson } = await import("/page/dom.js");
          const values = Array.from({ length: 1000 }, (_, k) => Math.fround((k - 500) / 7 * 1.05 ** k));
          const written = asJson({ t: [0.10000000149011612, 16], values });
          const read = JSON.parse(written).values;
          return [written.slice(0, 22), read.every((value, k) => Math.fround(value) === values[k])];
        }"""
    )
    assert (written, read) == ('{"t":[0.1,16],"values"', True)


def test_why_a_session_is_refused_is_said_in_the_servers_sentence(visit: Visit, url: str) -> None:
    page = visit.page
    visit.live("braille")
    page.get_by_label("Step, µs").fill("0")
    page.get_by_role("button", name="Start").click()
    query = "window_steps=32&scores=total&step_us=0"
    sentence = httpx.post(f"{url}/models/braille/stream?{query}", content=b"").json()["error"]
    expect(page.locator("#error")).to_have_text(sentence)
    visit.complaints.clear()  # of the 422, which was meant


def test_a_model_of_latency_coding_says_why_it_has_no_sessions(visit: Visit) -> None:
    visit.live("late")
    expect(visit.page.locator("#live")).to_contain_text("late has no sessions: its coding is latency")


class Sent:
    """The values that a page sends over WebSockets, (entries, values) each time."""

    def __init__(self, page: Any, values: int) -> None:
        self.arrays: list[np.ndarray[Any, Any]] = []
        page.on("websocket", lambda socket: socket.on("framesent", lambda payload: self._add(payload, values)))

    def _add(self, payload: bytes | str, values: int) -> None:
        if isinstance(payload, bytes):
            self.arrays.append(np.frombuffer(payload, "<f4").reshape(-1, values))

    def wait_for(self, page: Any, *values: float) -> None:
        """Wait until an entry of these values was sent."""
        wanted = np.array(values, np.float32)
        for _ in range(WAIT // 20):
            if any(np.allclose(array[-1], wanted, atol=1e-3) for array in self.arrays):
                return
            page.wait_for_timeout(20)
        pytest.fail(f"{values} was not sent, but {self.arrays[-1:]}")


def test_what_is_drawn_is_streamed_as_values_window_after_window(visit: Visit, url: str) -> None:
    page = visit.page
    sent = Sent(page, 64)
    visit.live()
    page.get_by_label("Windows a second").fill("2")
    page.get_by_role("button", name="Start").click()
    # The first window is what a request is: the example that is shown, from rest.
    prediction = asked(url, "digits", {"inputs": [example(url, "digits", 0)]})
    expect(page.locator("#live .answer-of")).to_have_text(prediction["label"])
    first = page.locator("#live tbody tr", has=page.get_by_role("cell", name="0", exact=True)).last
    assert first.locator("td").all_inner_texts()[:4] == ["0", "8", "8", prediction["label"]]
    np.testing.assert_array_equal(sent.arrays[0], [np.ravel(example(url, "digits", 0))])
    page.locator("#live").get_by_role("button", name="Clear").click()
    sent.wait_for(page, *[0] * 64)
    page.locator(".board canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    sent.wait_for(page, 0, 16, *[0] * 62)  # ink is 16
    page.locator("#live").get_by_label("Example").select_option("2")
    page.get_by_role("button", name="Show it").click()
    sent.wait_for(page, *np.ravel(example(url, "digits", 1)))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text(re.compile(r"has ended after (\d+) windows and \d+ steps\.$"))


def test_levels_are_streamed_to_a_model_whose_input_is_no_image(visit: Visit) -> None:
    page = visit.page
    sent = Sent(page, 2)
    visit.live("ranges")  # from -1 to 1, and 0.5 to 30
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Start").click()
    sent.wait_for(page, 0, 0.5)  # 0, or what is nearest
    page.locator(".board canvas").focus()
    page.keyboard.press("ArrowLeft")  # a tenth of its range of 2
    sent.wait_for(page, -0.2, 0.5)
    board = page.locator(".board canvas")
    board.click(position={"x": 3 * board.bounding_box()["width"] / 4, "y": 40})
    sent.wait_for(page, -0.2, 22.625)  # 0.5 + 0.75 × 29.5
    page.get_by_role("button", name="Stop").click()
    expect(board).to_have_attribute("aria-label", re.compile("^2 values, .*; value 1 is at 75 % of its range"))


# The fields of a model's session, the example that is streamed, how it ends, and the time of its last window.
STREAMED: dict[str, tuple[dict[str, str], int, str, str]] = {
    "braille": ({"Step, µs": "1000", "Steps a window": "64"}, 0, "4 windows and {} events; 0 came too late.", "0.26 s"),
    "camera": ({}, 1, "3 windows and {} events; 0 came too late.", "0.03 s"),
    "series": ({"Steps a window": "2", "Windows a second": "50"}, 0, "2 windows and 3 steps.", "3"),
}


@pytest.mark.parametrize("model", STREAMED)
def test_an_example_is_streamed_window_by_window_to_one_requests_answer(visit: Visit, url: str, model: str) -> None:
    page, (fields, index, end, time) = visit.page, STREAMED[model]
    sample, sent = example(url, model, index), Sent(page, 2)
    visit.live(model)
    for label, text in fields.items():
        page.get_by_label(label).fill(text)
    page.locator("#live").get_by_label("Example").select_option(str(index + 1))
    page.get_by_role("button", name="Stream it").click()
    expect(page.get_by_role("status")).to_have_text(
        f"The session has ended after {end.format(len(sample['t']) if isinstance(sample, dict) else '')}"
    )
    prediction = asked(url, model, {"inputs": [sample]})
    expect(page.locator("#live .answer-of")).to_have_text(prediction["label"])
    windows = page.locator("#live tbody tr")
    expect(windows).to_have_count(int(end[0]))
    assert windows.first.locator("td").all_inner_texts()[:2] == [str(int(end[0]) - 1), time]
    if model != "braille":  # which is read by its membranes
        expect(page.locator("#live .count")).to_have_text([str(count) for count in prediction["spike_counts"]])
    if model == "series":
        np.testing.assert_array_equal(np.concatenate(sent.arrays), sample)


TONE = 1000  # Hz


@pytest.fixture(scope="module")
def hearing(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone plays a tone, to any page that asks."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    sound = np.sin(2 * np.pi * TONE * np.arange(48_000) / 48_000)
    write_wav(path, 0.6 * sound, 48_000)
    microphone = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={path}")
    opened = chromium(*microphone, "--use-fake-ui-for-media-stream")
    yield opened
    opened.close()


def test_a_microphones_bands_are_the_values_of_a_session(hearing: Any, url: str) -> None:
    # Of 8 bands from 80 to 4000 Hz, 122 to 2146 mel, the middles lie 2024 / 9 = 225 mel apart. 1000 Hz are 1000 mel,
    # (1000 - 122) / 225 = 3.9: next to the fourth middle.
    with visiting(hearing, url) as visit:
        page = visit.page
        visit.live("bands")
        expect(page.locator("#live")).to_contain_text(
            "8 mel bands are taken from the sound, 80 to 4,000 Hz: each input"
        )
        page.get_by_role("button", name="Listen").click()
        expect(page.get_by_role("status")).to_have_text("The session is open.")
        expect(page.locator("#live .answer-of")).to_have_text("band 3")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_contain_text("The session has ended after")


def test_a_microphones_bands_are_the_events_of_a_session(hearing: Any, url: str) -> None:
    with visiting(hearing, url) as visit:
        page = visit.page
        visit.live("braille")
        expect(page.locator("#live")).to_contain_text("inputs 0 to 5 spike where one rises by 4 dB")
        page.get_by_role("button", name="Listen").click()
        # The tone begins once: its bands rise, and nothing falls as long as it lasts.
        expect(
            page.locator("#live tbody tr td:nth-child(3)").filter(has_text=re.compile("[1-9]")).first
        ).to_be_visible()
        page.get_by_role("tab", name="Try").click()  # which ends the session
        visit.live()
        page.get_by_label("Step, µs").fill("100")
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#error")).to_have_text("To listen, a step must last 2000 µs or more, it lasts 100 µs.")


def test_a_microphone_that_is_not_there_or_not_allowed_is_said_in_a_sentence(visit: Visit) -> None:
    page = visit.page
    visit.live("any")
    page.get_by_role("button", name="Listen").click()
    expect(page.locator("#error")).to_have_text(
        re.compile("^(There is no microphone|The microphone was not allowed)[.]$")
    )
    expect(page.get_by_role("status")).to_have_text("No session is open.")
    for name, sentence in {
        "NotAllowedError": "The microphone was not allowed.",
        "NotFoundError": "There is no microphone.",
        "NotReadableError": "The microphone could not be opened: busy",
    }.items():
        page.evaluate(
            """(name) => {
              navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("busy", name); };
            }""",
            name,
        )
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#error")).to_have_text(sentence)


def test_the_levels_of_sound_are_those_that_training_computes(modules: Any) -> None:
    # Noise that becomes quieter: its first frame is the loudest, to which training's levels are relative too.
    rate, encoding = 16_000, AudioToSpikes()
    sound = np.random.default_rng(0).normal(size=8000) * np.exp(-np.arange(8000) / 2000) * 0.3
    expected = encoding.levels(sound, rate)
    levels, spikes = modules.evaluate(
        """async ([sound, rate]) => {
          const { Bands, crossings } = await import("/page/bands.js");
          const bands = new Bands(40, rate, 0.01), cross = crossings(40), found = [];
          for (let k = 0; k < sound.length; k += 1024) found.push(...bands.push(sound.slice(k, k + 1024)));
          return [found, found.map(cross)];
        }""",
        [sound.tolist(), rate],
    )
    whole = len(levels)
    assert whole == 1 + (8000 - 512) // 160
    assert expected[:whole].max() == expected[0].max()
    np.testing.assert_allclose(levels, expected[:whole], atol=1e-3)
    raster = encoding.raster(sound, rate)[:whole]
    assert [[*up, *(40 + band for band in down)] for up, down in spikes] == [
        np.flatnonzero(row).tolist() for row in raster
    ]


def test_two_versions_answer_one_input_side_by_side_under_one_cursor(visit: Visit, url: str) -> None:
    page = visit.page
    page.get_by_role("tab", name="Versions").click()
    body = {"inputs": [example(url, "digits", 0)], "return": ["raster"]}
    at_5 = []
    for version in (1, 2):
        answer = httpx.post(f"{url}/models/digits/versions/{version}/predict", json=body).json()["predictions"][0]
        side = page.get_by_role("region", name=f"Version {version}", exact=True)
        expect(side.locator(".answer-of")).to_have_text(answer["label"])
        expect(side.locator(".plot canvas")).to_have_count(1 + 4)  # the race, and each layer
        at_5.append(sum(each["t"].count(5) for each in answer["raster"].values()))
    expect(page.locator(".difference")).to_have_text(
        "Both give the same answer. Version 2 takes 100.0 % of the synaptic operations of version 1."
    )
    slider = page.locator("#versions").get_by_role("slider", name="Time step")
    slider.fill("5")
    told = re.compile(f"^step 5 .* {at_5[1]} spikes in version 2, {at_5[0]} spikes in version 1$")
    expect(slider).to_have_attribute("aria-valuetext", told)
    marks = page.locator("#versions .mark").evaluate_all(
        "(marks) => marks.map(({ style }) => [new DOMMatrix(style.transform).e, parseFloat(style.width)])"
    )
    assert len(marks) == 10
    for x, width in marks:
        assert x == pytest.approx(58 + 5 * width, abs=0.5)  # all at step 5


def test_the_model_card_is_rendered(visit: Visit) -> None:
    visit.page.get_by_role("tab", name="Model card").click()
    card = visit.page.locator("#card .prose")
    expect(card.get_by_role("heading", name="Firing rates")).to_be_visible()
    expect(card.locator("strong").first).to_have_text("Input")
    expect(card.get_by_role("cell", name="12.05%")).to_be_visible()
    expect(visit.page.get_by_role("group", name="Layers").get_by_role("row")).to_have_count(12)  # and the head


def test_markdown_is_rendered_without_ever_being_html(modules: Any) -> None:
    markdown = (
        f"# A *b* {HTML}\n\n1. one\n2. `x < y`\n\n- **bold\n  on**\n\n"
        f"| a | b |\n|---|---|\n| {HTML} | [l](javascript:1) |\n\n```\n# code\n```\n"
    )
    rendered = modules.evaluate(
        """async (text) => {
          const { render } = await import("/page/markdown.js");
          const host = document.createElement("div");
          host.append(...render(text));
          const tags = [...host.querySelectorAll("*")].map(({ tagName }) => tagName.toLowerCase());
          return [host.textContent, [...new Set(tags)].sort()];
        }""",
        markdown,
    )
    text, tags = rendered
    assert tags == sorted(
        ["h2", "em", "ol", "ul", "li", "code", "strong", "div", "table", "thead", "tbody", "tr", "th", "td", "pre"]
    )
    assert text == f"A b {HTML}onex < ybold onab{HTML}[l](javascript:1)# code"


def test_a_long_window_has_the_mean_of_the_frames_that_cover_it(modules: Any) -> None:
    # 0.2 s at 16 kHz are 7 frames of 512 samples, 457 apart. In 2 s there are 1 + (32000 - 512) // 457 = 69 frames,
    # and so 9 windows. Of a tone of 1000 Hz the fourth of 8 bands is the loudest; after it, all are at the floor.
    levels = modules.evaluate(
        """async () => {
          const { Bands } = await import("/page/bands.js");
          const bands = new Bands(8, 16000, 0.2), found = [];
          for (let start = 0; start < 32000; start += 1000) {
            const tone = (n) => (start < 16000 ? Math.sin(2 * Math.PI * 1000 * (start + n) / 16000) : 0);
            found.push(...bands.push(Float32Array.from({ length: 1000 }, (_, n) => tone(n))));
          }
          return found;
        }"""
    )
    assert len(levels) == 9
    assert [int(np.argmax(window)) for window in levels[:5]] == [3] * 5
    assert levels[0][3] == pytest.approx(40)
    assert levels[-1] == [0] * 8


def test_rates_that_drift_are_said_in_a_sentence(browser: Any, tmp_path: Path) -> None:
    # Each of 1000 samples fires at 3 of 3 steps, in one of two neurons: half of what could be, twice the training's.
    publish(tmp_path, toy(), "toy")
    rewrite(tmp_path / "toy" / "1", lambda manifest: manifest["metrics"].update({"firing_rate.out": 0.25}))
    with running(tmp_path) as service, visiting(browser, service.url) as visit:
        visit.settle()
        panel = visit.page.locator("#operator")
        visit.page.get_by_role("tab", name="Operator").click()
        expect(panel).to_contain_text(
            "No layer has drifted. A layer has drifted where its rate is off by more than 25 %"
        )
        httpx.post(f"{service.url}/predict", json={"inputs": [[1, 0]] * 1000}).raise_for_status()
        refresh = panel.get_by_role("button", name="Refresh")
        refresh.click()
        expect(panel).to_contain_text(re.compile(r"^.*out of toy 1 \(\+\d+ %\) has drifted: what is sent is not like"))
        expect(refresh).to_be_focused()


def test_an_operator_loads_a_model_of_the_gallery_and_tries_it(browser: Any, tmp_path: Path) -> None:
    publish(tmp_path, toy(), "toy")
    with running(tmp_path, "--gallery", "true") as service, visiting(browser, service.url) as visit:
        visit.settle()
        visit.page.get_by_role("tab", name="Operator").click()
        visit.page.get_by_role("button", name="Load digits-small").click()
        rows = visit.page.get_by_role("group", name="Models and versions").locator("tbody tr")
        expect(rows.filter(has_text="digits-small")).to_contain_text("95.6 %")
        visit.page.locator("#models").select_option("digits-small")
        visit.page.get_by_role("tab", name="Model card").click()
        expect(visit.page.locator("#card")).to_contain_text(
            "Reads handwritten digits of 8×8 pixels by 16 hidden neurons"
        )
        expect(visit.page.locator("#card")).not_to_contain_text("library_name")


def test_an_operator_sees_versions_traffic_and_firing_rates(visit: Visit, url: str) -> None:
    page = visit.page
    page.get_by_role("tab", name="Operator").click()
    rows = page.get_by_role("group", name="Models and versions").locator("tbody tr")
    expect(rows).to_have_count(sum(len(each["versions"]) for each in httpx.get(f"{url}/models").json()["models"]))
    digits = rows.filter(has_text="digits").filter(has_text=re.compile("default")).last
    cells = digits.locator("td").all_inner_texts()
    assert cells[1:5] == ["2", "ready", "event", "99.7 %"]
    metrics = httpx.get(f"{url}/metrics").text
    requests = re.findall(r'spikeserve_model_requests_total\{model="digits",.*version="2"\} (\S+)', metrics)
    assert int(cells[5].replace(",", "")) == sum(map(float, requests)) > 0
    rates = page.get_by_role("group", name="Firing rates").locator("tbody tr").filter(has_text="braille")
    assert rates.first.locator("td").all_inner_texts()[:4] == ["braille", "1", "neuron1", "2.4 %"]


def test_metrics_are_read_as_they_are_written(modules: Any) -> None:
    # Of 10 requests 5 took at most 0.1 s, and all of them at most 1 s; two workers tell 4 and 6 of them.
    text = "\n".join(
        f'm_bucket{{le="{end}",model="a\\"b",worker="{worker}"}} {count}'
        for worker, counts in (("1", (2, 4, 4)), ("2", (3, 6, 6)))
        for end, count in zip(("0.1", "1.0", "+Inf"), counts, strict=True)
    )
    read = modules.evaluate(
        """async (text) => {
          const { readMetrics, quantile, totalOf } = await import("/page/metrics.js");
          const metrics = readMetrics(text), labels = { model: 'a"b' };
          const quantiles = [0.5, 0.95].map((share) => quantile(metrics, "m", labels, share));
          const total = totalOf(metrics, "m_bucket", { le: "+Inf" });
          return [...quantiles, quantile(metrics, "m", { model: "c" }, 0.5), total];
        }""",
        f"# HELP m of a test\n{text}\n",
    )
    assert read == [0.1, 1, None, 10]


def test_tabs_are_reached_by_arrow_keys(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("tab", name="Try").focus()
    for name in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#tab-{name}")).to_be_focused()
        expect(page.locator(f"#{name}")).to_be_visible()
        expect(page.get_by_role("tabpanel")).to_have_count(1)
    for key, name in {"End": TABS[-1], "Home": TABS[0]}.items():
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{name}")).to_be_focused()


def test_a_live_view_fits_when_a_phone_is_turned(browser: Any, url: str) -> None:
    with visiting(browser, url, viewport={"width": 740, "height": 360}) as visit:
        visit.settle()
        visit.live()
        visit.page.set_viewport_size({"width": 360, "height": 740})
        visit.page.wait_for_function("document.documentElement.scrollWidth === 360")


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 320)])
def test_it_fits_a_phone_and_names_all_that_it_shows(browser: Any, url: str, scheme: str, width: int) -> None:
    with visiting(browser, url, viewport={"width": width, "height": 740}, color_scheme=scheme) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        expect(visit.page.locator("#membranes canvas")).to_be_visible()
        visit.choose("braille")
        for name in TABS:
            tab = visit.page.locator(f"#tab-{name}")
            assert 0 <= tab.bounding_box()["x"] <= width - tab.bounding_box()["width"]  # in sight
            tab.click()
            panel = visit.page.locator(f"#{name}")
            expect(panel.locator("section").first).to_be_visible()
            assert visit.page.evaluate("document.documentElement.scrollWidth") == width
            unnamed = panel.evaluate(
                """(panel) => [...panel.querySelectorAll("canvas[role], input, select, textarea, [role=group]")]
                  .filter((each) => each.checkVisibility())
                  .filter((each) => !(each.getAttribute("aria-label") || each.labels?.[0]?.textContent.trim()))
                  .map((each) => each.outerHTML)"""
            )
            assert unnamed == []


def test_while_models_load_the_page_asks_again_and_long_rasters_are_left_out(browser: Any, repository: Path) -> None:
    flags = ("--max-body-bytes", "1000", "--max-pending-bytes", "1000")
    with running(repository, *flags, ready=0) as service, visiting(browser, service.url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        expect(visit.page.locator("#error")).to_be_empty()
        body = {"inputs": [example(service.url, "toy", 0)], "return": ["spikes_per_node", "raster"], "time_steps": 3}
        sentence = httpx.post(f"{service.url}/predict", json=body).json()["error"]
        expect(visit.page.locator("#rasters")).to_have_text(sentence)
        visit.settle()
        assert visit.counts() == asked(service.url, "toy", {"inputs": body["inputs"]})["spike_counts"]
        visit.page.get_by_role("tab", name="Versions").click()
        expect(visit.page.get_by_role("region", name="Version 1", exact=True)).to_contain_text(
            re.compile(r"may take \d+ bytes, expected at most 1000")
        )
        visit.complaints.clear()  # of each 413, which were meant, and of a 503, where it was early


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
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        expect(field).to_be_hidden()
        expect(fault).to_be_empty()
        visit.live("braille")
        visit.page.get_by_role("button", name="Start").click()  # a WebSocket, which has no header for the key
        expect(visit.page.get_by_role("status")).to_have_text("The session is open.")
        visit.page.reload()
        expect(fault).to_have_text("This server needs a key.")
        visit.complaints.clear()  # a browser complains of each 401, which were meant


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


def test_an_allowed_origins_page_asks_and_streams(browser: Any, elsewhere: str, locked: tuple[Process, str]) -> None:
    service, key = locked
    page = browser.new_page()
    page.goto(f"{elsewhere}/browser.html?server={service.url}#{key}")
    # The first digit is a 7. The letter, an I, is read window by window as docs/streaming.md prints it.
    lines = ["digits: 7", "braille: I", "0.32 s: O", "0.64 s: O", "0.96 s: E", "1.28 s: I", "end"]
    expect(page.locator("#said")).to_have_text("\n".join(lines))
    page.goto("about:blank")
    page.goto(f"{elsewhere}/browser.html?server={service.url}#of-somebody-else")
    expect(page.locator("#said")).to_contain_text("401: the key in the header Authorization is not one that")
    page.close()


def test_a_page_of_an_origin_that_is_not_allowed_reads_nothing(browser: Any, elsewhere: str, url: str) -> None:
    page = browser.new_page()
    page.goto(f"{elsewhere}/browser.html?server={url}")
    expect(page.locator("#said")).to_have_text("Failed to fetch")
    opened = page.evaluate(
        """(url) => new Promise((done) => {
          const socket = new WebSocket(url);
          socket.onopen = () => done(true);
          socket.onclose = () => done(false);
        })""",
        f"{url.replace('http', 'ws')}/models/digits/stream",
    )
    assert opened is False
    page.close()
