// Rasters: the spikes of a layer over time, and of a convolution also its feature maps at the cursor.
import { follow } from "./cursor.js";
import { counted, extent, make, percent, plain, product, rounded, theme } from "./dom.js";
import { Plot, context, figure } from "./plot.js";

const LEAST = 56, MOST = 240, ROW = 5; // pixels: of a raster's height, and of a neuron's row where there is room
const MOST_IN_MAPS = 100_000;          // neurons whose feature maps are drawn

// A colour of the style sheet, #rrggbb, as its three bytes.
export const bytesOf = (colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));

// Where the spikes of each step begin in the list, which is in order of the steps: steps + 1 places.
export function startsOf(t, steps) {
  const starts = new Uint32Array(steps + 1);
  for (const step of t) starts[step + 1] += 1;
  for (let step = 0; step < steps; step += 1) starts[step + 1] += starts[step];
  return starts;
}

// Events in the order of their steps, without those after the last.
export function inOrder({ t, unit }, steps) {
  const places = t.map((_, k) => k).filter((k) => t[k] >= 0 && t[k] < steps).sort((a, b) => t[a] - t[b]);
  return { t: places.map((k) => t[k]), unit: places.map((k) => unit[k]) };
}

// Adds the figure of a layer { name, type, shape } with its spikes { t, unit }, in order of t.
export function addRaster(host, layer, spikes, steps, { colour, time, onPick }) {
  const units = product(layer.shape);
  const starts = startsOf(spikes.t, steps);
  const sizes = layer.shape.map(plain).join(" × ");
  const size = layer.type ? `${sizes} × ${layer.type}` : layer.shape.length > 1 ? `${sizes} inputs` : counted(units, layer.axis);
  const { figure: made, note } = figure(host, layer.name);
  const height = Math.max(LEAST, Math.min(MOST, units * ROW));
  const plot = new Plot(made, { steps, height, time, label: told(layer, units, spikes, starts, steps) });
  paint(plot, spikes, units, colour);
  plot.axis(layer.axis ?? "neuron", [["0", plot.top + height / units / 2], [plain(units - 1), plot.top + height - height / units / 2]]);
  follow(made, (step) => {
    if (step < steps) note.textContent = `${size}; ${counted(starts[step + 1] - starts[step], "spike")} at step ${step}`;
  });
  if (onPick) {
    plot.element.title = "Click: the step. Double-click: the membrane of that neuron.";
    plot.element.addEventListener("dblclick", (event) => {
      const y = event.clientY - plot.canvas.getBoundingClientRect().top - plot.top;
      onPick(layer.name, Math.max(0, Math.min(units - 1, Math.floor(y / height * units))));
    });
  }
  if (layer.shape.length === 3) addMaps(made, layer, spikes, starts, steps, colour);
  return plot;
}

// What a raster shows, in words.
function told(layer, units, { t }, starts, steps) {
  const counts = Array.from({ length: steps }, (_, step) => starts[step + 1] - starts[step]);
  const busiest = counts.indexOf(Math.max(...counts));
  const most = t.length ? `, most of them at step ${busiest} (${plain(counts[busiest])})` : "";
  return `Raster of ${layer.name}: ${counted(units, layer.axis ?? "neuron")} over ${counted(steps, "step")}; ` +
    `${counted(t.length, "spike")}, ${percent(t.length / units / steps)} of the most there could be${most}.`;
}

