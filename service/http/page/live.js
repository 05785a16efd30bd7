// A live session: the pointer makes events, which are streamed to the model; each window's answer comes back at once.
import { openStream, whyNoStream } from "./api.js";
import { colours, extent, make, plain, rounded, showBest, theme } from "./dom.js";
import { eventsOf } from "./model.js";
import { context } from "./plot.js";
import { Sensor } from "./sensor.js";

const TICK_MS = 20;        // between two messages
const SAMPLE_US = 1_280_000; // that a sample takes, by default, where the model does not say how long a step is
const WINDOWS = 8;         // in a sample, by default; and lines that are shown
const SHOWN_US = 2_000_000;  // of the events that are drawn
const HEIGHT = 220;

let stop = () => {};

export function stopLive() { stop(); }

export function showLive(host, model, examples, showError) {
  stopLive();
  if (model.coding !== "spikes") {
    host.replaceChildren(make("section", { className: "wide" }, make("h2", {}, "A live session"),
      make("p", {}, `This view streams events, and ${model.name} takes values: its coding is ${model.coding}. Choose a model of spikes coding.`)));
    return;
  }
  const live = layOut(host, model, examples);
  live.start.addEventListener("click", () => (live.running ? stop() : begin(live, model, null, showError)));
  live.replay?.addEventListener("click", () => begin(live, model, examples[Number(live.example.value)], showError));
}

