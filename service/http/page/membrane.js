// The membranes of chosen neurons of one layer, after each step's reset, with their thresholds.
import { follow } from "./cursor.js";
import { at, colours, make, plain, product, rounded, theme } from "./dom.js";
import { Plot, figure } from "./plot.js";

const HEIGHT = 190, MOST = 4; // pixels; neurons that are shown
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];

let shown = { host: null };

// Offers the layers whose membranes were recorded. At first the output layer's neurons that spiked most are chosen.
export function showMembranes(host, model, prediction, time) {
  const membranes = prediction?.membrane ?? {};
  const layers = model.nodes.filter((node) => membranes[node.name]);
  const before = shown.model === model ? at("membrane-layer").value : "";
  shown = { host, model, prediction, time, layers };
  at("membrane-layer").replaceChildren(...layers.map(({ name }) => new Option(name, name)));
  if (layers.length === 0) {
    at("membrane-neurons").value = "";
    host.replaceChildren(make("p", { className: "quiet" }, prediction?.membraneError ?? "There are no membranes yet."));
    return;
  }
  at("membrane-layer").value = layers.some(({ name }) => name === before) ? before : layers.at(-1).name;
  if (!before || !at("membrane-neurons").value) choose(busiest());
  else draw();
}

// Shows the membrane of one more neuron, of any layer.
export function pickNeuron(layer, neuron) {
  if (!shown.layers?.some(({ name }) => name === layer)) return;
  const same = at("membrane-layer").value === layer;
  at("membrane-layer").value = layer;
  choose([...new Set([neuron, ...(same ? chosen() : [])])].slice(0, MOST));
}

function choose(neurons) {
  at("membrane-neurons").value = neurons.join(", ");
  draw();
}

function chosen() {
  return at("membrane-neurons").value.split(/[\s,]+/).filter(Boolean).map(Number);
}

function busiest() {
  const layer = at("membrane-layer").value;
  const values = shown.prediction.membrane[layer];
  const counts = new Float64Array(values[0].length);
  const spikes = shown.prediction.raster?.[layer];
  if (spikes) for (const unit of spikes.unit) counts[unit] += 1;
  else values.forEach((step) => step.forEach((value, unit) => { counts[unit] += value; }));
  return Array.from(counts.keys()).sort((a, b) => counts[b] - counts[a] || a - b).slice(0, 3);
}

function draw() {
  const { host, prediction, time } = shown;
  const layer = shown.layers.find(({ name }) => name === at("membrane-layer").value);
  const units = product(layer.shape);
  const neurons = chosen();
  const wrong = neurons.find((neuron) => !Number.isInteger(neuron) || neuron < 0 || neuron >= units);
  if (neurons.length === 0 || neurons.length > MOST || wrong !== undefined) {
    host.replaceChildren(make("p", { role: "alert" }, wrong === undefined ?
      `There are ${neurons.length} neurons, expected 1 to ${MOST}, separated by commas.` :
      `A neuron is ${wrong}, expected a whole number from 0 to ${plain(units - 1)}.`));
    return;
  }
  host.replaceChildren();
  const values = prediction.membrane[layer.name];
  const traces = neurons.map((neuron) => values.map((step) => step[neuron]));
  const thresholds = neurons.map((neuron) => (Array.isArray(layer.threshold) ? layer.threshold[neuron] : layer.threshold));
  const { figure: made, note } = figure(host, `Membranes of ${layer.name}`);
  const plot = new Plot(made, { steps: values.length, height: HEIGHT, time, label: told(layer, neurons, traces, thresholds) });
  const all = [...traces.flat(), ...thresholds.filter((each) => typeof each === "number")];
  const low = Math.min(0, ...all), high = Math.max(...all), room = 0.12 * (high - low || 1);
  const y = plot.values("membrane", low - room / 2, high + room);
  new Set(thresholds.filter((each) => typeof each === "number")).forEach((threshold) => {
    plot.line(values.map(() => threshold), y, { colour: theme("--quiet"), dash: [4, 4], width: 1 });
    plot.pen.save();
    plot.pen.fillStyle = theme("--quiet");
    plot.pen.textAlign = "right";
    plot.pen.textBaseline = "bottom";
    plot.pen.fillText("threshold", plot.left + plot.width - 4, y(threshold) - 2);
    plot.pen.restore();
  });
  const legend = make("figcaption", {});
  traces.forEach((trace, place) => {
    const colour = colours()[place];
    plot.line(trace, y, { colour, dash: DASHES[place], width: 2 });
    markSpikes(plot, layer, neurons[place], place, colour);
    const name = make("b", {}, `${["━", "╍", "┅", "╌"][place]} neuron ${neurons[place]}`);
    name.style.color = colour;
    legend.append(name);
  });
  if (prediction.raster?.[layer.name]) legend.append(make("span", {}, "short marks above: its spikes, after which it was reset"));
  made.append(legend);
  follow(made, (step) => {
    if (step < values.length) note.textContent = `after step ${step}: ${traces.map((trace) => rounded(trace[step])).join(", ")}`;
  });
}

function markSpikes(plot, layer, neuron, place, colour) {
  const spikes = shown.prediction.raster?.[layer.name];
  if (!spikes) return;
  plot.pen.fillStyle = colour;
  spikes.unit.forEach((unit, k) => {
    if (unit === neuron) plot.pen.fillRect(plot.x(spikes.t[k]) - 1, plot.top + 1 + 5 * place, 2, 4);
  });
}

function told(layer, neurons, traces, thresholds) {
  const each = neurons.map((neuron, k) => `neuron ${neuron} from ${rounded(Math.min(...traces[k]))} to ` +
    `${rounded(Math.max(...traces[k]))}${typeof thresholds[k] === "number" ? `, threshold ${rounded(thresholds[k])}` : ""}`);
  return `Membranes of ${layer.name} after each step's reset: ${each.join("; ")}.`;
}

export function setUpMembranes() {
  at("membrane-layer").addEventListener("change", () => choose(busiest()));
  at("membrane-neurons").addEventListener("change", draw);
}
