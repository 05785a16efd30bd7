"""The page for people and the API's documentation, used in a real browser by somebody who clicks, draws and types."""

import json
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.spec import Coding
from spikeserve.service.keys import new_key
from spikeserve.training.data.audio import AudioToSpikes
from tests.browsers import WAIT, browsing, playwright, serving_files
from tests.bundles import publish, rehash, rewrite
from tests.client.test_live_examples import write_wav
from tests.networks import network_of, regression, task, toy
from tests.service.http.recordings import camera, npy
from tests.serving import ROOT, Process, running

expect = playwright().expect
pytestmark = pytest.mark.usefixtures("fast_servers")
HTML = "<img src=x onerror=alert(1)>"
CARD = f"# A *b* {HTML}\n\n1. one\n2. `x < y`\n\n- **bold**\n\n| a | b |\n|---|---|\n| {HTML} | [l](javascript:1) |\n"
TABS = ("try", "live", "versions", "card", "operator")
SETTLED = ("#answer@aria-busy", "false")  # once the page shows all that it asked for
IF = [{"type": "IF", "name": "out"}]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone plays a tone of 1000 Hz, to any page that asks."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    write_wav(path, 0.6 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000), 48_000)
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
    odd = {"shape": [2], "low": -0.4242129623889923, "high": 2.821486711502075}
    networks = {
        "any": toy(), "raster": toy(Coding.SPIKES), "series": toy(Coding.CURRENT), "late": toy(Coding.LATENCY),
        "drawn": toy(Coding.RATE), "values": regression(units=["rad", ""]),
        "ranges": network_of(IF, {}, input=ranges, time_steps=3, labels=[HTML, "b"]),
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
def locked() -> Iterator[tuple[Process, str, str]]:
    """A server of the models that ship that asks for a key, the key, and the origin of the examples, which may ask it.

    To a browser `localhost` is another site than 127.0.0.1.
    """
    key, digest = new_key()
    with serving_files(ROOT / "examples") as port:
        elsewhere = f"http://localhost:{port}"
        with running(PRETRAINED, "--api-keys", digest, "--allowed-origins", elsewhere, ready=2) as service:
            yield service, key, elsewhere


class Visit:
    """A browser's page, and what it asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.extend([said.text] * (said.type == "error")))

    def see(self, *places: tuple[str, Any]) -> None:
        """Wait until each place shows this: a text that it has in it, the texts of all, or how many there are.

        A place may be an attribute, `place@attribute`.
        """
        for place, expected in places:
            place, _, attribute = place.partition("@")
            there = expect(self.page.locator(place))
            if attribute:
                there.to_have_attribute(attribute, expected)
            elif isinstance(expected, list):
                there.to_have_text([str(each) for each in expected])
            else:
                (there.to_have_count if isinstance(expected, int) else there.to_contain_text)(expected)

    def session(self, model: str = "") -> None:
        """Open a session of the chosen model or of another."""
        self.open("Live", model)
        self.press("Start")
        self.see(("[role=status]", ["The session is open."]))

    def press(self, name: str) -> None:
        """Click the button of that name that can be seen."""
        self.page.get_by_role("button", name=name, exact=True).filter(visible=True).click()

    def choose(self, model: str) -> None:
        """Choose a model, and wait until the page shows it."""
        self.page.locator("#models").select_option(model)
        self.see(SETTLED)

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

    def keys(self, place: str, *names: str) -> None:
        """Press keys, one after the other."""
        for name in names:
            self.page.locator(place).press(name)

    def take(self, example: str, button: str) -> None:
        """Take an example in the tab of sessions, by this button."""
        self.page.locator("#live").get_by_label("Example").select_option(example)
        self.press(button)

    def ask(self, action: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
        """Do what makes the page ask, and return its first request and the answer's first prediction."""
        with self.page.expect_response(re.compile(r"/predict(\?|$)")) as answer:
            action()
        return answer.value.request, answer.value.json()["predictions"][0]

    def grid(self, canvas: Any, rows: int, columns: int, frame: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Any:
        """Return the colours (rows, columns, 4) in the middle of cells of a canvas, within a frame."""
        png = b64decode(canvas.evaluate("(canvas) => canvas.toDataURL().split(',')[1]"))
        left, top, right, foot = frame
        picture = np.array(Image.open(BytesIO(png)).convert("RGBA"), int)
        inside = picture[top : len(picture) - foot, left : picture.shape[1] - right]
        down = ((np.arange(rows) + 0.5) * inside.shape[0] / rows).astype(int)
        across = ((np.arange(columns) + 0.5) * inside.shape[1] / columns).astype(int)
        return inside[np.ix_(down, across)]

    def colours(self, *names: str) -> list[list[int]]:
        """Return colours of the page's theme, as `grid` has them."""
        theme = "(name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()"
        return [[*bytes.fromhex(self.page.evaluate(theme, name)[1:]), 255] for name in names]


@contextmanager
def visiting(browser: Any, url: str, **options: Any) -> Iterator[Visit]:
    """Open `url` in a page of its own, of which in the end no other server was asked and no script failed."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
    context.set_default_timeout(WAIT)
    visit = Visit(context.new_page())
    visit.page.goto(url)
    yield visit
    origin = str(httpx.URL(url).copy_with(path="/"))
    assert [asked for asked in visit.asked if not asked.startswith((origin, "data:"))] == []
    assert visit.complaints == []
    context.close()


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Visit]:
    """A visit of the page, which shows an answer already."""
    with visiting(browser, url) as visit:
        visit.see(("#facts", "synaptic operations"), SETTLED)
        yield visit


def asked(url: str, model: str, **options: Any) -> dict[str, Any]:
    """Return the server's own first prediction, for the model's first example unless `inputs` are given."""
    body = {"inputs": [example(url, model.split("/")[0], 0)]} | options
    return httpx.post(f"{url}/models/{model}/predict", json=body).json()["predictions"][0]


def example(url: str, model: str, index: int) -> Any:
    return httpx.get(f"{url}/models/{model}/examples").json()["inputs"][index]


def figure(title: str) -> str:
    """Return where the rasters' figure of this title is."""
    return f"#rasters figure:has(b:text-is('{title}'))"


def significant(number: float) -> str:
    """Return a number as the page rounds it."""
    return f"{float(f'{number:.4g}'):g}"


def test_the_page_opens_on_the_default_models_first_example_and_its_answer(visit: Visit, url: str) -> None:
    prediction, times = asked(url, "digits"), "[aria-label=Time] tbody td:"  # of a table: its parts, and their times
    dense = httpx.get(f"{url}/models/digits").json()["dense_operations"]
    operations, everything = prediction["synaptic_operations"], dense["once"] + 8 * dense["per_step"]
    visit.see(
        ("#label", [prediction["label"]]),
        ("#bars .count", prediction["spike_counts"]),
        ("#error", [""]),
        ("#facts", f"{operations:,} synaptic operations"),
        ("#work", f"{operations:,} synaptic operations, of {everything:,} in a dense"),
        ("#work .count", [f"{100 * operations / everything:.1f} %"]),
        (f"{times}first-child", ["decode", "queue", "encode", "run", "render", "all, with the network"]),
    )
    shown = visit.page.locator(f"{times}last-child").all_inner_texts()
    *parts, whole = [float(number) * {"ms": 1, "s": 1000}[unit] for number, unit in map(str.split, shown)]
    assert 0 < sum(parts) <= 1.1 * whole + 0.05  # each is rounded to 0.01 ms, or to 1 ms from 10 ms on


# A model, the time steps that are asked for where it takes others than its own, whether it listens, and of the session
# of an example, where there is one, the fields, how many windows it has, and the time of the last one.
KINDS: list[tuple[str, int | None, bool, dict[str, str], int, str]] = [
    ("braille", None, True, {"Step, µs": "1000", "Steps a window": "64"}, 4, "0.26 s"),
    ("camera", None, False, {}, 3, "0.03 s"),
    ("raster", None, True, {"Step, µs": "10000"}, 3, "0.03 s"),
    ("series", None, True, {"Steps a window": "2", "Windows a second": "50"}, 2, "3"),
    *((model, 3, True, {}, 0, "") for model in ("any", "ranges", "drawn")),
    *(("digits", 8, False, {}, 0, ""), ("late", 3, False, {}, 0, "")),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_each_kind_of_model_answers_an_example_and_streams_it_to_that_answer(visit: Visit, url: str, kind: Any) -> None:
    model, steps, listens, fields, windows, time = kind
    sample = example(url, model, 2)
    visit.choose(model)
    request, prediction = visit.ask(lambda: visit.press("Example 3"))
    body = request.post_data_json
    assert (body["inputs"], body.get("time_steps")) == ([sample], steps)
    label = prediction["label"] if any(prediction["spikes_per_node"].values()) else "–"
    visit.see(("#label", [label]), ("#examples [aria-pressed=true]@aria-label", "Example 3"))
    expect(visit.page.locator("#steps")).to_be_visible(visible=steps is not None)
    visit.open("Live")
    assert visit.page.get_by_role("button", name="Listen").is_visible() is listens
    for name, text in fields.items():
        visit.page.get_by_label(name).fill(text)
    if windows:
        visit.take("3", "Stream it")
        held = f"{len(sample['t'])} events; 0 came too late" if isinstance(sample, dict) else f"{len(sample)} steps"
        visit.see(("[role=status]", f"The session has ended after {windows} windows and {held}."))
        visit.see(("#live .answer-of", [label]), ("#live tbody tr", windows))
        visit.see(("#live tbody tr:first-child td:nth-child(-n + 2)", [windows - 1, time]))
        if model != "braille":  # which is read by its membranes
            visit.see(("#live .count", prediction["spike_counts"]))


def draw_a_dot(visit: Visit) -> None:
    visit.press("Clear")
    visit.page.locator("#pad").click()


def draw_by_keyboard(visit: Visit) -> None:
    visit.press("Clear")
    visit.keys("#pad", "ArrowDown", "ArrowRight", "Space")


def open_file(visit: Visit, name: str, content: bytes, kind: str = "") -> None:
    visit.page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def open_image(visit: Visit) -> None:
    # Black ink on white paper, 8 × 8 squares of 10 × 10 pixels, whose column 4 is ink.
    paper, content = np.full((80, 80), 255, np.uint8), BytesIO()
    paper[10:70, 40:50] = 0
    Image.fromarray(paper).save(content, "PNG")
    open_file(visit, "one.png", content.getvalue(), "image/png")


def drop_array(visit: Visit) -> None:
    transfer = """(bytes) => {
      const dropped = new DataTransfer();
      dropped.items.add(new File([new Uint8Array(bytes)], "three.npy"));
      return dropped;
    }"""
    data = visit.page.evaluate_handle(transfer, list(npy(SPIKES)))
    visit.page.dispatch_event("#drop", "drop", {"dataTransfer": data})


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
        prediction = asked(url, model, inputs=[expected.tolist()])
    else:
        sample = np.array(request.post_data_json["inputs"][0])
        np.testing.assert_allclose(sample.reshape(expected.shape), expected, rtol=0, atol=near)
    visit.see(("#bars .count", prediction["spike_counts"]))


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


def test_an_array_in_fortran_order_is_drawn_as_the_server_reads_it(visit: Visit) -> None:
    open_file(visit, "columns.npy", npy(np.asfortranarray(square(2, 5, 16).astype(int))))
    visit.see(("#file-name", "columns.npy"))
    dark = (visit.grid(visit.page.locator("#pad"), 8, 8) == visit.colours("ink")).all(axis=2)
    assert np.argwhere(dark).tolist() == [[2, 5]]


def test_pictures_of_examples_are_drawn_again_in_the_ink_of_another_colour_scheme(visit: Visit) -> None:
    visit.page.emulate_media(color_scheme="dark")
    visit.page.evaluate("() => new Promise(requestAnimationFrame)")  # the page hears of it before that
    picture = visit.grid(visit.page.locator("#examples canvas").first, 8, 8)
    assert (picture == visit.colours("ink")).all(axis=2).any()


def choose_neuron(visit: Visit, neurons: str) -> None:
    visit.page.locator("#membrane-layer").select_option("neuron5")
    visit.page.locator("#membrane-neurons").fill(neurons)
    visit.keys("#membrane-neurons", "Enter")


def session(button: str, step: str = "", microphone: str = "") -> Callable[[Visit], None]:
    """Return an action that opens a session with a step of so many µs; `microphone` is the error that a browser has."""

    def act(visit: Visit) -> None:
        visit.open("Live")
        if microphone:
            fails = "async () => { throw new DOMException('busy', name); }"
            visit.page.evaluate(f"(name) => {{ navigator.mediaDevices.getUserMedia = {fails}; }}", microphone)
        if step:
            visit.page.get_by_label("Step, µs").fill(step)
        visit.press(button)

    return act


def hold_the_pointer(visit: Visit) -> None:
    visit.session("braille")
    visit.page.locator(".board canvas").hover(position={"x": 20, "y": 100})
    visit.page.mouse.down()


def hear_the_tone(visit: Visit) -> None:
    session("Listen")(visit)
    visit.page.locator("#live tbody tr").nth(1).wait_for()
    visit.press("Stop")


def bars(headline: str, names: list[str], numbers: list[str], best: int) -> list[tuple[str, Any]]:
    return [("#label", [headline]), ("#bars .name", names), ("#bars .count", numbers), ("#bars .best", best)]


MEL = "8 mel bands are taken from the sound, 80 to 4,000 Hz: each input"
SOME_EVENTS = ("#live tbody td:nth-child(3):text-matches('[1-9]') >> nth=0", 1)  # in a line of a session's windows
# A model, what somebody types or does, and what the page then says where; a sentence alone is an error.
SAID: list[tuple[str, str | Callable[[Visit], None], str | list[tuple[str, Any]]]] = [
    ("any", "[0, 1, 2]", "inputs[0] has shape 3, expected 2"),
    ("any", "[0, 1", "The sample is not JSON"),
    ("braille", session("Start", "0"), "step_us"),
    ("braille", session("Listen", "100"), "To listen, a step must last 2000 µs or more, it lasts 100 µs."),
    ("any", session("Listen", "", "NotAllowedError"), "The microphone was not allowed."),
    ("any", session("Listen", "", "NotFoundError"), "There is no microphone."),
    ("any", session("Listen", "", "NotReadableError"), "The microphone could not be opened: busy"),
    ("digits", lambda visit: choose_neuron(visit, "64"), [("#membranes", "A neuron is 64, expected a whole number")]),
    ("any", lambda visit: visit.keys("#steps", "Home"), [("#steps-text", ["1 time step"]), (".time:visible", 0)]),
    ("braille", lambda visit: visit.open("Versions"), [("#versions", "Of braille one version"), (".time:visible", 0)]),
    ("braille", lambda visit: visit.open("Live"), [(".board canvas@aria-label", re.compile("^12 channels, "))]),
    ("late", lambda visit: visit.open("Live"), [("#live", "late has no sessions: its coding is latency")]),
    ("braille", hold_the_pointer, [SOME_EVENTS]),
    # Of 8 bands from 80 to 4000 Hz, 122 to 2146 mel, the middles lie 2024 / 9 = 225 mel apart. 1000 Hz are 1000 mel,
    # (1000 - 122) / 225 = 3.9: next to the fourth middle.
    ("bands", session("Listen"), [("#live", MEL), ("#live .answer-of", ["band 3"])]),
    ("braille", session("Listen"), [("#live", "inputs 0 to 5 spike where one rises by 4 dB")]),
    # The tone begins once: its bands rise, and nothing falls as long as it lasts.
    ("braille", hear_the_tone, [("#live", re.compile(r"\b[1-9]\d* events; "))]),
    # A Linear that passes both on and takes 1 from the second.
    ("values", "[0.123456, 3]", bars("2 values", ["angle", "speed"], ["0.1235 rad", "2"], 0)),
    ("odds", "[0.25, 1.75]", bars("speed", ["angle", "speed"], ["25.0 %", "75.0 %"], 1)),
    ("ranges", "[1, 30]", [*bars(HTML, [HTML, "b"], ["3", "3"], 1), ("main img", 0)]),
]


@pytest.mark.parametrize(("model", "act", "said"), SAID, ids=[f"{row[0]}, {row[2]}"[:40] for row in SAID])
def test_what_somebody_does_has_its_answer_or_a_sentence(visit: Visit, model: str, act: Any, said: Any) -> None:
    visit.choose(model)
    visit.type(act) if isinstance(act, str) else act(visit)
    visit.see(*([("#error", said)] if isinstance(said, str) else said))
    visit.complaints.clear()  # of a 422, which was meant


def test_numbers_are_rounded_for_people_and_a_sample_keeps_its_bits(visit: Visit, url: str) -> None:
    visit.choose("odd")
    visit.see(("#asked", "A sample of shape 2, from -0.4242 to 2.821."))
    written = visit.page.locator("#json").input_value()
    np.testing.assert_array_equal(np.float32(json.loads(written)), np.float32(example(url, "odd", 0)))
    assert max(len(number) for number in re.findall(r"[\d.]+", written)) < 10


def test_rasters_show_each_spike_and_one_cursor_moves_all_plots(visit: Visit, url: str) -> None:
    page, spikes = visit.page, asked(url, "digits", **{"return": ["raster"]})["raster"]
    output, (paper,) = page.locator(f"{figure('output')} canvas"), visit.colours("paper")
    marks = (visit.grid(output, 10, 8, (58, 6, 10, 34)) != paper).any(axis=2)  # inside the plot's margins
    assert {(t, unit) for unit, t in np.argwhere(marks)} == {*zip(*spikes["output"].values(), strict=True)} != set()
    label = re.compile(f"^Raster of output: 10 neurons over 8 steps; {len(spikes['output']['t'])} s")
    visit.see((f"{figure('output')} canvas@aria-label", label), ("#try .time output", ["step 7 (0 to 7)"]))

    visit.keys("#try .time input", *["ArrowLeft"] * 3)
    at_4 = {layer: each["t"].count(4) for layer, each in spikes.items()}
    spoken = re.compile(f"step 4 .* {sum(at_4.values())} spikes in all layers")
    visit.see(("#try .time output", ["step 4 (0 to 7)"]), ("#try .time input@aria-valuetext", spoken))
    for layer, count in at_4.items():
        visit.see((f"{figure(layer)} figcaption", re.compile(f"; {count} spikes? at step 4")))
        x = page.locator(f"{figure(layer)} .mark").evaluate("(mark) => new DOMMatrix(mark.style.transform).e")
        width = page.locator(f"{figure(layer)} .plot").evaluate("(plot) => plot.clientWidth")
        assert x == pytest.approx(58 + 4 * (width - 68) / 8, abs=0.5)  # between the margins of 58 and 10 pixels
    upto_4 = sum(step <= 4 for step in spikes["neuron1"]["t"])
    label = re.compile(f"{at_4['neuron1']} spikes at step 4, {upto_4:,} up to it")
    visit.see((f"{figure('neuron1')} canvas.maps@aria-label", label))
    visit.press("Play")
    visit.see(("#try .time output", ["step 7 (0 to 7)"]), ("#try .time button", ["Play"]))

    visit.choose("braille")  # which has no maps: of it only marks move
    plots = page.locator("#race canvas, #rasters canvas, #membranes canvas")
    plots.evaluate_all("""(all) => all.forEach((canvas) => {
      Object.assign(canvas.getContext("2d"), { fillStyle: "#010203" }).fillRect(0, 0, canvas.width, canvas.height);
    })""")
    for step in (100, 200):
        page.locator("#try .time input").fill(str(step))
        visit.see((f"{figure('input')} figcaption", f"at step {step}"))
    untouched = """(all) => all.map((canvas) => canvas.getContext("2d")
      .getImageData(0, 0, canvas.width, canvas.height).data.every((byte, k) => byte === [1, 2, 3, 255][k % 4]))"""
    assert {*plots.evaluate_all(untouched)} == {True}


def test_the_race_says_when_the_answer_was_decided_and_ends_at_what_is_read_out(visit: Visit, url: str) -> None:
    used = {rule: asked(url, "digits", stop=rule)["steps_used"] for rule in ("decided", "confident")}
    assert used["decided"] < 8  # or there would be no mark to speak of
    best = asked(url, "digits")
    first = f"{best['label']} has {max(best['spike_counts'])}"
    visit.see(
        ("#race", f"Decided after {used['decided']} of 8 steps"),
        ("#race", f"it ends after {used['confident']} of 8 steps"),
        ("#race canvas@aria-label", re.compile(f"At the end: {first}, ")),
        ("#race figcaption >> nth=0", f"after step 7: {first}"),
    )
    visit.choose("braille")
    best = asked(url, "braille", **{"return": ["membrane"]})
    mean = significant(np.mean(best["membrane"]["output"], axis=0).max())
    visit.see(("#race figcaption >> nth=0", f"after step 255: {best['label']} has {mean}, "))
    visit.see((f"{figure('input')} canvas@aria-label", re.compile(": 12 channels over 256 steps; 659 spikes")))


def test_membranes_of_chosen_neurons_are_drawn_with_their_threshold(visit: Visit, url: str) -> None:
    values = asked(url, "digits", **{"return": ["membrane"]})["membrane"]["neuron5"]
    choose_neuron(visit, "3, 60")
    last = ", ".join(significant(values[7][neuron]) for neuron in (3, 60))
    label = re.compile("^Membranes of neuron5 .*: neuron 3 from .*, threshold 1; neuron 60 from")
    visit.see(("#membranes figcaption >> nth=0", f"after step 7: {last}"), ("#membranes canvas@aria-label", label))
    visit.page.locator(f"{figure('output')} .plot").dblclick(position={"x": 100, "y": 7})  # in the first of ten rows
    visit.see(("#membranes canvas@aria-label", re.compile("Membranes of output .* neuron 0 ")))


def test_the_keyboard_and_the_pointer_make_a_cameras_events(visit: Visit) -> None:
    # A camera's model has an IF for each pixel and polarity, and so counts the events of each.
    visit.session("camera")
    visit.keys(".board canvas", "ArrowDown", "Space")  # at 0, 1 it becomes brighter, with the pixels around
    box, mouse = visit.page.locator(".board canvas").bounding_box(), visit.page.mouse
    mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.5)  # column 4 of 10, row 6 of 12
    mouse.down()  # which makes darker where the keys were, and brighter there
    visit.keys("#live button:text('Stop')", "Enter")
    visit.see(("[role=status]", "windows and 21 events; 0 came too late."))
    keys = {row * 10 + column for row in (0, 1, 2) for column in (0, 1)}
    pointer = {row * 10 + column for row in (5, 6, 7) for column in (3, 4, 5)}
    fired = keys | {120 + pixel for pixel in keys | pointer}
    visit.see(("#live .count", [int(unit in fired) for unit in range(240)]))


def test_a_cameras_events_are_a_picture_up_to_the_cursor_and_of_a_session(visit: Visit, url: str) -> None:
    page, picture = visit.page, visit.page.locator("#picture")
    visit.choose("camera")
    t, unit = (np.array(each) for each in example(url, "camera", 0).values())
    darker, brighter, paper = visit.colours("darker", "brighter", "paper")
    for step, key in ((2, "End"), (0, "Home")):
        visit.keys("#try .time input", key)
        kinds = np.isin(np.arange(240), unit[t <= step])
        label = f"12 × 10 pixels, brighter and darker in two colours: {sum(t <= step)} of {len(t)} events"
        visit.see(("#picture@aria-label", f"What the events have drawn up to the cursor, {label}"))
        both = kinds[:120] + 2 * kinds[120:]
        colours = visit.grid(picture, 12, 10).reshape(120, 4)
        np.testing.assert_array_equal(colours[:, 3] == 0, both == 0)
        for kind, colour in ((1, darker), (2, brighter)):
            np.testing.assert_array_equal(np.abs(colours - colour)[:, :3].max(axis=1) < 4, both == kind)
    assert {*both} == {0, 1, 2, 3}  # or it would say little
    visit.open("Live")
    visit.press("Stream it")
    visit.see(("[role=status]", "The session has ended after 3 windows"))
    board = visit.grid(page.locator(".board canvas"), 12, 10).reshape(120, 4)
    assert {*np.flatnonzero((board != paper).any(axis=1))} == {*unit % 120} | {0}  # where the pointer is


# Looks at each change of a session's lines for its first window, which may stand there too short to be asked for.
BEGINS = """() => {
    window.begins = new Promise((resolve) => new MutationObserver(() => {
        if (document.querySelector("#live tbody tr:last-child td")?.textContent === "0") resolve();
    }).observe(document.querySelector("#live"), {childList: true, subtree: true}));
}"""


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
    for begin_again in (lambda: visit.press("Reset"), lambda: page.get_by_label("Scores").select_option("window")):
        expect(first).not_to_have_text("0")  # of the eight lines that are shown
        page.evaluate(BEGINS)
        begin_again()
        page.evaluate("() => window.begins")
    # Each window is what a request is: the example that is shown, from rest.
    visit.see((best, re.compile("^[1-8]$")), ("#live .answer-of", [asked(url, "digits")["label"]]))
    visit.press("Stop")
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()
    assert [url.rpartition("scores=")[2] for url in opened] == ["total", "total", "window"]


def click_the_second_level(visit: Visit) -> None:
    board = visit.page.locator(".board canvas")
    board.click(position={"x": 3 * board.bounding_box()["width"] / 4, "y": 40})


# What somebody does in a session of a model, and the values of a window that are sent then.
VALUES: dict[str, list[tuple[Callable[[Visit], None], Callable[[str], Any]]]] = {
    "digits": [
        (lambda _: None, lambda url: example(url, "digits", 0)),
        (lambda visit: visit.press("Clear"), lambda _: [0] * 64),
        (lambda visit: visit.keys(".board canvas", "ArrowRight", "Space"), lambda _: [0, 16, *[0] * 62]),  # ink is 16
        (lambda visit: visit.take("2", "Show it"), lambda url: example(url, "digits", 1)),
    ],
    "ranges": [  # from -1 to 1, and 0.5 to 30
        (lambda visit: visit.press("Clear"), lambda _: [0, 0.5]),  # 0, or what is nearest
        (lambda visit: visit.keys(".board canvas", "ArrowLeft"), lambda _: [-0.2, 0.5]),  # a tenth of its range of 2
        (click_the_second_level, lambda _: [-0.2, 22.625]),  # 0.5 + 0.75 × 29.5
    ],
}


@pytest.mark.parametrize("model", VALUES)
def test_what_is_drawn_is_streamed_as_values_window_after_window(visit: Visit, url: str, model: str) -> None:
    visit.open("Live", model)
    visit.page.get_by_label("Windows a second").fill("10")
    with visit.page.expect_websocket() as socket:
        visit.press("Start")
    for act, values in VALUES[model]:
        expected = np.ravel(values(url))

        def are_sent(payload: bytes | str, expected: np.ndarray[Any, Any] = expected) -> bool:
            last = np.frombuffer(payload, "<f4")[-len(expected) :] if isinstance(payload, bytes) else [np.nan]
            return np.allclose(last, expected, atol=1e-3)

        with socket.value.expect_event("framesent", are_sent):
            act(visit)
    visit.press("Stop")
    visit.see(("[role=status]", re.compile(r"has ended after (\d+) windows and \d+ steps\.$")))


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
          return [levels, levels.map(cross).map(([up, down]) => [...up, ...down.map((band) => 40 + band)])];
        }""",
        [sound.tolist(), rate],
    )
    whole = 1 + (8000 - 512) // 160  # frames that the sound is long enough for
    np.testing.assert_allclose(levels, expected[:whole], atol=1e-3)
    assert spikes == [np.flatnonzero(row).tolist() for row in encoding.raster(sound, rate)[:whole]]


def test_two_versions_answer_one_input_side_by_side_under_one_cursor(visit: Visit, url: str) -> None:
    visit.open("Versions")
    at_5 = []
    for version in (1, 2):
        answer = asked(url, f"digits/versions/{version}", **{"return": ["raster"]})
        side = f"#versions [aria-label='Version {version}']"
        visit.see(
            (f"{side} .answer-of", [answer["label"]]), (f"{side} .plot canvas", 1 + 4)
        )  # the race, and each layer
        at_5.append(sum(each["t"].count(5) for each in answer["raster"].values()))
    more = "Both give the same answer. Version 2 takes 100.0 % of the synaptic operations of version 1."
    visit.page.locator("#versions .time input").fill("5")
    spoken = re.compile(f"^step 5 .* {at_5[1]} spikes in version 2, {at_5[0]} spikes in version 1$")
    visit.see((".difference", [more]), ("#versions .time input@aria-valuetext", spoken))


def test_the_model_card_is_rendered_without_ever_being_html(visit: Visit) -> None:
    card, title = visit.page.locator("#card .prose"), "#card .prose :is(h2, h3):text-is('Firing rates')"
    visit.open("Model card")
    # The layers are 11, and the head; two Conv2d and two Linear have weights.
    visit.see((title, 1), ("#card td:text-is('12.05%')", 1), ("#card .wide tr", 12), ("#card td:text-is('float32')", 4))
    about = visit.page.locator(".scroll[aria-label=About]")
    about.locator("td").nth(3).evaluate("(cell) => cell.append(': compiling kernels: answers come until then')")
    expect(about).to_have_js_property("scrollWidth", about.evaluate("(box) => box.clientWidth"))  # nothing is cut
    visit.open("Model card", "odd")
    expect(card).to_contain_text("[l](javascript:1)")
    tags = card.evaluate("(card) => [...card.querySelectorAll('*')].map(({ tagName }) => tagName.toLowerCase())")
    structure = "h2 em ol ul li code strong div table thead tbody tr th td"
    assert {*tags} == {*structure.split()}
    assert card.evaluate("(card) => card.textContent") == f"Model cardA b {HTML}onex < yboldab{HTML}[l](javascript:1)"


def test_it_opens_on_what_can_be_clicked_and_an_operator_sees_drift_and_loads_more(browser: Any, workshop: str) -> None:
    # Each of 1000 samples fires at 3 of 3 steps, in one of two neurons: half of what could be, twice the training's.
    with visiting(browser, workshop) as visit:
        visit.see(("#facts", "synaptic operations"), ("#examples [aria-pressed=true]@aria-label", "Example 1"))
        expect(visit.page.locator("#models")).to_have_value("toy")
        visit.open("Operator")
        visit.see(("#operator", "No layer has drifted. A layer has drifted where its rate is off by more than 25 %"))
        httpx.post(f"{workshop}/models/toy/predict", json={"inputs": [[1, 0]] * 1000}).raise_for_status()
        visit.press("Refresh")
        visit.see(("#operator", re.compile(r"^.*out of toy 1 \(\+\d+ %\) has drifted: what is sent is not like")))
        expect(visit.page.locator("#operator").get_by_role("button", name="Refresh")).to_be_focused()
        visit.press("Load digits-small")
        visit.see(("[aria-label='Models and versions'] tbody tr:has-text('digits-small')", "95.6 %"))
        visit.page.locator("#models").select_option("digits-small")
        visit.open("Model card")
        visit.see(("#card", "Reads handwritten digits of 8×8 pixels by 16 hidden neurons"))
        expect(visit.page.locator("#card")).not_to_contain_text("library_name")


def test_an_operator_sees_versions_traffic_and_firing_rates(visit: Visit, url: str) -> None:
    visit.open("Operator")
    rows = visit.page.locator("[aria-label='Models and versions'] tbody tr")
    expect(rows).to_have_count(sum(len(each["versions"]) for each in httpx.get(f"{url}/models").json()["models"]))
    digits = rows.filter(has_text="digits").filter(has_text=re.compile("default")).last
    cells = digits.locator("td").all_inner_texts()
    assert cells[1:5] == ["2", "ready", "reference", "99.7 %"]
    metrics = httpx.get(f"{url}/metrics").text
    counts = re.findall(r'spikeserve_model_requests_total\{model="digits",.*version="2"\} (\S+)', metrics)
    total = sum(map(float, counts))
    assert int(cells[5].replace(",", "")) == total > 0
    bucket = r'spikeserve_model_request_seconds_bucket\{le="([^"]*)",model="digits",version="2"\} (\S+)'
    buckets = re.findall(bucket, metrics)
    for share, cell in ((0.5, cells[8]), (0.95, cells[9])):  # the end of the bucket that reaches so many requests
        end = next(float(end) for end, count in buckets if float(count) >= share * total)
        assert float(cell.split()[0]) == pytest.approx(1000 * end if cell.endswith(" ms") else end)
    rates = visit.page.locator("[aria-label='Firing rates'] tbody tr", has_text="braille")
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
    unnamed = """(all) => all.filter((each) => each.checkVisibility())
      .filter((each) => !(each.getAttribute("aria-label") || each.labels?.[0]?.textContent.trim()))
      .map((each) => each.outerHTML)"""
    with visiting(browser, url, viewport={"width": width, "height": 740}, color_scheme=scheme) as visit:
        everything = visit.page.locator("html")
        visit.see(("#facts", "synaptic operations"))
        expect(visit.page.locator("#membranes canvas")).to_be_visible()
        visit.choose("braille")
        for name in TABS:
            tab = visit.page.locator(f"#tab-{name}")
            assert 0 <= tab.bounding_box()["x"] <= width - tab.bounding_box()["width"]  # in sight
            tab.click()
            panel = visit.page.locator(f"#{name}")
            expect(panel.locator("section").first).to_be_visible()
            expect(everything).to_have_js_property("scrollWidth", width)
            assert panel.locator("canvas[role], input, select, textarea, [role=group]").evaluate_all(unnamed) == []
        visit.page.set_viewport_size({"width": 740, "height": 360})  # which is turned, and turned back
        visit.open("Live")
        visit.page.set_viewport_size({"width": width, "height": 740})
        expect(everything).to_have_js_property("scrollWidth", width)


def test_while_models_load_the_page_asks_again_and_long_rasters_are_left_out(browser: Any, repository: Path) -> None:
    flags = ("--max-body-bytes", "1000", "--max-pending-bytes", "1000", "--versions", "all")
    publish(repository, toy())
    with running(repository, *flags, ready=0) as service, visiting(browser, service.url) as visit:
        visit.see(("#facts", "synaptic operations"), ("#error", [""]))
        body = {"inputs": [example(service.url, "toy", 0)], "return": ["spikes_per_node", "raster"], "time_steps": 3}
        sentence = httpx.post(f"{service.url}/predict", json=body).json()["error"]
        visit.see(("#rasters", [sentence]), ("#bars .count", asked(service.url, "toy")["spike_counts"]))
        for _ in range(2):  # versions, which are shown side by side
            service.wait_for("model_ready")
        visit.page.reload()
        visit.open("Versions")
        visit.see(("#versions [aria-label='Version 1']", re.compile(r"may take \d+ bytes, expected at most 1000")))
        visit.complaints.clear()  # of each 413, which were meant, and of a 503, where it was early


def test_where_keys_are_set_the_page_asks_for_one_and_forgets_it(browser: Any, locked: Any) -> None:
    service, key, _ = locked
    with visiting(browser, service.url) as visit:
        needs, field = ("#error", ["This server needs a key."]), visit.page.locator("#key")
        visit.see(needs, ("a:visible", ["API"]))  # a browser would open the others without the key
        field.fill("guessed")
        field.press("Enter")
        visit.see(("#error", "is not one that this server knows"))
        field.fill(key)
        field.press("Enter")
        visit.see(("#facts", "synaptic operations"), ("#error", [""]), ("#key:visible", 0))
        visit.session("braille")  # a WebSocket, which has no header for the key
        visit.page.reload()
        visit.see(needs)
        visit.complaints.clear()  # a browser complains of each 401, which were meant


def test_a_call_is_tried_out_in_the_documentation_with_a_key(browser: Any, locked: Any) -> None:
    service, key, _ = locked
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


def test_an_allowed_origins_page_asks_and_streams(browser: Any, locked: Any) -> None:
    service, key, elsewhere = locked
    page = browser.new_page()
    page.goto(f"{elsewhere}/browser.html?server={service.url}#{key}")
    # The first digit is a 7. The letter, an I, is read window by window as docs/streaming.md prints it.
    lines = ["digits: 7", "braille: I", "0.32 s: O", "0.64 s: O", "0.96 s: E", "1.28 s: I", "end"]
    expect(page.locator("#said")).to_have_text("\n".join(lines))
    page.goto("about:blank")
    page.goto(f"{elsewhere}/browser.html?server={service.url}#of-somebody-else")
    expect(page.locator("#said")).to_contain_text("401: the key in the header Authorization is not one that")
    page.close()