function layOut(host, model, examples) {
  const given = model.input.events;
  const step = make("input", { type: "number", min: 1, value: given?.step_us ?? Math.max(1, Math.round(SAMPLE_US / model.time_steps)), disabled: Boolean(given) });
  const windowSteps = make("input", { type: "number", min: 1, value: given && given.window_steps > 1 ? given.window_steps : Math.max(1, Math.round(model.time_steps / WINDOWS)) });
  // Others are made of output spikes, which only some models are read by.
  const readings = model.readout === "spike_count" ? ["total", "window", "decay"] : ["total"];
  const scores = make("select", {}, ...readings.map((name) => new Option(name, name)));
  const start = make("button", { type: "button" }, "Start");
  const example = make("select", {}, ...examples.map((_, k) => new Option(k + 1, k)));
  const replay = make("button", { type: "button" }, "Stream it");
  const state = make("p", { className: "quiet", role: "status" }, "No session is open.");
  const board = make("canvas", { tabIndex: 0, role: "img" });
  const strip = make("canvas", { role: "img", "aria-label": "The events of the last two seconds" });
  const label = make("div", { className: "answer-of" }, "–");
  const answer = make("div", { "aria-live": "polite" }, label);
  const bars = make("div", { className: "bars", role: "list", tabIndex: 0, "aria-label": "What each class has" });
  const lines = make("tbody");
  const heads = ["window", "until", "events", "late", "class", "margin", "operations", "lag"];
  const log = make("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "The last windows" },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)))), lines));
  host.replaceChildren(
    make("section", {}, make("h2", {}, "Events"), make("p", {}, "Start a session, then move the pointer over the field with a button held down. By keyboard: arrow keys move, Space fires."),
      make("div", { className: "row" }, make("label", {}, "Step, µs ", step), make("label", {}, "Steps a window ", windowSteps), make("label", {}, "Scores ", scores)),
      make("div", { className: "row" }, start, ...(examples.length ? [make("label", {}, "Example ", example), replay] : [])),
      state, make("div", { className: "board" }, board)),
    make("section", {}, make("h2", {}, "The answer to each window"), answer, bars, log),
    make("section", { className: "wide" }, make("h2", {}, "Events of the last two seconds"), strip),
  );
  bars.replaceChildren(...model.labels.map((name) => make("div", { className: "item", role: "listitem" }, make("div", { className: "name", title: name }, name),
    make("div", { className: "track" }, make("div", { className: "bar" })), make("div", { className: "count" }))));
  const live = { step, windowSteps, scores, start, example, replay, state, board, strip, label, bars, lines, windows: [], running: false };
  live.sensor = new Sensor(board, model);
  live.sensor.draw();
  drawStrip(live, [], 0);
  return live;
}

// Opens a session and streams to it what the pointer does; or an example, at its own pace, and then ends it.
function begin(live, model, example, showError) {
  stop();
  showError(null);
  const options = { window_steps: live.windowSteps.value, scores: live.scores.value };
  if (!model.input.events) options.step_us = live.step.value;
  const socket = openStream(model, options);
  const stepUs = Number(live.step.value);
  const recorded = example ? recording(live.sensor, eventsOf(model, example), stepUs) : null;
  const end = example ? model.time_steps * stepUs : Infinity;
  const drawn = [];
  let opened = null, timer = 0, over = false;
  live.running = true;
  live.socket = socket;
  live.start.textContent = "Stop";
  live.lines.replaceChildren();
  live.state.textContent = "Opening a session …";
  live.sensor.listen(!example);

  stop = () => {
    stop = () => {};
    over = true;
    clearInterval(timer);
    live.running = false;
    live.start.textContent = "Start";
    if (socket.readyState === WebSocket.OPEN) {
      flush();
      socket.send(JSON.stringify({ type: "end" }));
    } else socket.close();
    live.sensor.listen(false);
  };

  // Sends the events until now, and the time.
  const flush = () => {
    const now = Math.min(end, Math.floor((performance.now() - opened) * 1000));
    const events = recorded ? recorded.until(now) : live.sensor.take(now);
    if (events.length > 0) socket.send(records(events));
    socket.send(JSON.stringify({ type: "time", t: now }));
    drawn.push(...events.map(({ t, row }) => ({ t, row })));
    while (drawn.length && drawn[0].t < now - SHOWN_US) drawn.shift();
    drawStrip(live, drawn, now);
    return now;
  };
  const tick = () => { if (flush() >= end) stop(); };

  socket.addEventListener("open", () => {
    opened = performance.now();
    live.state.textContent = "The session is open.";
    socket.send(JSON.stringify({ type: "time", t: 0 }));
    timer = setInterval(tick, TICK_MS);
  });
  socket.addEventListener("message", ({ data }) => {
    if (live.socket !== socket) return;
    const line = JSON.parse(data);
    if (line.type === "window") showWindow(live, line);
    else if (line.type === "end") live.state.textContent = `The session has ended after ${plain(line.windows)} windows and ${plain(line.events)} events; ${plain(line.late)} came too late.`;
    else if (line.type === "error") showError(new Error(line.error));
    else if (line.reason) live.state.textContent = `The session has ended: ${line.reason}.`;
  });
  socket.addEventListener("close", async () => {
    if (opened === null) {
      live.state.textContent = "No session is open.";
      showError(new Error(await whyNoStream(model, options)));
    }
    if (!over) stop();
  });
}

// The events of an example as the sensor would have told them, at the beginning of their steps.
function recording(sensor, { t, unit }, stepUs) {
  const events = t.map((step, k) => sensor.eventOf(unit[k], step * stepUs)).sort((a, b) => a.t - b.t);
  let next = 0;
  return {
    until(now) {
      const first = next;
      while (next < events.length && events[next].t < now) next += 1;
      return events.slice(first, next);
    },
  };
}

// Event records: 8 bytes each, little-endian, of the time, the column, and the row with the polarity as its highest bit.
export function records(events) {
  const view = new DataView(new ArrayBuffer(8 * events.length));
  events.forEach(({ t, x, y, p }, k) => {
    view.setUint32(8 * k, t % 2 ** 32, true);
    view.setUint16(8 * k + 4, x, true);
    view.setUint16(8 * k + 6, y + p * 2 ** 15, true);
  });
  return view.buffer;
}

// Shows the newest windows in the next frame: there may be more of them than frames.
function showWindow(live, line) {
  live.windows.push(line);
  if (live.windows.length === 1) requestAnimationFrame(() => showWindows(live, live.windows.splice(0).slice(-WINDOWS)));
}

function showWindows(live, windows) {
  const line = windows.at(-1);
  const scores = line.scores ?? line.spike_counts;
  const [low, high] = extent([0, ...scores]);
  if (live.label.textContent !== (line.label ?? "–")) live.label.textContent = line.label ?? "–";
  [...live.bars.children].forEach((item, k) => {
    item.classList.toggle("best", k === line.class_index);
    item.querySelector(".bar").style.width = `${100 * (scores[k] - low) / (high - low || 1)}%`;
    item.querySelector(".count").textContent = rounded(scores[k]);
  });
  showBest(live.bars);
  for (const each of windows) {
    const cells = [each.window, `${(each.t / 1e6).toFixed(2)} s`, each.events, each.late, each.label ?? "", rounded(each.margin ?? 0),
      plain(each.synaptic_operations), `${rounded(each.lag_ms)} ms`];
    live.lines.prepend(make("tr", {}, ...cells.map((text) => make("td", {}, String(text)))));
  }
  while (live.lines.children.length > WINDOWS) live.lines.lastChild.remove();
}

function drawStrip({ strip, sensor }, events, now) {
  const width = strip.parentElement.clientWidth - 2 * parseFloat(getComputedStyle(strip.parentElement).paddingLeft);
  const pen = context(strip, Math.max(40, width), HEIGHT / 2 + 20);
  const height = HEIGHT / 2, rows = sensor.rows, tall = Math.max(1.5, height / rows - 1);
  pen.fillStyle = theme("--paper");
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = colours()[0];
  for (const { t, row } of events) pen.fillRect((1 - (now - t) / SHOWN_US) * width - 2, row / rows * height, 2, tall);
  pen.fillStyle = theme("--quiet");
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "top";
  pen.fillText(`2 s ago; each row is ${sensor.rowName}`, 0, height + 4);
  pen.textAlign = "right";
  pen.fillText("now (time, s)", width, height + 4);
}
