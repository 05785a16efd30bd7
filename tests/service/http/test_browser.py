"""The page for people and the API's documentation, used in a real browser by somebody who clicks, draws and types."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.service.keys import new_key
from spikeserve.training.data.audio import AudioToSpikes
from tests.browsers import WAIT, browsing, serving_files
from tests.bundles import publish, rehash, rewrite
from tests.client.test_live_examples import write_wav
from tests.networks import network_of, regression, task, toy
from tests.service.http.recordings import camera, npy
from tests.serving import ROOT, Process, running

expect = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed here: it is of the extra 'clients'"
).expect
pytestmark = pytest.mark.usefixtures("fast_servers")
HTML = "<img src=x onerror=alert(1)>"
CARD = f"# A *b* {HTML}\n\n1. one\n2. `x < y`\n\n- **bold**\n\n| a | b |\n|---|---|\n| {HTML} | [l](javascript:1) |\n"
TABS = ("try", "live", "versions", "card", "operator")
TONE = 1000  # Hz
IF = [{"type": "IF", "name": "out"}]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone plays a tone, to any page that asks."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    write_wav(path, 0.6 * np.sin(2 * np.pi * TONE * np.arange(48_000) / 48_000), 48_000)
    microphone = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={path}")
    with browsing(*microphone, "--use-fake-ui-for-media-stream") as opened:
        yield opened


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server of the shipped models, digits as two versions, and small networks of other kinds."""
    root = tmp_path_factory.mktemp("models") / "repository"
    shutil.copytree(PRETRAINED, root)
    shutil.copytree(root / "digits" / "1", root / "digits" / "2")
    rewrite(root / "digits" / "2", lambda manifest: manifest.update(version=2))
    ranges = {"shape": [2], "low": [-1, 0.5], "high": [1, 30], "out_of_range": "clip"}
    own = Spec.read(toy().spec.model_dump(mode="json") | {"input": ranges, "labels": [HTML, "b"]})
    odd = {"shape": [2], "low": -0.4242129623889923, "high": 2.821486711502075}
    networks = {
        "any": toy(), "raster": toy(Coding.SPIKES), "series": toy(Coding.CURRENT), "late": toy(Coding.LATENCY),
        "drawn": toy(Coding.RATE), "ranges": Network(own, toy().tensors), "values": regression(units=["rad", ""]),
        "odds": regression("probabilities"), "camera": camera(),
        "bands": network_of(IF, {}, **task(8, 10, [f"band {band}" for band in range(8)])),
        "odd": network_of(IF, {}, input=odd, time_steps=2, labels=["a", "b"]),
    }  # fmt: skip
    for name, network in networks.items():
        publish(root, network, name)
    rehash(root / "odd/1", "card.md", CARD.encode())
    with running(root, "--versions", "all", ready=len(list(root.glob("*/*/bundle.json")))) as service:
        yield service.url


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the gallery, whose default model has no examples, and whose other one fires twice as in training."""
    root = tmp_path_factory.mktemp("workshop")
    same = {"shape": [2], "scale": 0, "offset": 1}  # whatever it is sent, so that it has no examples
    publish(root, network_of(IF, {}, input=same, time_steps=2, labels=["a", "b"]), "first")
    publish(root, toy(), "toy")
    rewrite(root / "toy/1", lambda manifest: manifest["metrics"].update({"firing_rate.out": 0.25}))
    with running(root, "--default-model", "first", "--gallery", "true", ready=2) as service:
        yield service.url


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The origin of a web server of the examples. To a browser `localhost` is another site than 127.0.0.1."""

    with serving_files(ROOT / "examples") as port:
        yield f"http://localhost:{port}"


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

    def see(self, *places: tuple[str, Any]) -> None:
        """Wait until each place shows this: a text that it has in it, the texts of all, or how many there are."""
        for place, expected in places:
            there = expect(self.page.locator(place))
            ways = {list: there.to_have_text, int: there.to_have_count}
            ways.get(type(expected), there.to_contain_text)(expected)

    def session(self, model: str = "", button: str = "Start") -> None:
        """Open a session of the chosen model or of another."""
        self.open("Live", model)
        self.press(button)
        expect(self.page.get_by_role("status")).to_have_text("The session is open.")

    def ended(self, what: str | re.Pattern[str] = "") -> None:
        """Wait until a session has ended, after this."""
        expect(self.page.get_by_role("status")).to_contain_text(what or "The session has ended after")

    def press(self, name: str) -> None:
        """Click the button of that name that can be seen."""
        self.page.get_by_role("button", name=name, exact=True).filter(visible=True).click()

    def choose(self, model: str) -> None:
        """Choose a model, and wait until the page shows it."""
        self.page.locator("#models").select_option(model)
        self.settle()

    def open(self, tab: str, model: str = "") -> None:
        """Open a tab, of the chosen model or of another."""
        if model:
            self.choose(model)
        self.page.get_by_role("tab", name=tab).click()

    def type(self, sample: str) -> None:
        """Type a sample and run it."""
        self.page.locator("#typed").evaluate("(typed) => { typed.open = true; }")
        self.page.locator("#json").fill(sample)
        self.page.locator("#run").click()

    def settle(self) -> None:
        """Wait until the page shows all that it asked for."""
        expect(self.page.locator("#answer")).to_have_attribute("aria-busy", "false")

    def ask(self, action: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
        """Do what makes the page ask, and return its first request and the answer's first prediction."""
        with self.page.expect_response(re.compile(r"/predict(\?|$)")) as answer:
            action()
        return answer.value.request, answer.value.json()["predictions"][0]

    def figure(self, title: str) -> Any:
        """Return the figure of the rasters that has this title."""
        return self.page.locator("#rasters figure", has=self.page.get_by_text(title, exact=True))

    def grid(self, canvas: Any, rows: int, columns: int, frame: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Any:
        """Return the colours (rows, columns, 4) in the middle of cells of a canvas, within a frame."""
        colours = canvas.evaluate(
            """(canvas, [rows, columns, [left, top, right, foot]]) => {
              const pen = canvas.getContext("2d"), across = (canvas.width - left - right) / columns;
              const down = (canvas.height - top - foot) / rows;
              const middle = (k) => [left + (k % columns + 0.5) * across, top + (Math.floor(k / columns) + 0.5) * down];
              return Array.from({ length: rows * columns }, (_, k) => [...pen.getImageData(...middle(k), 1, 1).data]);
            }""",
            [rows, columns, frame],
        )
        return np.array(colours).reshape(rows, columns, 4)

    def colours(self, *names: str) -> list[list[int]]:
        """Return colours of the page's theme, as `grid` has them."""
        program = """async (names) => {
          const { theme } = await import("/page/dom.js"), { bytesOf } = await import("/page/raster.js");
          return names.map((name) => [...bytesOf(theme(`--${name}`)), 255]);
        }"""
        return list(self.page.evaluate(program, names))


@contextmanager
def visiting(browser: Any, url: str, **options: Any) -> Iterator[Visit]:
    """Open `url` in a page of its own."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
    context.set_default_timeout(WAIT)
    with going(Visit(context.new_page()), url) as visit:
        yield visit
    context.close()


@contextmanager
def going(visit: Visit, url: str) -> Iterator[Visit]:
    """Open `url`, and see to it in the end that nothing but its server was asked and that no script failed."""
    visit.asked.clear()
    visit.complaints.clear()
    visit.page.goto(url)
    yield visit
    origin = httpx.URL(url).copy_with(path="/")
    assert [asked for asked in visit.asked if not asked.startswith((str(origin), "data:"))] == []
    assert visit.complaints == []


@pytest.fixture(scope="module")
def visitor(browser: Any, url: str) -> Iterator[Visit]:
    """The page that most tests share, one after the other."""
    with visiting(browser, url) as visit:
        yield visit


@pytest.fixture
def visit(visitor: Visit, url: str) -> Iterator[Visit]:
    """A visit of the page, which shows an answer already."""
    with going(visitor, url) as visit:
        expect(visit.page.locator("#facts")).to_contain_text("synaptic operations")
        visit.settle()
        yield visit


def asked(url: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the first prediction of the server's own answer."""
    answer = httpx.post(f"{url}/models/{model}/predict", json=body).json()
    return answer["predictions"][0]


def example(url: str, model: str, index: int) -> Any:
    return httpx.get(f"{url}/models/{model}/examples").json()["inputs"][index]


def significant(number: float) -> str:
    """Return a number as the page rounds it."""
    return f"{float(f'{number:.4g}'):g}"


def texts(numbers: list[int]) -> list[str]:
    return [str(number) for number in numbers]


def test_the_page_opens_on_the_default_models_first_example_and_its_answer(visit: Visit, url: str) -> None:
    prediction = asked(url, "digits", {"inputs": [example(url, "digits", 0)]})
    dense = httpx.get(f"{url}/models/digits").json()["dense_operations"]
    operations, everything = prediction["synaptic_operations"], dense["once"] + 8 * dense["per_step"]
    visit.see(
        ("#label", [prediction["label"]]),
        ("#bars .count", texts(prediction["spike_counts"])),
        ("#error", [""]),
        ("#facts", f"{operations:,} synaptic operations"),
        ("#work", f"{operations:,} synaptic operations, of {everything:,} in a dense"),
        ("#work .count", [f"{100 * operations / everything:.1f} %"]),
    )
    rows = visit.page.get_by_role("group", name="Time").get_by_role("table").locator("tbody tr")
    names = ["decode", "queue", "encode", "run", "render", "all, with the network"]
    expect(rows.locator("td:first-child")).to_have_text(names)
    *parts, whole = [float(text.removesuffix(" ms")) for text in rows.locator("td:last-child").all_inner_texts()]
    assert 0 < sum(parts) <= whole + 0.05  # each is rounded to 0.01 ms


class Kind(NamedTuple):
    """A model, the time steps that are asked for where it takes others than its own, and what its sessions are like."""

    model: str
    steps: int | None
    listens: bool
    fields: dict[str, str] = {}  # of its session  # noqa: RUF012
    end: str = ""  # of a session of an example, where there is one, with its number of events in it
    time: str = ""  # of the last window


EVENTS = "windows and {} events; 0 came too late."
KINDS = [
    Kind("braille", None, True, {"Step, µs": "1000", "Steps a window": "64"}, f"4 {EVENTS}", "0.26 s"),
    Kind("camera", None, False, {}, f"3 {EVENTS}", "0.03 s"),
    Kind("raster", None, True, {"Step, µs": "10000"}, f"3 {EVENTS}", "0.03 s"),
    Kind("series", None, True, {"Steps a window": "2", "Windows a second": "50"}, "2 windows and 3 steps.", "3"),
    *(Kind("digits", 8, False), Kind("any", 3, True), Kind("ranges", 3, True), Kind("drawn", 3, True)),
    Kind("late", 3, False),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.model)
def test_each_kind_of_model_answers_an_example_and_streams_it_to_the_same_answer(
    visit: Visit, url: str, kind: Kind
) -> None:
    page, sample = visit.page, example(url, kind.model, 2)
    visit.choose(kind.model)
    third = page.get_by_role("button", name="Example 3", exact=True)
    request, prediction = visit.ask(third.click)
    body = request.post_data_json
    assert (body["inputs"], body.get("time_steps")) == ([sample], kind.steps)
    expect(page.locator("#steps")).to_be_visible(visible=kind.steps is not None)
    expect(third).to_have_attribute("aria-pressed", "true")
    label = prediction["label"] if any(prediction["spikes_per_node"].values()) else "–"
    visit.see(("#label", [label]))
    visit.open("Live")
    assert page.get_by_role("button", name="Listen").is_visible() is kind.listens
    if kind.end:
        for name, text in kind.fields.items():
            page.get_by_label(name).fill(text)
        page.locator("#live").get_by_label("Example").select_option("3")
        visit.press("Stream it")
        events, windows = len(sample["t"]) if isinstance(sample, dict) else "", int(kind.end[0])
        visit.ended(f"The session has ended after {kind.end.format(events)}")
        visit.see(("#live .answer-of", [label]), ("#live tbody tr", windows))
        assert page.locator("#live tbody tr").first.locator("td").all_inner_texts()[:2] == [str(windows - 1), kind.time]
        if kind.model != "braille":  # which is read by its membranes
            visit.see(("#live .count", texts(prediction["spike_counts"])))


def draw_a_dot(visit: Visit) -> None:
    visit.press("Clear")
    visit.page.locator("#pad").click()


def draw_by_keyboard(visit: Visit) -> None:
    visit.press("Clear")
    visit.page.locator("#pad").focus()
    for key in ("ArrowDown", "ArrowRight", "Space"):
        visit.page.keyboard.press(key)


def open_file(visit: Visit, name: str, content: bytes, kind: str = "") -> None:
    visit.page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def open_image(visit: Visit) -> None:
    # Black ink on white paper, 8 × 8 squares of 10 × 10 pixels, whose column 4 is ink.
    paper, content = np.full((80, 80), 255, np.uint8), BytesIO()
    paper[10:70, 40:50] = 0
    Image.fromarray(paper).save(content, "PNG")
    open_file(visit, "one.png", content.getvalue(), "image/png")


def drop_array(visit: Visit) -> None:
    visit.page.evaluate(
        """(bytes) => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([new Uint8Array(bytes)], "three.npy"));
          const event = new DragEvent("drop", { dataTransfer: dropped, bubbles: true });
          document.getElementById("drop").dispatchEvent(event);
        }""",
        list(npy(SPIKES)),
    )


def square(rows: slice | int, columns: slice | int, ink: float) -> np.ndarray[Any, Any]:
    image = np.zeros((1, 8, 8))
    image[0, rows, columns] = ink
    return image


SPIKES = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
# A dot in the middle of 8 × 8 pixels, of radius 1.1, is √0.5 from the middle of the four around it, and so has
# 1.25 × (1 − √0.5 / 1.1) = 0.4465 of the ink there: 7.14 of the 16 that this model takes.
WAYS: dict[str, tuple[str, Callable[[Visit], None], np.ndarray[Any, Any], float]] = {
    "a pointer": ("digits", draw_a_dot, square(slice(3, 5), slice(3, 5), 7.14), 0.1),
    "a keyboard": ("digits", draw_by_keyboard, square(1, 1, 16), 0),
    "an image": ("digits", open_image, square(slice(1, 7), 4, 16), 4),
    "an array": ("digits", lambda visit: open_file(visit, "two.npy", npy(square(2, 5, 9))), square(2, 5, 9), 0),
    "a drop": ("raster", drop_array, SPIKES, 0),
    "typing": ("any", lambda visit: visit.type("[0, 1]"), np.array([0, 1]), 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_drawn_opened_dropped_or_typed_is_asked_and_its_answer_shown(visit: Visit, url: str, way: str) -> None:
    model, act, expected, near = WAYS[way]
    visit.choose(model)
    request, prediction = visit.ask(lambda: act(visit))
    if request.headers["content-type"] == "application/x-npy":  # whose bytes the browser does not show
        prediction = asked(url, model, {"inputs": [expected.tolist()]})
    else:
        sample = np.array(request.post_data_json["inputs"][0])
        np.testing.assert_allclose(sample.reshape(expected.shape), expected, rtol=0, atol=near)
    visit.see(("#bars .count", texts(prediction["spike_counts"])))


def test_a_slider_has_the_time_steps_and_what_is_wiped_or_refused_leaves_no_answer(visit: Visit) -> None:
    request, _ = visit.ask(lambda: visit.page.locator("#steps").fill("3"))
    assert request.post_data_json["time_steps"] == 3
    visit.see(("#steps-text", ["3 time steps"]), ("#try .time output", ["step 2 (0 to 2)"]))
    open_file(visit, "three.events", bytes(24))  # as many as three events are, for a model of values
    # The answer to another input is not left there.
    visit.see(("#error", "the body is event records, but model 'digits' does not"), ("#label", ["–"]))
    visit.press("Example 2")
    visit.see(("#error", [""]))
    visit.press("Clear")
    visit.see(("#label", ["–"]), ("#facts", ["Draw something."]), ("#rasters", ["There is no answer yet."]))
    visit.complaints.clear()  # of the status, which was meant


def choose_neuron(visit: Visit, neurons: str) -> None:
    visit.page.locator("#membrane-layer").select_option("neuron5")
    visit.page.locator("#membrane-neurons").fill(neurons)
    visit.page.locator("#membrane-neurons").press("Enter")


def session(button: str, step: str = "", microphone: str = "") -> Callable[[Visit], None]:
    """Return an action that opens a session with a step of so many µs; `microphone` is the error that a browser has."""

    def act(visit: Visit) -> None:
        program = """(name) => {
          navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("busy", name); };
        }"""
        if microphone:
            visit.page.evaluate(program, microphone)
        visit.open("Live")
        if step:
            visit.page.get_by_label("Step, µs").fill(step)
        visit.press(button)

    return act


def typed(sample: str) -> Callable[[Visit], None]:
    return lambda visit: visit.type(sample)


def refused(sentence: str) -> list[tuple[str, Any]]:
    return [("#error", sentence)]


def bars(headline: str, names: list[str], numbers: list[str], best: int) -> list[tuple[str, Any]]:
    return [("#label", [headline]), ("#bars .name", names), ("#bars .count", numbers), ("#bars .best", best)]


# A model, what somebody does, and what the page then says where.
SAID: list[tuple[str, Callable[[Visit], None], list[tuple[str, Any]]]] = [
    ("any", typed("[0, 1, 2]"), refused("inputs[0] has shape 3, expected 2")),
    ("any", typed("[0, 1"), refused("The sample is not JSON")),
    ("braille", session("Start", "0"), refused("step_us")),
    ("braille", session("Listen", "100"), refused("To listen, a step must last 2000 µs or more, it lasts 100 µs.")),
    ("any", session("Listen", "", "NotAllowedError"), refused("The microphone was not allowed.")),
    ("any", session("Listen", "", "NotFoundError"), refused("There is no microphone.")),
    ("any", session("Listen", "", "NotReadableError"), refused("The microphone could not be opened: busy")),
    ("digits", lambda visit: choose_neuron(visit, "64"), [("#membranes", "A neuron is 64, expected a whole number")]),
    ("late", lambda visit: visit.open("Live"), [("#live", "late has no sessions: its coding is latency")]),
    # A Linear that passes both on and takes 1 from the second.
    ("values", typed("[0.123456, 3]"), bars("2 values", ["angle", "speed"], ["0.1235 rad", "2"], 0)),
    ("odds", typed("[0.25, 1.75]"), bars("speed", ["angle", "speed"], ["25.0 %", "75.0 %"], 1)),
    ("ranges", typed("[1, 30]"), [*bars(HTML, [HTML, "b"], ["3", "3"], 1), ("main img", 0)]),
]


@pytest.mark.parametrize(("model", "act", "said"), SAID, ids=[f"{row[0]}, {row[2][0][1]}"[:40] for row in SAID])
def test_what_is_wrong_is_said_in_a_sentence_and_an_answer_as_counts_values_or_probabilities_never_as_html(
    visit: Visit, model: str, act: Callable[[Visit], None], said: list[tuple[str, Any]]
) -> None:
    visit.choose(model)
    act(visit)
    visit.see(*said)
    visit.complaints.clear()  # of a 422, which was meant


def test_numbers_are_rounded_for_people_and_a_sample_keeps_its_bits(visit: Visit, url: str) -> None:
    visit.choose("odd")
    visit.see(("#asked", "A sample of shape 2, from -0.4242 to 2.821."))
    written = visit.page.locator("#json").input_value()
    np.testing.assert_array_equal(np.float32(json.loads(written)), np.float32(example(url, "odd", 0)))
    assert max(len(number) for number in re.findall(r"[\d.]+", written)) < 10


def test_rasters_show_each_spike_and_one_cursor_moves_all_plots_without_drawing_them_again(
    visit: Visit, url: str
) -> None:
    page = visit.page
    spikes = asked(url, "digits", {"inputs": [example(url, "digits", 0)], "return": ["raster"]})["raster"]
    (output,) = [visit.figure("output").locator("canvas")]
    paper, *_ = visit.colours("paper")
    marks = (visit.grid(output, 10, 8, (58, 6, 10, 34)) != paper).any(axis=2)  # inside the plot's margins
    assert {(t, unit) for unit, t in np.argwhere(marks)} == {*zip(*spikes["output"].values(), strict=True)} != set()
    total = len(spikes["output"]["t"])
    expect(output).to_have_attribute("aria-label", re.compile(f"^Raster of output: 10 neurons over 8 steps; {total} s"))

    visit.see(("#try .time output", ["step 7 (0 to 7)"]))
    page.locator("#try .time input").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    visit.see(("#try .time output", ["step 4 (0 to 7)"]))
    at_4 = {layer: each["t"].count(4) for layer, each in spikes.items()}
    spoken = re.compile(f"step 4 .* {sum(at_4.values())} spikes in all layers")
    expect(page.locator("#try .time input")).to_have_attribute("aria-valuetext", spoken)
    for layer, count in at_4.items():
        figure = visit.figure(layer)
        expect(figure.locator("figcaption")).to_contain_text(re.compile(f"; {count} spikes? at step 4"))
        x = figure.locator(".mark").evaluate("(mark) => new DOMMatrix(mark.style.transform).e")
        width = figure.locator(".plot").evaluate("(plot) => plot.clientWidth")
        assert x == pytest.approx(58 + 4 * (width - 68) / 8, abs=0.5)  # between the margins of 58 and 10 pixels
    maps = visit.figure("neuron1").locator("canvas.maps")
    upto_4 = sum(step <= 4 for step in spikes["neuron1"]["t"])
    expect(maps).to_have_attribute("aria-label", re.compile(f"{at_4['neuron1']} spikes at step 4, {upto_4:,} up to it"))
    visit.press("Play")
    visit.see(("#try .time output", ["step 7 (0 to 7)"]), ("#try .time button", ["Play"]))

    visit.choose("braille")  # which has no maps: of it only marks move
    page.evaluate(
        """() => {
          window.calls = 0;
          const pen = CanvasRenderingContext2D.prototype;
          for (const name of ["drawImage", "putImageData", "fillRect", "stroke", "fillText"]) {
            const own = pen[name];
            pen[name] = function (...values) { window.calls += 1; return own.apply(this, values); };
          }
        }"""
    )
    for step in (100, 200):
        page.locator("#try .time input").fill(str(step))
        expect(visit.figure("input").locator("figcaption")).to_contain_text(f"at step {step}")
    assert page.evaluate("window.calls") == 0


def test_the_race_says_when_the_answer_was_decided_and_ends_at_what_is_read_out(visit: Visit, url: str) -> None:
    race = visit.page.locator("#race")
    body = {"inputs": [example(url, "digits", 0)]}
    used = {rule: asked(url, "digits", body | {"stop": rule})["steps_used"] for rule in ("decided", "confident")}
    assert used["decided"] < 8  # or there would be no mark to speak of
    visit.see(("#race", f"Decided after {used['decided']} of 8 steps"))
    visit.see(("#race", f"it ends after {used['confident']} of 8 steps"))
    best = asked(url, "digits", body)
    first = f"{best['label']} has {max(best['spike_counts'])}"
    expect(race.locator("canvas")).to_have_attribute("aria-label", re.compile(f"At the end: {first}, "))
    expect(race.locator("figcaption").first).to_contain_text(f"after step 7: {first}")
    visit.choose("braille")
    best = asked(url, "braille", {"inputs": [example(url, "braille", 0)], "return": ["membrane"]})
    mean = significant(np.mean(best["membrane"]["output"], axis=0).max())
    expect(race.locator("figcaption").first).to_contain_text(f"after step 255: {best['label']} has {mean}, ")
    label = re.compile("Raster of input: 12 inputs over 256 steps; 659 spikes")
    expect(visit.figure("input").locator("canvas")).to_have_attribute("aria-label", label)


def test_membranes_of_chosen_neurons_are_drawn_with_their_threshold(visit: Visit, url: str) -> None:
    membranes = visit.page.locator("#membranes")
    body = {"inputs": [example(url, "digits", 0)], "return": ["membrane"]}
    values = asked(url, "digits", body)["membrane"]["neuron5"]
    choose_neuron(visit, "3, 60")
    last = ", ".join(significant(values[7][neuron]) for neuron in (3, 60))
    expect(membranes.locator("figcaption").first).to_contain_text(f"after step 7: {last}")
    expect(membranes.locator("canvas")).to_have_attribute(
        "aria-label", re.compile("^Membranes of neuron5 .*: neuron 3 from .*, threshold 1; neuron 60 from")
    )
    visit.figure("output").locator(".plot").dblclick(position={"x": 100, "y": 7})  # in the first of ten rows
    expect(membranes.locator("canvas")).to_have_attribute("aria-label", re.compile("Membranes of output .* neuron 0 "))


def some_events(page: Any) -> Any:
    """Return the first line of a session's windows that has events."""
    return page.locator("#live tbody tr td:nth-child(3)").filter(has_text=re.compile("[1-9]")).first


def test_the_pointer_and_the_keyboard_make_events_of_a_session(visit: Visit) -> None:
    page, board = visit.page, visit.page.locator(".board canvas")
    visit.session("braille")
    board.hover(position={"x": 20, "y": 100})
    page.mouse.down()
    expect(some_events(page)).to_be_visible()
    page.mouse.up()
    board.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    visit.press("Stop")
    visit.ended()
    # A camera's model has an IF for each pixel and polarity, and so counts the events of each.
    visit.session("camera")
    box = board.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.5)  # column 4 of 10, row 6 of 12
    page.mouse.down()
    # What was at 0, 0 becomes darker, and what is at 4, 6 brighter, each with the pixels around.
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    visit.ended("windows and 13 events; 0 came too late.")
    off = {row * 10 + column for row in (0, 1) for column in (0, 1)}
    on = {120 + row * 10 + column for row in (5, 6, 7) for column in (3, 4, 5)}
    visit.see(("#live .count", [str(int(unit in off | on)) for unit in range(240)]))


def test_a_cameras_events_are_a_picture_up_to_the_cursor_and_of_a_session(visit: Visit, url: str) -> None:
    page, picture = visit.page, visit.page.locator("#picture")
    visit.choose("camera")
    t, unit = (np.array(each) for each in example(url, "camera", 0).values())
    darker, brighter, paper = visit.colours("darker", "brighter", "paper")
    for step in (2, 0):  # of three; it begins at the last
        if step == 0:
            page.locator("#try .time input").press("Home")
        kinds = np.isin(np.arange(240), unit[t <= step])
        label = f"12 × 10 pixels, brighter and darker in two colours: {sum(t <= step)} of {len(t)} events"
        expect(picture).to_have_attribute("aria-label", f"What the events have drawn up to the cursor, {label}")
        both = kinds[:120] + 2 * kinds[120:]
        colours = visit.grid(picture, 12, 10).reshape(120, 4)
        np.testing.assert_array_equal(colours[:, 3] == 0, both == 0)
        for kind, colour in ((1, darker), (2, brighter)):
            np.testing.assert_array_equal(np.abs(colours - colour)[:, :3].max(axis=1) < 4, both == kind)
    assert {*both} == {0, 1, 2, 3}  # or it would say little
    visit.open("Live")
    visit.press("Stream it")
    visit.ended("The session has ended after 3 windows")
    board = visit.grid(page.locator(".board canvas"), 12, 10).reshape(120, 4)
    assert {*np.flatnonzero((board != paper).any(axis=1))} == {*unit % 120} | {0}  # where the pointer is


def test_a_session_is_reset_and_its_scores_are_chosen_while_it_runs(visit: Visit, url: str) -> None:
    page = visit.page
    opened: list[str] = []
    page.on("websocket", lambda socket: opened.append(socket.url))
    visit.open("Live")
    first, best = page.locator("#live tbody tr").last.locator("td").first, "#live .item.best .count"
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()
    page.get_by_label("Scores").select_option("total")
    visit.press("Start")
    # A window of 8 steps has at most 8 spikes of a class: more are those of two windows and all before.
    visit.see((best, re.compile("^(9|[1-9][0-9]+)$")))
    expect(first).not_to_have_text("0")  # of the eight lines that are shown
    visit.press("Reset")
    expect(first).to_have_text("0")
    page.get_by_label("Scores").select_option("window")
    expect(first).to_have_text("0")
    # Each window is what a request is: the example that is shown, from rest.
    label = asked(url, "digits", {"inputs": [example(url, "digits", 0)]})["label"]
    visit.see((best, re.compile("^[1-8]$")), ("#live .answer-of", [label]))
    visit.press("Stop")
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()
    assert [url.rpartition("scores=")[2] for url in opened] == ["total", "total", "window"]


def key_presses(*keys: str) -> Callable[[Visit], None]:
    def act(visit: Visit) -> None:
        visit.page.locator(".board canvas").focus()
        for key in keys:
            visit.page.keyboard.press(key)

    return act


def show_the_second_example(visit: Visit) -> None:
    visit.page.locator("#live").get_by_label("Example").select_option("2")
    visit.press("Show it")


def click_the_second_level(visit: Visit) -> None:
    board = visit.page.locator(".board canvas")
    board.click(position={"x": 3 * board.bounding_box()["width"] / 4, "y": 40})


# What somebody does in a session of a model, and the values of a window that are sent then.
VALUES: dict[str, list[tuple[Callable[[Visit], None], Callable[[str], Any]]]] = {
    "digits": [
        (lambda _: None, lambda url: example(url, "digits", 0)),
        (lambda visit: visit.press("Clear"), lambda _: [0] * 64),
        (key_presses("ArrowRight", "Space"), lambda _: [0, 16, *[0] * 62]),  # ink is 16
        (show_the_second_example, lambda url: example(url, "digits", 1)),
    ],
    "ranges": [  # from -1 to 1, and 0.5 to 30
        (lambda visit: visit.press("Clear"), lambda _: [0, 0.5]),  # 0, or what is nearest
        (key_presses("ArrowLeft"), lambda _: [-0.2, 0.5]),  # a tenth of its range of 2
        (click_the_second_level, lambda _: [-0.2, 22.625]),  # 0.5 + 0.75 × 29.5
    ],
}


@pytest.mark.parametrize("model", VALUES)
def test_what_is_drawn_is_streamed_as_values_window_after_window(visit: Visit, url: str, model: str) -> None:
    page = visit.page
    visit.open("Live", model)
    page.get_by_label("Windows a second").fill("10")
    with page.expect_websocket() as socket:
        visit.press("Start")
    for act, values in VALUES[model]:
        expected = np.ravel(values(url))

        def are_sent(payload: bytes | str, expected: np.ndarray[Any, Any] = expected) -> bool:
            last = np.frombuffer(payload, "<f4")[-len(expected) :] if isinstance(payload, bytes) else [np.nan]
            return np.allclose(last, expected, atol=1e-3)

        with socket.value.expect_event("framesent", are_sent):
            act(visit)
    visit.press("Stop")
    visit.ended(re.compile(r"has ended after (\d+) windows and \d+ steps\.$"))


def test_a_microphones_bands_are_the_values_or_the_events_of_a_session(visit: Visit) -> None:
    page = visit.page
    # Of 8 bands from 80 to 4000 Hz, 122 to 2146 mel, the middles lie 2024 / 9 = 225 mel apart. 1000 Hz are 1000 mel,
    # (1000 - 122) / 225 = 3.9: next to the fourth middle.
    visit.session("bands", "Listen")
    bands = "8 mel bands are taken from the sound, 80 to 4,000 Hz: each input"
    visit.see(("#live", bands), ("#live .answer-of", ["band 3"]))
    visit.press("Stop")
    visit.ended()
    visit.session("braille", "Listen")
    visit.see(("#live", "inputs 0 to 5 spike where one rises by 4 dB"))
    # The tone begins once: its bands rise, and nothing falls as long as it lasts.
    expect(some_events(page)).to_be_visible()
    visit.open("Try")  # which ends the session


def test_the_levels_of_sound_are_those_that_training_computes(visit: Visit) -> None:
    # Noise that becomes quieter: its first frame is the loudest, to which training's levels are relative too.
    rate, encoding = 16_000, AudioToSpikes()
    sound = np.random.default_rng(0).normal(size=8000) * np.exp(-np.arange(8000) / 2000) * 0.3
    expected = encoding.levels(sound, rate)
    levels, spikes = visit.page.evaluate(
        """async ([sound, rate]) => {
          const { Bands, crossings } = await import("/page/bands.js");
          const bands = new Bands(40, rate, 0.01), cross = crossings(40), levels = [];
          for (let k = 0; k < sound.length; k += 1024) levels.push(...bands.push(sound.slice(k, k + 1024)));
          return [levels, levels.map(cross)];
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
    visit.open("Versions")
    body = {"inputs": [example(url, "digits", 0)], "return": ["raster"]}
    at_5 = []
    for version in (1, 2):
        answer = httpx.post(f"{url}/models/digits/versions/{version}/predict", json=body).json()["predictions"][0]
        side = page.get_by_role("region", name=f"Version {version}", exact=True)
        expect(side.locator(".answer-of")).to_have_text(answer["label"])
        expect(side.locator(".plot canvas")).to_have_count(1 + 4)  # the race, and each layer
        at_5.append(sum(each["t"].count(5) for each in answer["raster"].values()))
    more = "Both give the same answer. Version 2 takes 100.0 % of the synaptic operations of version 1."
    visit.see((".difference", [more]))
    slider = page.locator("#versions").get_by_role("slider", name="Time step")
    slider.fill("5")
    spoken = re.compile(f"^step 5 .* {at_5[1]} spikes in version 2, {at_5[0]} spikes in version 1$")
    expect(slider).to_have_attribute("aria-valuetext", spoken)


def test_the_model_card_is_rendered_without_ever_being_html(visit: Visit) -> None:
    card = visit.page.locator("#card .prose")
    visit.open("Model card")
    expect(card.get_by_role("heading", name="Firing rates")).to_be_visible()
    expect(card.get_by_role("cell", name="12.05%")).to_be_visible()
    expect(visit.page.get_by_role("group", name="Layers").get_by_role("row")).to_have_count(12)  # and the head
    visit.open("Model card", "odd")
    expect(card).to_contain_text("[l](javascript:1)")
    tags = card.evaluate("(card) => [...card.querySelectorAll('*')].map(({ tagName }) => tagName.toLowerCase())")
    structure = "h2 em ol ul li code strong div table thead tbody tr th td"
    assert {*tags} == {*structure.split()}
    assert card.evaluate("(card) => card.textContent") == f"Model cardA b {HTML}onex < yboldab{HTML}[l](javascript:1)"


def test_it_opens_on_a_model_that_can_be_clicked_and_says_which_rates_drift(browser: Any, workshop: str) -> None:
    # Each of 1000 samples fires at 3 of 3 steps, in one of two neurons: half of what could be, twice the training's.
    with visiting(browser, workshop) as visit:
        visit.see(("#facts", "synaptic operations"))
        expect(visit.page.locator("#models")).to_have_value("toy")
        expect(visit.page.get_by_role("button", name="Example 1")).to_have_attribute("aria-pressed", "true")
        visit.open("Operator")
        rule = "No layer has drifted. A layer has drifted where its rate is off by more than 25 %"
        visit.see(("#operator", rule))
        httpx.post(f"{workshop}/models/toy/predict", json={"inputs": [[1, 0]] * 1000}).raise_for_status()
        visit.press("Refresh")
        visit.see(("#operator", re.compile(r"^.*out of toy 1 \(\+\d+ %\) has drifted: what is sent is not like")))
        expect(visit.page.locator("#operator").get_by_role("button", name="Refresh")).to_be_focused()


def test_an_operator_loads_a_model_of_the_gallery_and_tries_it(browser: Any, workshop: str) -> None:
    with visiting(browser, workshop) as visit:
        visit.settle()
        visit.open("Operator")
        visit.press("Load digits-small")
        rows = visit.page.get_by_role("group", name="Models and versions").locator("tbody tr")
        expect(rows.filter(has_text="digits-small")).to_contain_text("95.6 %")
        visit.page.locator("#models").select_option("digits-small")
        visit.open("Model card")
        visit.see(("#card", "Reads handwritten digits of 8×8 pixels by 16 hidden neurons"))
        expect(visit.page.locator("#card")).not_to_contain_text("library_name")


def test_an_operator_sees_versions_traffic_and_firing_rates(visit: Visit, url: str) -> None:
    page = visit.page
    visit.open("Operator")
    rows = page.get_by_role("group", name="Models and versions").locator("tbody tr")
    expect(rows).to_have_count(sum(len(each["versions"]) for each in httpx.get(f"{url}/models").json()["models"]))
    digits = rows.filter(has_text="digits").filter(has_text=re.compile("default")).last
    cells = digits.locator("td").all_inner_texts()
    assert cells[1:5] == ["2", "ready", "reference", "99.7 %"]
    of_digits = r'\{model="digits",(?:le="([^"]*)",)?.*version="2"\} (\S+)'
    metrics = httpx.get(f"{url}/metrics").text
    total = sum(float(count) for _, count in re.findall(rf"spikeserve_model_requests_total{of_digits}", metrics))
    assert int(cells[5].replace(",", "")) == total > 0
    bucket = r'spikeserve_model_request_seconds_bucket\{le="([^"]*)",model="digits",version="2"\} (\S+)'
    buckets = re.findall(bucket, metrics)
    for share, cell in ((0.5, cells[8]), (0.95, cells[9])):  # the end of the bucket that reaches so many requests
        end = next(float(end) for end, count in buckets if float(count) >= share * total)
        assert float(cell.split()[0]) == pytest.approx(1000 * end if cell.endswith(" ms") else end)
    rates = page.get_by_role("group", name="Firing rates").locator("tbody tr").filter(has_text="braille")
    assert rates.first.locator("td").all_inner_texts()[:4] == ["braille", "1", "neuron1", "2.4 %"]


def test_tabs_are_reached_by_arrow_keys(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("tab", name="Try").focus()
    keys = [*(("ArrowRight", name) for name in (*TABS[1:], TABS[0])), ("End", TABS[-1]), ("Home", TABS[0])]
    for key, name in keys:
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{name}")).to_be_focused()
        expect(page.locator(f"#{name}")).to_be_visible()
        expect(page.get_by_role("tabpanel")).to_have_count(1)


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 320)])
def test_it_fits_a_phone_and_names_all_that_it_shows(browser: Any, url: str, scheme: str, width: int) -> None:
    with visiting(browser, url, viewport={"width": width, "height": 740}, color_scheme=scheme) as visit:
        visit.see(("#facts", "synaptic operations"))
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
        visit.page.set_viewport_size({"width": 740, "height": 360})  # which is turned, and turned back
        visit.open("Live")
        visit.page.set_viewport_size({"width": width, "height": 740})
        visit.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width


def test_while_models_load_the_page_asks_again_and_long_rasters_are_left_out(browser: Any, repository: Path) -> None:
    flags = ("--max-body-bytes", "1000", "--max-pending-bytes", "1000")
    with running(repository, *flags, ready=0) as service, visiting(browser, service.url) as visit:
        visit.see(("#facts", "synaptic operations"), ("#error", [""]))
        body = {"inputs": [example(service.url, "toy", 0)], "return": ["spikes_per_node", "raster"], "time_steps": 3}
        sentence = httpx.post(f"{service.url}/predict", json=body).json()["error"]
        counts = asked(service.url, "toy", {"inputs": body["inputs"]})["spike_counts"]
        visit.see(("#rasters", [sentence]), ("#bars .count", texts(counts)))
        visit.open("Versions")
        refused = re.compile(r"may take \d+ bytes, expected at most 1000")
        expect(visit.page.get_by_role("region", name="Version 1", exact=True)).to_contain_text(refused)
        visit.complaints.clear()  # of each 413, which were meant, and of a 503, where it was early


def test_where_keys_are_set_the_page_asks_for_one_and_forgets_it(browser: Any, locked: tuple[Process, str]) -> None:
    service, key = locked
    with visiting(browser, service.url) as visit:
        needs, field = ("#error", ["This server needs a key."]), visit.page.locator("#key")
        visit.see(needs)
        expect(visit.page.get_by_role("link")).to_have_text(["API"])  # a browser would open the others without the key
        field.fill("guessed")
        field.press("Enter")
        visit.see(("#error", "is not one that this server knows"))
        field.fill(key)
        field.press("Enter")
        visit.see(("#facts", "synaptic operations"), ("#error", [""]))
        expect(field).to_be_hidden()
        visit.session("braille")  # a WebSocket, which has no header for the key
        visit.page.reload()
        visit.see(needs)
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
