// The operator's view: each version's state, accuracy, traffic and latency, and how far firing rates have drifted.
import { describe, exchange, get } from "./api.js";
import { at, counted, make, milliseconds, percent, plain, table } from "./dom.js";
import { quantile, readMetrics, samplesOf, totalOf } from "./metrics.js";

const DRIFT = 0.25;          // of a firing rate, from which on it is marked
const FEWEST_SAMPLES = 30;   // below which a drift says little

export async function showOperator(host, focused = false) {
  const refresh = make("button", { type: "button" }, "Refresh");
  refresh.addEventListener("click", () => showOperator(host, true));
  const section = make("section", { className: "wide", "aria-busy": "true" }, make("h2", {}, "Models and versions"), make("div", { className: "row" }, refresh));
  host.replaceChildren(section);
  if (focused) refresh.focus();  // it takes the place of the one that was pressed
  try {
    const list = await get("models");
    const versions = list.models.flatMap(({ name, versions: all }) => all.map((each) => ({ name, ...each })));
    const described = await Promise.all(versions.map(({ name, version, state }) =>
      (state === "ready" ? describe(name, version).catch(() => null) : null)));
    const metrics = await get("metrics", "text").then(readMetrics).catch((error) => error);
    if (!section.isConnected) return;
    show(section, list, versions, described, metrics);
    section.append(...await unloadedModels(() => showOperator(host, true)));
  } catch (error) { section.append(make("p", { role: "alert" }, error.message)); }
  section.removeAttribute("aria-busy");
}

function show(section, list, versions, described, metrics) {
  const known = Array.isArray(metrics);
  const rows = versions.map((each, k) => [
    each.name === list.default ? `${each.name} (default)` : each.name, String(each.version), stateOf(each), each.compiling ? `${each.engine}, compiling kernels` : each.engine ?? "",
    accuracyOf(described[k]), ...(known ? trafficOf(each, metrics) : []),
  ]);
  const heads = ["model", "version", "state", "engine", "test accuracy"];
  if (known) heads.push("requests", "errors", "samples", "half below", "95 % below", "operations each");
  section.append(table("Models and versions", heads, rows));
  if (!known) {
    section.append(make("p", {}, `Traffic is not shown: ${metrics.message}`));
    return;
  }
  section.append(make("p", { className: "quiet" }, "Traffic is counted since the server started. Latency is the end of the histogram's bucket."));
  const rates = versions.flatMap((each, k) => (described[k] ? driftOf(each, described[k], metrics) : []));
  section.append(make("h2", {}, "Firing rates, beside the training's"), ...(rates.length ?
    [make("p", {}, verdict(rates)), table("Firing rates", ["model", "version", "layer", "in training", "served", "drift"], rates.map(rateRow))] :
    ["No version's bundle has the firing rates of its training."]));
}

// A button for each model that can be loaded: the gallery's, where the server is started with --gallery, and unloaded ones.
async function unloadedModels(again) {
  const { body } = await exchange("v2/repository/index", { method: "POST" });
  const error = make("p", { role: "alert" });
  const buttons = body.filter(({ version }) => version === undefined).map(({ name }) => {
    const button = make("button", { type: "button" }, `Load ${name}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await exchange(`v2/repository/models/${encodeURIComponent(name)}/load`, { method: "POST" });
        const list = at("models");
        if (![...list.options].some(({ value }) => value === name)) list.append(new Option(name, name));
        await again();
      } catch (fault) { [error.textContent, button.disabled] = [fault.message, false]; }
    });
    return button;
  });
  return buttons.length ? [make("h2", {}, "Models that can be loaded"), make("div", { className: "row" }, ...buttons), error] : [];
}

function stateOf({ state, error, loading_seconds: seconds }) {
  const text = error ? `${state}: ${error}` : seconds === undefined ? state : `${state}, for ${seconds.toFixed(0)} s`;
  return make("span", { className: state === "ready" ? "good" : error ? "bad" : "" }, text);
}

function accuracyOf(described) {
  const accuracy = described?.metrics.test_accuracy;
  return accuracy === undefined ? "" : percent(accuracy);
}

function trafficOf({ name, version }, metrics) {
  const labels = { model: name, version: String(version) };
  const requests = samplesOf(metrics, "spikeserve_model_requests_total", labels);
  const errors = requests.filter(({ labels: { status } }) => Number(status) >= 400);
  const all = (samples) => samples.reduce((total, { value }) => total + value, 0);
  const time = (share) => {
    const seconds = quantile(metrics, "spikeserve_model_request_seconds", labels, share);
    return seconds === null ? "" : seconds === Infinity ? "more" : milliseconds(1000 * seconds);
  };
  const operations = totalOf(metrics, "spikeserve_request_synaptic_operations_sum", labels);
  const answers = totalOf(metrics, "spikeserve_request_synaptic_operations_count", labels);
  return [all(requests), all(errors), totalOf(metrics, "spikeserve_samples_total", labels), time(0.5), time(0.95),
    answers ? plain(Math.round(operations / answers)) : ""];
}

// A layer's firing rate in training, and since the server started.
function driftOf({ name, version }, { metrics: trained }, metrics) {
  const labels = { model: name, version: String(version) };
  const samples = totalOf(metrics, "spikeserve_samples_total", labels);
  return Object.entries(trained).filter(([metric]) => metric.startsWith("firing_rate.")).map(([metric, rate]) => {
    const layer = metric.slice("firing_rate.".length);
    const steps = totalOf(metrics, "spikeserve_layer_neuron_steps_total", { ...labels, layer });
    const served = steps ? totalOf(metrics, "spikeserve_layer_spikes_total", { ...labels, layer }) / steps : null;
    const drift = served === null || rate === 0 ? null : served / rate - 1;
    return { name, version, layer, rate, served, samples, drift, drifted: samples >= FEWEST_SAMPLES && Math.abs(drift ?? 0) > DRIFT };
  });
}

// What the rates say, in words: how far each layer has drifted that has.
function verdict(rates) {
  const rule = `A layer has drifted where its rate is off by more than ${100 * DRIFT} %, over ${FEWEST_SAMPLES} samples or more.`;
  const far = rates.filter(({ drifted }) => drifted).map(({ name, version, layer, drift }) => `${layer} of ${name} ${version} (${signed(drift)})`);
  return far.length === 0 ? `No layer has drifted. ${rule}` :
    `${far.join(", ")} ${far.length === 1 ? "has" : "have"} drifted: what is sent is not like what the model was trained on. ${rule}`;
}

const signed = (drift) => `${drift < 0 ? "−" : "+"}${Math.abs(100 * drift).toFixed(0)} %`;

function rateRow({ name, version, layer, rate, served, samples, drift, drifted }) {
  const few = samples < FEWEST_SAMPLES ? ` (${counted(samples, "sample")} only)` : "";
  const text = served === null ? "nothing was served" : drift === null ? "silent in training" : `${signed(drift)}${few}`;
  return [name, String(version), layer, percent(rate), served === null ? "" : percent(served), make("span", { className: drifted ? "bad" : "" }, text)];
}
