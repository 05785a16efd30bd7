// The answer: the class, what each class got, the work beside a dense network's, and where the time went.
import { at, make, milliseconds, percent, plain, rounded, showBest, sum, table } from "./dom.js";
import { firing } from "./model.js";

// How long each bar is, and what is written beside it: spike counts where they are what is read out, else probabilities,
// or the values with their units.
function barsOf(model, { spike_counts: counts, probabilities, values }) {
  if (values) return [values.map(Math.abs), values.map((value, k) => `${rounded(value)} ${model.units?.[k] ?? ""}`.trim())];
  return model.readout === "spike_count" ? [counts, counts.map(plain)] : [probabilities, probabilities.map(percent)];
}

const spikesOf = (prediction) => sum(Object.values(prediction.spikes_per_node ?? {}));

// Whether nothing spiked where only spikes could have answered.
export function silent(model, prediction) {
  return !prediction.values && spikesOf(prediction) === 0 && firing(model).length > 0;
}

// Lays out the bars of a model's classes, or values.
export function showLabels(model) {
  at("bars").replaceChildren(...model.labels.map((label) => {
    const [name, track, bar, count] = ["name", "track", "bar", "count"].map((part) => make("div", { className: part }));
    name.textContent = name.title = label;
    track.append(bar);
    return make("div", { className: "item", role: "listitem" }, name, track, count);
  }));
}

export function showNoAnswer(text) {
  at("label").textContent = "–";
  at("facts").textContent = text;
  at("work").replaceChildren();
  for (const item of at("bars").children) fill(item, 0, "", false);
}

function fill(item, share, text, best) {
  item.classList.toggle("best", best);
  item.querySelector(".bar").style.width = `${100 * share}%`;
  item.querySelector(".count").textContent = text;
}

// The class of a prediction, or its one value, or how many values it has.
export function answerOf(model, prediction) {
  if (silent(model, prediction)) return "–";
  if (!prediction.values) return prediction.label;
  return prediction.values.length === 1 ? barsOf(model, prediction)[1][0] : `${prediction.values.length} values`;
}

export function showAnswer(model, prediction) {
  const { class_index: best, probabilities, values, synaptic_operations: operations } = prediction;
  const quiet = silent(model, prediction);
  const [amounts, texts] = barsOf(model, prediction);
  const facts = values ? [] : [percent(probabilities[best])];
  facts.push(`${plain(spikesOf(prediction))} spikes`);
  facts.push(`${plain(operations)} synaptic operations`);
  if (prediction.of > 1) facts.push(`the first of ${plain(prediction.of)} samples`);
  at("label").textContent = answerOf(model, prediction);
  at("facts").textContent = quiet ? "Nothing spikes." : facts.join(" · ");
  const most = Math.max(...amounts) || 1;
  [...at("bars").children].forEach((item, k) => fill(item, amounts[k] / most, texts[k], !quiet && k === best));
  showBest(at("bars"));
  at("work").replaceChildren(...work(model, prediction), ...latency(prediction.exchange));
}

// The synaptic operations beside those of a network that multiplies by every weight at every step.
export function work(model, { synaptic_operations: operations, steps }) {
  const { once, per_step: each } = model.dense_operations, dense = once + each * steps;
  if (dense === 0) return [];
  const bar = make("div", { className: "bar" });
  bar.style.width = `${Math.min(100, 100 * operations / dense)}%`;
  const item = make("div", { className: "item best", role: "img", "aria-label": `${percent(operations / dense)} of the dense network's work` },
    make("div", { className: "name" }, "of dense"), make("div", { className: "track" }, bar), make("div", { className: "count" }, percent(operations / dense)));
  return [make("h3", {}, "Work"), item, make("p", { className: "quiet" },
    `${plain(operations)} synaptic operations, of ${plain(dense)} in a dense network: ${once ? `${plain(once)} once, ` : ""}${plain(each)} at each of ${plain(steps)} steps.`)];
}

// The parts that the server tells in the header Server-Timing, and the total as seen from here.
export function latency({ total, bytes, parts }) {
  const rows = parts.map(({ name, milliseconds: taken }) => [name, milliseconds(taken)]);
  rows.push([parts.length ? "all, with the network" : "request and answer", milliseconds(total)]);
  return [make("h3", {}, "Time"), table("Time", ["part", "took"], rows), make("p", { className: "quiet" }, `The answer has ${plain(bytes)} bytes.`)];
}
