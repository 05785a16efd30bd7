// The input: examples to click, a pad to draw on, a file to drop, or a sample that is typed in.
import { accumulated, cameraOf } from "./camera.js";
import { follow } from "./cursor.js";
import { asJson, at, colours, counted, extent, make, plain, product, rounded } from "./dom.js";
import { allowsSteps, eventsOf, firstSample, imageOf, perStep, rawOf, shaped, sharesOf } from "./model.js";
import { readNpy } from "./npy.js";
import { Pad, drawImage } from "./pad.js";

const THUMBNAIL = 48; // cells along a side of an example's picture, at most
const SHOWN_BYTES = 2 ** 22; // of a file that is also shown here

let model = null;
let examples = [];
let image = null;  // { channels, height, width } where the model's input is an image
let camera = null; // the same where it is a camera's events
let pad = null;    // whose shares are the image, also where it cannot be drawn on
let sample = null; // { value }, or { file, shown }: what is sent, and what a file holds where that is known
let changed = () => {};
let failed = () => {};

export const currentSample = () => sample;

// The fields of a request beside its sample.
export const fields = () => (allowsSteps(model) ? { time_steps: at("steps").valueAsNumber } : {});

const drawable = () => image?.channels === 1;

// Shows a model's ways of input, and chooses its first example where it has one.
export function showInputs(chosen, found) {
  [model, examples, image, camera, sample] = [chosen, found, imageOf(chosen), cameraOf(chosen), null];
  pad.use(image);
  at("pad").hidden = at("clear").hidden = !drawable();
  at("picture").hidden = !camera && (!image || drawable());
  at("steps-field").hidden = !allowsSteps(model);
  at("steps").max = 4 * model.time_steps;
  at("steps").value = model.time_steps;
  showSteps();
  at("asked").textContent = asked();
  at("drop").textContent = `Or drop ${image ? "an image or " : ""}a .npy array${model.input.events ? " or a recording of events" : ""} here.`;
  at("file").value = at("file-name").textContent = "";
  at("json").value = asJson(examples[0] ?? firstSample(model));
  at("typed").open = !image && examples.length === 0;
  at("examples").hidden = examples.length === 0;
  at("examples").replaceChildren(...examples.map(exampleButton));
  drawInput();
  if (examples.length > 0) chooseExample(0);
}

function asked() {
  const { shape, low, high } = model.input;
  const size = shape.join(" × "), each = shape.length === 1 ? counted(shape[0], "channel") : size;
  const range = `from ${rounded(extent([low].flat())[0])} to ${rounded(extent([high].flat())[1])}`;
  const click = examples.length > 0 ? "Click an example. " : "";
  if (drawable()) return `${click}${click ? "Or draw" : "Draw"} here, ${image.height} × ${image.width}.`;
  if (camera) {
    const colours = camera.channels === 2 ? ": orange where it became brighter, blue where darker" : "";
    return `${click}Events of ${size}. The picture adds them up to the cursor${colours}.`;
  }
  if (model.coding === "spikes") return `${click}Spikes: events of t and unit, or a raster of steps × ${each}.`;
  if (model.coding === "current") return `${click}A time series of steps × ${each}, ${range}.`;
  return `${click}A sample of shape ${size}, ${range}.`;
}

function showSteps() { at("steps-text").textContent = counted(at("steps").valueAsNumber, "time step"); }

function exampleButton(_, index) {
  const button = make("button", { type: "button", "aria-label": `Example ${index + 1}`, "aria-pressed": "false" }, make("canvas"), `${index + 1}`);
  button.addEventListener("click", () => chooseExample(index));
  return button;
}

function chooseExample(index) {
  const value = examples[index];
  at("json").value = asJson(value);
  press(index);
  if (image) pad.shares = sharesOf(model, value);
  use({ value, name: `example ${index + 1}` });
}

function press(index) {
  [...at("examples").children].forEach((button, k) => button.setAttribute("aria-pressed", String(k === index)));
}

// Takes a sample: it is drawn, and whoever listens is told.
function use(given) {
  sample = given;
  if (!given?.file) at("file-name").textContent = "";
  drawInput();
  changed();
}

// What an input over time shows of a sample: { events }, { series }, or null.
export function overTime(given = sample) {
  if (!given || !perStep(model)) return null;
  const value = given.file ? given.shown : given.value;
  if (value === undefined) return null;
  if (model.coding === "spikes") return { events: eventsOf(model, value) };
  return { series: value.map((step) => [step].flat(Infinity)) };
}

// Pictures

// Draws the examples' pictures, in the colours of the scheme that is chosen now.
export function drawThumbnails() {
  at("examples").querySelectorAll("canvas").forEach((canvas, index) => drawThumbnail(canvas, examples[index]));
}

function drawThumbnail(canvas, example) {
  if (image) return drawImage(canvas, image, sharesOf(model, example));
  const events = model.coding === "spikes" ? eventsOf(model, example) : null;
  if (camera && events) return accumulated(camera, events).drawOn(canvas);
  const units = product(model.input.shape);
  const steps = events ? model.time_steps : perStep(model) ? example.length : 1;
  canvas.width = Math.min(steps, THUMBNAIL);
  canvas.height = Math.min(units, THUMBNAIL);
  canvas.style.objectFit = "fill";
  const pen = canvas.getContext("2d");
  pen.fillStyle = colours()[0];
  const dot = (t, unit, alpha) => {
    pen.globalAlpha = alpha;
    pen.fillRect(Math.floor(t / steps * canvas.width), Math.floor(unit / units * canvas.height), 1, 1);
  };
  if (events) return events.t.forEach((t, k) => dot(t, events.unit[k], 1));
  const rows = perStep(model) ? example : [example];
  const [low, high] = extent(rows.flat(Infinity));
  rows.forEach((row, t) => [row].flat(Infinity).forEach((value, unit) => dot(t, unit, (value - low) / (high - low || 1))));
}