// Draws every spike as the cell of its step and neuron, by pixels: fast for any number of them.
function paint({ pen, left, top, width, height, steps }, { t, unit }, units, colour) {
  const scale = window.devicePixelRatio || 1;
  const image = new ImageData(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const pixels = new Uint32Array(image.data.buffer);
  const [red, green, blue] = bytesOf(colour);
  const ink = new Uint32Array(new Uint8ClampedArray([red, green, blue, 255]).buffer)[0];
  const across = image.width / steps, down = image.height / units;
  const gapX = across >= 4 * scale ? scale : 0, gapY = down >= 4 * scale ? scale : 0;
  for (let k = 0; k < t.length; k += 1) {
    const x = Math.floor(t[k] * across), y = Math.floor(unit[k] * down);
    const endX = Math.max(x + 1, Math.floor((t[k] + 1) * across - gapX));
    const endY = Math.max(y + 1, Math.floor((unit[k] + 1) * down - gapY));
    for (let row = y; row < endY; row += 1) pixels.fill(ink, row * image.width + x, row * image.width + endX);
  }
  pen.drawImage(drawn(image), left, top, width, height);
}

function drawn(image) {
  const canvas = make("canvas", { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The feature maps of a convolution, one for each channel: tinted what spiked up to the cursor, strongest what spikes at it.
function addMaps(host, layer, { unit }, starts, steps, colour) {
  const [channels, height, width] = layer.shape;
  const shown = Math.max(1, Math.min(channels, Math.floor(MOST_IN_MAPS / (height * width))));
  const canvas = make("canvas", { className: "maps", role: "img" });
  host.append(canvas);
  const room = host.clientWidth;
  const cell = Math.max(1, Math.min(6, Math.floor(Math.sqrt(room * 200 / (shown * (height + 1) * (width + 1))))));
  const columns = Math.max(1, Math.min(shown, Math.floor(room / (cell * (width + 1)))));
  const image = new ImageData(columns * (width + 1), Math.ceil(shown / columns) * (height + 1));
  const pen = context(canvas, image.width * cell, image.height * cell);
  pen.imageSmoothingEnabled = false;
  const buffer = drawn(image), bufferPen = buffer.getContext("2d");
  const back = bytesOf(theme("--paper")), pale = bytesOf(colour), dark = bytesOf(theme("--ink"));
  const counts = new Uint32Array(shown * height * width);
  const place = (neuron) => {
    const channel = Math.floor(neuron / (height * width)), inside = neuron % (height * width);
    const row = Math.floor(channel / columns) * (height + 1) + Math.floor(inside / width);
    return (row * image.width + (channel % columns) * (width + 1) + (inside % width)) * 4;
  };
  follow(host, (step) => {
    if (step >= steps) return;
    counts.fill(0);
    for (let k = 0; k < starts[step + 1]; k += 1) if (unit[k] < counts.length) counts[unit[k]] += 1;
    const most = step + 1;
    for (let neuron = 0; neuron < counts.length; neuron += 1) {
      const share = counts[neuron] ? 0.15 + 0.6 * Math.min(1, counts[neuron] / most) : 0;
      const at = place(neuron);
      for (let part = 0; part < 3; part += 1) image.data[at + part] = back[part] + share * (pale[part] - back[part]);
      image.data[at + 3] = 255;
    }
    for (let k = starts[step]; k < starts[step + 1]; k += 1) {
      if (unit[k] < counts.length) image.data.set(dark, place(unit[k]));
    }
    bufferPen.putImageData(image, 0, 0);
    pen.clearRect(0, 0, image.width * cell, image.height * cell);
    pen.drawImage(buffer, 0, 0, image.width * cell, image.height * cell);
    canvas.setAttribute("aria-label", `Feature maps of ${layer.name}, ${shown} of ${channels} channels of ${height} × ` +
      `${width} neurons: ${counted(starts[step + 1] - starts[step], "spike")} at step ${step}, ` +
      `${plain(starts[step + 1])} up to it.`);
  });
  host.append(make("p", { className: "quiet" }, `${layer.type ? "Feature maps" : "The input"}, ${shown < channels ? `the first ${shown} of ` : ""}${channels} ` +
    "channels: strongest where one spikes at the cursor, tinted where it spiked up to it."));
}

// Adds the figure of a time series, values[step][unit], as an image: the greater, the darker.
export function addSeries(host, name, values, { colour, time, axis }) {
  const units = values[0].length;
  const [low, high] = extent(values.flat());
  const { figure: made, note } = figure(host, name);
  const height = Math.max(LEAST, Math.min(MOST, units * ROW));
  const label = `${name}: ${counted(units, axis)} over ${counted(values.length, "step")}, from ${rounded(low)} to ${rounded(high)}.`;
  const plot = new Plot(made, { steps: values.length, height, time, label });
  const image = new ImageData(values.length, units);
  const ink = bytesOf(colour);
  values.forEach((step, t) => step.forEach((value, unit) => {
    image.data.set([...ink, 255 * (value - low) / (high - low || 1)], (unit * values.length + t) * 4);
  }));
  plot.pen.imageSmoothingEnabled = false;
  plot.pen.drawImage(drawn(image), plot.left, plot.top, plot.width, height);
  plot.axis(axis, [["0", plot.top + height / units / 2], [plain(units - 1), plot.top + height - height / units / 2]]);
  follow(made, () => { note.textContent = `${counted(units, axis)}, from ${rounded(low)} to ${rounded(high)}`; });
}
