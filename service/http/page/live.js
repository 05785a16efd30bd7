// A live session: what the pointer does, an example or a microphone is streamed; each window's answer comes back at once.
import { openStream, whyNoStream } from "./api.js";
import { colours, extent, make, milliseconds, plain, product, rounded, showBest, theme } from "./dom.js";
import { Levels } from "./levels.js";
import { canListen, listen, mapping } from "./microphone.js";
import { imageOf, inputName, perStep, sharesOf } from "./model.js";
import { Pad } from "./pad.js";
import { context } from "./plot.js";
import { Sensor } from "./sensor.js";
import { boardValues, exampleEvents, heardEvents, heardValues, pointerEvents, seriesValues } from "./sources.js";

const TICK_MS = 20;        // between two messages
const SAMPLE_US = 1_280_000; // that a sample takes, by default, where the model does not say how long a step is
const WINDOWS = 8;         // in a sample, by default; and lines that are shown
const A_SECOND = 5, MOST_A_SECOND = 50; // windows of values
const SHOWN_US = 2_000_000;  // of the input that is drawn
const HEIGHT = 130, MOST_ROWS = 64; // pixels of that; rows of values

// What a class is read from, of a session's windows.
const READINGS = { total: "all since the start", window: "each window alone", decay: "all, fading" };

let stop = () => {};
let redraw = () => {};
let asked = 0; // how often a session was asked for or stopped: a microphone that comes later is not wanted any more

export function stopLive() {
  asked += 1;
  stop();
}

export function redrawLive() { redraw(); }

export function showLive(host, model, examples, sample, showError) {
  stopLive();
  redraw = () => {};
  if (model.coding === "latency") {
    host.replaceChildren(make("section", { className: "wide" }, make("h2", {}, "A live session"),
      make("p", {}, `${model.name} has no sessions: its coding is latency, whose spikes lie in a run of a known length. Choose a model of another coding.`)));
    return;
  }
  const live = layOut(host, model, examples, sample);
  // Opens a session with what `makeSource` gives; `again` does the same from rest.
  let again = () => {};
  const open = async (makeSource) => {
    stopLive();
    again = () => open(makeSource);
    const source = await makeSource();
    if (source) begin(live, model, source, showError);
  };
  const chosen = () => examples[Number(live.example.value)];
  live.start.addEventListener("click", () => {
    if (live.running) return stopLive();
    return open(() => (live.events ? pointerEvents(live.sensor) : boardValues(model, live.board, entriesOf(live, model), live.rows, live.waiting)));
  });
  live.replay.addEventListener("click", () => {
    if (!live.events && !perStep(model)) return live.board.set(sharesOf(model, chosen()));
    return open(() => (live.events ? exampleEvents(live.sensor, model, chosen(), Number(live.step.value)) :
      seriesValues(model, chosen(), entriesOf(live, model), live.rows)));
  });
  live.listen.addEventListener("click", () => open(() => hear(live, model, showError)));
  live.reset.addEventListener("click", () => again());
  live.scores.addEventListener("change", () => { if (live.running) again(); });
}

// How many entries of values a second there are: one for a step, or for a window.
function entriesOf({ pace, windowSteps }, model) {
  const windows = Math.max(0.1, Math.min(MOST_A_SECOND, Number(pace.value) || A_SECOND));
  return windows * (perStep(model) ? Math.max(1, Number(windowSteps.value)) : 1);
}

// The microphone as a source; null where it is not given, or no longer wanted.
async function hear(live, model, showError) {
  showError(null);
  const mine = asked;
  live.state.textContent = "Waiting for the microphone …";
  try {
    const microphone = await listen(model, live.events ? Number(live.step.value) / 1e6 : 1 / entriesOf(live, model));
    if (mine === asked) return live.events ? heardEvents(live.sensor, microphone) : heardValues(model, live.board, microphone, live.rows);
    microphone.close();
  } catch (error) {
    if (mine !== asked) return null;
    live.state.textContent = "No session is open.";
    showError(error);
  }
  return null;
}

