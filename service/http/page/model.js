// What a model's description says of its input, its layers and its answer.
import { product } from "./dom.js";

const MOST_CELLS = 16384; // of an input that can be drawn

export const firing = (model) => model.nodes.filter((node) => node.fires);

// Whether a sample has a value for each step.
export const perStep = ({ coding }) => coding === "spikes" || coding === "current";

// A sample with a value for each step has its own time steps.
export const allowsSteps = (model) => !perStep(model);

// How each value of an input is called: those of a vector are channels.
export const inputName = ({ input: { shape } }) => (shape.length === 1 ? "channel" : "input");

export const hasClasses = ({ scores }) => scores !== "values";

// The size of an input that is an image: its channels (1 or 3), height and width. A flat vector whose length is a square
// is taken for one. Null if the input is none.
export function imageOf(model) {
  const { shape } = model.input;
  const side = Math.sqrt(shape[0]);
  const [height, width] = shape.length === 1 ? [side, side] : shape.slice(-2);
  const channels = shape.length < 3 ? 1 : shape[0];
  const fits = Number.isInteger(side) || shape.length > 1;
  if (perStep(model) || shape.length > 3 || ![1, 3].includes(channels) || !fits) return null;
  return Math.min(height, width) < 3 || height * width > MOST_CELLS ? null : { channels, height, width };
}

// The range of one value of a step: a model has one for all, or one for each.
function rangeOf({ input: { low, high } }, unit) {
  return { low: Array.isArray(low) ? low[unit] : low, high: Array.isArray(high) ? high[unit] : high };
}

// Where each value of a sample lies in its range, 0 to 1; and the values, to six digits, that lie there.
export const sharesOf = (model, value) => Float32Array.from([value].flat(Infinity), (each, unit) => {
  const { low, high } = rangeOf(model, unit);
  return (each - low) / (high - low);
});

export const rawOf = (model, shares) => Array.from(shares, (share, unit) => {
  const { low, high } = rangeOf(model, unit);
  return Math.max(low, Math.min(high, Number((low + (high - low) * share).toPrecision(6))));
});

// A flat list, row by row, as nested lists of a shape.
export function shaped(flat, shape) {
  for (const size of shape.slice(1).reverse()) {
    const rows = [];
    for (let start = 0; start < flat.length; start += size) rows.push(flat.slice(start, start + size));
    flat = rows;
  }
  return flat;
}

// A sample that can be sent before anything is chosen.
export function firstSample(model) {
  if (model.coding === "spikes") return { t: [0, 1], unit: [0, 0] };
  const lows = Array.from({ length: product(model.input.shape) }, (_, unit) => rangeOf(model, unit).low);
  const step = shaped(lows, model.input.shape);
  return model.coding === "current" ? new Array(model.time_steps).fill(step) : step;
}

// A sample of spikes as events { t, unit } and its steps, however it was written; null if it has another form.
export function eventsOf(model, value) {
  const { shape } = model.input;
  if (Array.isArray(value?.t) && Array.isArray(value.unit)) return { t: value.t, unit: value.unit };
  if (Array.isArray(value?.t) && Array.isArray(value.x) && Array.isArray(value.y)) {
    const [, height, width] = shape;
    return { t: value.t, unit: value.x.map((x, k) => ((value.p?.[k] ?? 0) * height + value.y[k]) * width + x) };
  }
  if (!Array.isArray(value)) return null;
  const events = { t: [], unit: [] };
  value.forEach((step, t) => [step].flat(Infinity).forEach((spikes, unit) => {
    if (spikes) { events.t.push(t); events.unit.push(unit); }
  }));
  return events;
}

// What the classes have after each step, by what the answer is read from: [class][step], and the axis' name. Null where
// the recorded spikes and membranes do not show it.
export function courses(model, { raster, membrane }, steps) {
  const classes = model.labels.length;
  const { readout } = model;
  const last = model.nodes.at(-1);
  if (!readout.endsWith("_membrane") && last.fires) {
    if (product(last.shape) !== classes || !raster?.[last.name]) return null;
    return ofSpikes(readout, raster[last.name], classes, steps);
  }
  const source = readout.endsWith("_membrane") ? model.nodes.findLast((node) => membrane?.[node.name]) : last;
  const values = source && membrane?.[source.name];
  if (!values || product(source.shape) !== classes) return null;
  const reduction = readout.replace("_membrane", "");
  return { axis: `${reduction} membrane so far`, lines: reduced(reduction, classes, values.length, (step, k) => values[step][k]) };
}

function ofSpikes(readout, { t, unit }, classes, steps) {
  const counts = Array.from({ length: steps }, () => new Uint32Array(classes));
  t.forEach((step, k) => { counts[step][unit[k]] += 1; });
  if (readout === "first_spike") {
    const first = Array.from({ length: classes }, (_, k) => counts.findIndex((step) => step[k] > 0));
    const lines = first.map((from) => Array.from(counts, (_, step) => (from >= 0 && from <= step ? steps - from : 0)));
    return { axis: "steps from the first spike", lines };
  }
  const reduction = readout === "spike_count" ? "sum" : readout;
  const axis = reduction === "sum" ? "spikes so far" : `${reduction} of spikes so far`;
  return { axis, lines: reduced(reduction, classes, steps, (step, k) => counts[step][k]) };
}

function reduced(reduction, classes, steps, value) {
  return Array.from({ length: classes }, (_, k) => {
    let total = 0, most = -Infinity;
    return Array.from({ length: steps }, (_, step) => {
      const now = value(step, k);
      total += now;
      most = Math.max(most, now);
      return { sum: total, mean: total / (step + 1), max: most, last: now }[reduction];
    });
  });
}