export function drawInput() {
  if (camera) drawEvents(lastStep);
  if (!image) return;
  if (drawable()) return pad.draw();
  drawImage(at("picture"), image, pad.shares);
  at("picture").setAttribute("aria-label", `The input, an image of ${image.height} × ${image.width}`);
}

// Draws what a camera's events have been up to the cursor.
let lastStep = Infinity;
function drawEvents(step) {
  lastStep = step;
  const events = camera && overTime()?.events;
  if (!camera || at("picture").hidden) return;
  const shown = events ?? { t: [], unit: [] };
  accumulated(camera, shown, step).drawOn(at("picture"));
  const kinds = camera.channels === 2 ? ", brighter and darker in two colours" : "";
  at("picture").setAttribute("aria-label", `What the events have drawn up to the cursor, ${camera.height} × ${camera.width} pixels${kinds}: ` +
    `${plain(shown.t.filter((each) => each <= step).length)} of ${plain(shown.t.length)} events`);
}

// Takes what the pad shows, in the model's range.
function usePad() {
  press(-1);
  use({ value: shaped(rawOf(model, pad.shares), model.input.shape), name: "a drawing" });
}

function wipe() {
  pad.shares.fill(0);
  press(-1);
  use(null);
}

// Files

async function useFile(file) {
  try {
    if (file.type.startsWith("image/")) return await useImage(file);
    const shown = file.name.endsWith(".npy") && file.size <= SHOWN_BYTES ? firstOf(readNpy(await file.arrayBuffer())) : undefined;
    if (image) pad.shares = shown ? sharesOf(model, shown) : pad.shares.fill(0);
    press(-1);
    use({ file, shown, name: file.name });
    at("file-name").textContent = `${file.name}, ${plain(file.size)} bytes`;
  } catch (error) { failed(error); }
}

// The first sample of an array, nested; undefined where the array has none of the model's shape.
function firstOf(array) {
  if (!array) return undefined;
  const size = product(model.input.shape), axes = model.input.shape.length;
  if (!perStep(model)) return array.values.length % size ? undefined : array.values.slice(0, size);
  const flat = array.shape.at(-1) === size && axes > 1 ? 1 : axes;
  const steps = array.shape[array.shape.length - flat - 1];
  return steps ? shaped(array.values.slice(0, steps * size), [steps, size]) : undefined;
}

// Shrinks an image to the model's input. Dark ink on light paper is turned round, as models have 0 for empty.
async function useImage(file) {
  if (!image) throw new Error(`${file.name} is an image, but this model's input is none.`);
  const { channels, height, width } = image;
  const bitmap = await createImageBitmap(file).catch(() => { throw new Error(`${file.name} is not an image that can be read.`); });
  const canvas = make("canvas", { width, height }), pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  const scale = Math.min(width / bitmap.width, height / bitmap.height);
  const [wide, high] = [bitmap.width * scale, bitmap.height * scale];
  pen.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
  const { data } = pen.getImageData(0, 0, width, height);
  if (channels === 3) {
    pad.shares = Float32Array.from({ length: 3 * height * width }, (_, k) => data[(k % (height * width)) * 4 + Math.floor(k / (height * width))] / 255);
  } else {
    const ink = Float32Array.from({ length: height * width }, (_, k) => (0.299 * data[4 * k] + 0.587 * data[4 * k + 1] + 0.114 * data[4 * k + 2]) / 255);
    const edge = ink.filter((_, k) => k < width || k >= (height - 1) * width || k % width === 0 || k % width === width - 1);
    const onPaper = edge.reduce((all, each) => all + each, 0) > edge.length / 2;
    pad.shares = onPaper ? ink.map((each) => 1 - each) : ink;
  }
  usePad();
  at("file-name").textContent = `${file.name}, as ${height} × ${width}`;
}

export function setUpInputs(onChange, onError) {
  [changed, failed] = [onChange, onError];
  pad = new Pad(at("pad"), null, usePad);
  follow(at("picture"), (step) => { if (camera) drawEvents(step); });
  at("clear").addEventListener("click", wipe);
  at("open").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => { 
    if (at("file").files[0]) useFile(at("file").files[0]);
    at("file").value = "";  // so that the same file can be opened again
  });
  at("steps").addEventListener("input", () => { showSteps(); if (sample) changed(); });
  at("run").addEventListener("click", () => {
    let value;
    try { value = JSON.parse(at("json").value); } catch (error) { return failed(new Error(`The sample is not JSON: ${error.message}.`)); }
    press(-1);
    if (image && [value].flat(Infinity).length === pad.shares.length) pad.shares = sharesOf(model, value);
    use({ value, name: "a typed sample" });
  });
  const card = at("input-title").parentElement;
  for (const kind of ["dragover", "dragleave", "drop"]) {
    card.addEventListener(kind, (event) => {
      event.preventDefault();
      card.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) useFile(event.dataTransfer.files[0]);
    });
  }
}