function layOut(host, model, examples, sample) {
  const events = model.coding === "spikes", given = model.input.events;
  const number = (value, properties) => make("input", { type: "number", min: 1, value, ...properties });
  const step = number(given?.step_us ?? Math.max(1, Math.round(SAMPLE_US / model.time_steps)), { disabled: Boolean(given) });
  const whole = !events && !perStep(model);
  const windowSteps = number(given && given.window_steps > 1 ? given.window_steps : whole ? model.time_steps : Math.max(1, Math.round(model.time_steps / WINDOWS)));
  const pace = number(A_SECOND, { max: MOST_A_SECOND, step: "any" });
  // Others are made of output spikes, which only some models are read by.
  const readings = model.readout === "spike_count" ? ["total", "window", "decay"] : ["total"];
  const scores = make("select", {}, ...readings.map((name) => new Option(READINGS[name], name)));
  if (whole && readings.length > 1) scores.value = "window";
  const start = make("button", { type: "button" }, "Start");
  const reset = make("button", { type: "button", disabled: true, title: "A new session, from rest" }, "Reset");
  const example = make("select", {}, ...examples.map((_, k) => new Option(k + 1, k)));
  const replay = make("button", { type: "button" }, whole ? "Show it" : "Stream it");
  const clear = make("button", { type: "button", hidden: events }, "Clear");
  const listening = make("button", { type: "button", hidden: !canListen(model) }, "Listen");
  const state = make("p", { className: "quiet", role: "status" }, "No session is open.");
  const canvas = make("canvas", { tabIndex: 0, role: "application" }); // which has arrow keys of its own
  const strip = make("canvas", { role: "img", "aria-label": "The input of the last two seconds" });
  const label = make("div", { className: "answer-of" }, "–");
  const answer = make("div", { "aria-live": "polite" }, label);
  const bars = make("div", { className: "bars", role: "list", tabIndex: 0, "aria-label": "What each class has" });
  const lines = make("tbody");
  const heads = ["window", "until", ...(events ? ["events", "late"] : ["steps"]), "class", "margin", "operations", "lag"];
  const log = make("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "The last windows" },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)))), lines));
  const about = events ? "Start a session, then move the pointer over the field with a button held down. By keyboard: arrow keys move, Space fires." :
    `Start a session: what is drawn here is sent ${whole ? "for each window, and held for its steps" : "for each step"}. You can go on drawing.`;
  host.replaceChildren(
    make("section", {}, make("h2", {}, events ? "Events" : "Values"), make("p", {}, about),
      make("div", { className: "row" }, events ? make("label", {}, "Step, µs ", step) : make("label", {}, "Windows a second ", pace),
        make("label", {}, "Steps a window ", windowSteps), make("label", {}, "Scores ", scores)),
      make("div", { className: "row" }, start, reset, clear, listening, ...(examples.length ? [make("label", {}, "Example ", example), replay] : [])),
      state, make("div", { className: "board" }, canvas), ...(canListen(model) ? [make("p", { className: "quiet" }, `Listen: ${mapping(model)}`)] : [])),
    make("section", {}, make("h2", {}, "The answer to each window"), answer, bars, log),
    make("section", { className: "wide" }, make("h2", {}, "The input of the last two seconds"), strip),
  );
  bars.replaceChildren(...model.labels.map((name) => make("div", { className: "item", role: "listitem" }, make("div", { className: "name", title: name }, name),
    make("div", { className: "track" }, make("div", { className: "bar" })), make("div", { className: "count" }))));
  const live = { events, step, windowSteps, pace, scores, start, reset, example, replay, listen: listening, state, strip, label, bars, lines, windows: [], running: false, entryUs: 0 };
  live.waiting = () => live.socket.bufferedAmount;
  if (events) {
    live.sensor = new Sensor(canvas, model);
    [live.rows, live.rowName] = [live.sensor.rows, live.sensor.rowName];
  } else {
    live.board = boardOf(canvas, model, sample?.value ?? sample?.shown ?? examples[0]);
    const count = product(model.input.shape);
    live.rows = Math.min(MOST_ROWS, count);
    live.rowName = live.rows === count ? `one ${inputName(model)}` : `about ${plain(Math.round(count / live.rows))} ${inputName(model)}s`;
    clear.addEventListener("click", () => live.board.clear());
  }
  redraw = () => { (live.sensor ?? live.board).draw(); drawStrip(live, [], 0); };
  redraw();
  return live;
}

// Where values are drawn: an image, or levels. It begins with the sample, or where there is a series of them with none.
function boardOf(canvas, model, value) {
  const { shape } = model.input;
  const image = perStep(model) && shape.length === 1 ? null : imageOf({ ...model, coding: "direct" });
  const board = image ? new Pad(canvas, image, () => {}) : new Levels(canvas, sharesOf(model, new Array(product(shape)).fill(0)), model.input.feature_names);
  if (!perStep(model) && [value].flat(Infinity).length === product(shape)) board.set(sharesOf(model, value));
  else board.draw();
  return board;
}

// Opens a session and streams a source to it, which may end by itself.
function begin(live, model, source, showError) {
  showError(null);
  const options = { window_steps: live.windowSteps.value, scores: live.scores.value };
  if (live.events && !model.input.events) options.step_us = live.step.value;
  const socket = openStream(model, options);
  const drawn = [];
  let opened = null, timer = 0, over = false;
  live.running = true;
  live.reset.disabled = false;
  live.sensor?.wipe();
  live.entryUs = live.events ? 0 : 1e6 / entriesOf(live, model); // how long a value lasts
  live.socket = socket;
  live.start.textContent = "Stop";
  live.lines.replaceChildren();
  live.state.textContent = "Opening a session …";

  stop = () => {
    stop = () => {};
    over = true;
    clearInterval(timer);
    live.running = false;
    live.reset.disabled = true;
    live.start.textContent = "Start";
    if (socket.readyState === WebSocket.OPEN) {
      flush();
      socket.send(JSON.stringify({ type: "end" }));
    } else socket.close();
    source.close?.();
  };

  // Sends what is due, and returns whether that was the last.
  const flush = () => {
    const { messages, drawn: fresh, now, over: ended } = source.next(Math.floor((performance.now() - opened) * 1000));
    for (const message of messages) socket.send(message);
    drawn.push(...fresh);
    while (drawn.length && drawn[0].t < now - SHOWN_US) drawn.shift();
    drawStrip(live, drawn, now);
    return ended;
  };

  socket.addEventListener("open", () => {
    opened = performance.now();
    live.state.textContent = "The session is open.";
    if (live.events) socket.send(JSON.stringify({ type: "time", t: 0 }));
    timer = setInterval(() => { if (flush()) stop(); }, TICK_MS);
  });
  socket.addEventListener("message", ({ data }) => {
    if (live.socket !== socket) return;
    const line = JSON.parse(data);
    if (line.type === "window") showWindow(live, line);
    else if (line.type === "end") live.state.textContent = ended(line);
    else if (line.type === "error") showError(new Error(line.error));
    else if (line.reason) live.state.textContent = `The session has ended: ${line.reason}.`;
  });
  socket.addEventListener("close", async () => {
    if (opened === null && live.socket === socket) {
      live.state.textContent = "No session is open.";
      showError(new Error(await whyNoStream(model, options)));
    }
    if (!over) stop();
  });
}

function ended({ windows, steps, events, late }) {
  const held = steps === undefined ? `${plain(events)} events; ${plain(late)} came too late` : `${plain(steps)} steps`;
  return `The session has ended after ${plain(windows)} windows and ${held}.`;
}

// Shows the newest windows in the next frame: there may be more of them than frames.
function showWindow(live, line) {
  live.windows.push(line);
  if (live.windows.length === 1) requestAnimationFrame(() => showWindows(live, live.windows.splice(0).slice(-WINDOWS)));
}

const scoresOf = (line) => line.scores ?? line.spike_counts;

// Where nothing has spiked there is no class, though the first of them is named.
const labelOf = (line) => (scoresOf(line).some((score) => score !== 0) ? line.label ?? "–" : "–");

function showWindows(live, windows) {
  const line = windows.at(-1);
  const scores = scoresOf(line), label = labelOf(line);
  const [low, high] = extent([0, ...scores]);
  if (live.label.textContent !== label) live.label.textContent = label;
  [...live.bars.children].forEach((item, k) => {
    item.classList.toggle("best", label !== "–" && k === line.class_index);
    item.querySelector(".bar").style.width = `${100 * (scores[k] - low) / (high - low || 1)}%`;
    item.querySelector(".count").textContent = rounded(scores[k]);
  });
  showBest(live.bars);
  for (const each of windows) {
    const held = "steps" in each ? [each.t, each.steps] : [`${(each.t / 1e6).toFixed(2)} s`, each.events, each.late];
    const cells = [each.window, ...held, labelOf(each), rounded(each.margin ?? 0),
      plain(each.synaptic_operations), milliseconds(each.lag_ms)];
    live.lines.prepend(make("tr", {}, ...cells.map((text) => make("td", {}, String(text)))));
  }
  while (live.lines.children.length > WINDOWS) live.lines.lastChild.remove();
}

function drawStrip({ strip, rows, rowName, entryUs }, inputs, now) {
  const width = strip.parentElement.clientWidth - 2 * parseFloat(getComputedStyle(strip.parentElement).paddingLeft);
  const pen = context(strip, Math.max(40, width), HEIGHT);
  const height = HEIGHT - 20, tall = Math.max(1.5, height / rows - 1);
  pen.fillStyle = theme("--paper");
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = colours()[0];
  const across = Math.max(2, entryUs / SHOWN_US * width);
  for (const { t, row, share } of inputs) {
    pen.globalAlpha = share;
    const x = (1 - (now - t) / SHOWN_US) * width - 2;
    pen.fillRect(x, row / rows * height, Math.min(across, width - x), tall);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = theme("--quiet");
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "top";
  pen.fillText(`2 s ago; each row is ${rowName}`, 0, height + 4);
  pen.textAlign = "right";
  pen.fillText("now", width, height + 4);
}
