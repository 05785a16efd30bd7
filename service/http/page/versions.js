// Two versions of one model on one input, side by side.
import { describe, predict } from "./api.js";
import { answerOf, work } from "./answer.js";
import { setSteps } from "./cursor.js";
import { make, milliseconds, percent, plain, table } from "./dom.js";
import { drawRace } from "./race.js";

export function showVersions(host, model, sample, fields) {
  const ready = model.versions.filter(({ state }) => state === "ready").map(({ version }) => version).sort((a, b) => b - a);
  const error = make("p", { role: "alert" });
  const sides = ready.length > 1 ? [ready[0], ready[1]] : [ready[0]];
  const results = make("div", { className: "twins", "aria-live": "polite" });
  const choices = sides.map((version, side) => {
    const select = make("select", {}, ...ready.map((each) => new Option(`version ${each}`, each)));
    select.value = version;
    select.addEventListener("change", () => { sides[side] = Number(select.value); compare(); });
    return make("label", {}, `${side === 0 ? "Left" : "Right"} `, select);
  });
  const about = ready.length > 1 ? "The input that is chosen under “Try”, answered by two versions." :
    `Of ${model.name} one version is ready, ${ready[0]}. A server that is started with --versions all shows two here.`;
  host.replaceChildren(make("section", { className: "wide" }, make("h2", {}, "Versions side by side"), make("p", {}, about),
    make("div", { className: "row" }, ...(ready.length > 1 ? choices : [])), error, results));
  if (!sample) return results.replaceChildren(make("p", {}, "No input is chosen. Choose one under “Try”."));
  let newest = 0;

  async function compare() {
    const mine = newest += 1;
    error.textContent = "";
    try {
      const answers = await Promise.all(sides.map((version) => ask(model, version, sample, fields)));
      if (mine !== newest || !results.isConnected) return;
      results.replaceChildren();
      setSteps(Math.max(...answers.map(({ prediction }) => prediction.steps)), () => "");
      const made = answers.map(sideOf);
      results.append(...made.map(({ side }) => side));  // both first, since a plot is as wide as its place then is
      made.forEach(({ race }, k) => drawRace(race, answers[k].described, answers[k].prediction, {}, "time step"));
      if (answers.length > 1) results.after(difference(results, answers));
    } catch (fault) { error.textContent = fault.message; }
  }
  return compare();
}

async function ask(model, version, sample, fields) {
  const described = await describe(model.name, version);
  const known = described.nodes.length > 0;
  const exchange = await predict(described, sample, {
    version, ...fields, return: known ? ["spikes_per_node", "raster", "membrane"] : ["spikes_per_node"],
  });
  return { described, exchange, prediction: { ...exchange.body.predictions[0], steps: exchange.body.time_steps } };
}

function sideOf({ described, exchange, prediction }) {
  const { version, labels, metrics } = described;
  const best = prediction.class_index;
  const facts = [`version ${version}`, prediction.values ? "" : percent(prediction.probabilities[best]), milliseconds(exchange.total)];
  const race = make("div");
  const rows = Object.entries(prediction.spikes_per_node).map(([name, spikes]) => [name, spikes]);
  const side = make("div", { role: "group", "aria-label": `Version ${version}` },
    make("div", { className: "answer-of" }, answerOf(described, prediction)),
    make("p", { className: "quiet" }, facts.filter(Boolean).join(" · ")),
    ...("test_accuracy" in metrics ? [make("p", { className: "quiet" }, `${percent(metrics.test_accuracy)} right on its test samples, ${plain(labels.length)} classes`)] : []),
    race, ...work(described, prediction), rows.length ? table(`Spikes of version ${version}`, ["layer", "spikes"], rows) : "");
  return { side, race };
}

// Where the two differ, in one sentence.
function difference(results, [left, right]) {
  results.parentElement.querySelector(".difference")?.remove();
  const same = answerOf(left.described, left.prediction) === answerOf(right.described, right.prediction);
  const [a, b] = [left, right].map(({ prediction }) => prediction.synaptic_operations);
  const more = a && b ? ` Version ${left.described.version} takes ${percent(a / b)} of the synaptic operations of version ${right.described.version}.` : "";
  return make("p", { className: "difference" }, `${same ? "Both give the same answer." : "They give different answers."}${more}`);
}
