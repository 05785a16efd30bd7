// The operator's view: each version's state, accuracy, traffic and latency, and how far firing rates have drifted.
import { describe, get } from "./api.js";
import { counted, make, milliseconds, percent, plain, table } from "./dom.js";
import { quantile, readMetrics, samplesOf, totalOf } from "./metrics.js";

const DRIFT = 0.25;          // of a firing rate, from which on it is marked
const FEWEST_SAMPLES = 30;   // below which a drift says little

export async function showOperator(host) {
  const refresh = make("button", { type: "button" }, "Refresh");
  refresh.addEventListener("click", () => showOperator(host));
  const section = make("section", { className: "wide", "aria-busy": "true" }, make("h2", {}, "Models and versions"), make("div", { className: "row" }, refresh));
  host.replaceChildren(section);
  try {
    const list = await get("models");
    const versions = list.models.flatMap(({ name, versions: all }) => all.map((each) => ({ name, ...each })));
    const described = await Promise.all(versions.map(({ name, version, state }) =>
      (state === "ready" ? describe(name, version).catch(() => null) : null)));
    const metrics = await get("metrics", "text").then(readMetrics).catch((error) => error);
    if (!section.isConnected) return;
    show(section, list, versions, described, metrics);
  } catch (error) { section.append(make("p", { role: "alert" }, error.message)); }
  section.removeAttribute("aria-busy");
}

function show(section, list, versions, described, metrics) {
  const known = Array.isArray(metrics);
  const rows = versions.map((each, k) => [
    each.name === list.default ? `${each.name} (default)` : each.name, String(each.version), stateOf(each), each.engine ?? "",
    accuracyOf(described[k]), ...(known ? trafficOf(each, metrics) : []),
  ]);
  const heads = ["model", "version", "state", "engine", "test accuracy"];
  if (known) heads.push("requests", "errors", "samples", "half below", "95 % below", "operations a request");
  section.append(table("Models and versions", heads, rows));
  if (!known) {
    section.append(make("p", {}, `Traffic is not shown: ${metrics.message}`));
    return;
  }
  section.append(make("p", { className: "quiet" }, "Traffic is counted since the server started. Latency is the end of the histogram's bucket."));
  const rates = versions.flatMap((each, k) => (described[k] ? driftOf(each, described[k], metrics) : []));
  section.append(make("h2", {}, "Firing rates, beside the training's"), rates.length ?
    table("Firing rates", ["model", "version", "layer", "in training", "served", "drift"], rateRows(rates)) :
    "No version has firing rates of training and layers that were served.");
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
    return { name, version, layer, rate, served, samples };
  });
}

function rateRows(rates) {
  return rates.map(({ name, version, layer, rate, served, samples }) => {
    const drift = served === null || rate === 0 ? null : served / rate - 1;
    const few = samples < FEWEST_SAMPLES;
    const text = drift === null ? "nothing was served" : `${drift > 0 ? "+" : ""}${(100 * drift).toFixed(0)} %${few ? ` (${counted(samples, "sample")} only)` : ""}`;
    const mark = make("span", { className: drift !== null && !few && Math.abs(drift) > DRIFT ? "bad" : "" }, text);
    return [name, String(version), layer, percent(rate), served === null ? "" : percent(served), mark];
  });
}
