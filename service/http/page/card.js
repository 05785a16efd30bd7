// The model card, the layers, and what training measured.
import { make, percent, plain, product, rounded, table } from "./dom.js";
import { render } from "./markdown.js";

const WEIGHTED = /^(Linear|Conv)/; // types of nodes with weights

export function showCard(host, model) {
  const compiling = model.versions.some((each) => each.version === model.version && each.compiling);
  const engine = compiling ? `compiling kernels: answers come by ${model.engine} until then` : model.engine;
  const about = [["version", String(model.version)], ["engine", engine], ["exported", new Date(model.created).toLocaleString("en")],
    ["coding", model.coding], ["read out", model.readout], ["time steps", String(model.time_steps)]];
  const layers = model.nodes.map(({ name, type, shape, threshold, weight_bits: bits }) =>
    [name, type, shape.join(" × "), product(shape), thresholdText(threshold), bits ? `${bits} bits` : WEIGHTED.test(type) ? "float32" : ""]);
  const metrics = Object.entries(model.metrics).map(([name, value]) => [name, /accuracy|rate/.test(name) ? percent(value) : rounded(value)]);
  host.replaceChildren(
    make("section", {}, make("h2", {}, model.name), table("About", ["field", "value"], about),
      make("h2", {}, "Measured in training"), metrics.length ? table("Metrics", ["metric", "value"], metrics) : "Nothing was measured."),
    make("section", { className: "prose" }, make("h2", {}, "Model card"), ...(model.card ? render(model.card.replace(/^---\n.*?\n---\n/s, "")) : ["It has no card."])),
    make("section", { className: "wide" }, make("h2", {}, "Layers"),
      table("Layers", ["node", "type", "shape", "outputs", "threshold", "weights"], layers)),
  );
}

function thresholdText(threshold) {
  if (threshold === null) return "";
  return Array.isArray(threshold) ? `${plain(threshold.length)} own ones` : rounded(threshold);
}
