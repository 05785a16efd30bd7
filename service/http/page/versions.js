// Two versions of one model on one input, side by side, under one cursor.
import { describe, predictReturning } from "./api.js";
import { answerOf, work } from "./answer.js";
import { setSteps, timeBar } from "./cursor.js";
import { colours, counted, make, milliseconds, percent, plain, table } from "./dom.js";
import { firing } from "./model.js";
import { drawRace } from "./race.js";
import { addRaster } from "./raster.js";

export function showVersions(host, model, sample, fields) {
  const ready = model.versions.filter(({ state }) => state === "ready").map(({ version }) => version).sort((a, b) => b - a);
  const error = make("p", { role: "alert" });
  const verdict = make("p", { className: "difference", role: "status" });
  const sides = ready.slice(0, 2);
  const results = make("div", { className: "twins wide" });
  const choices = sides.map((version, side) => {
    const select = make("select", {}, ...ready.map((each) => new Option(`version ${each}`, each)));
    select.value = version;
    select.addEventListener("change", () => { sides[side] = Number(select.value); compare(); });
    return make("label", {}, `${side === 0 ? "Left" : "Right"} `, select);
  });
  const about = ready.length > 1 ? "The input that is chosen under “Try”, answered by two versions." :
    `Of ${model.name} one version is ready, ${ready[0]}. A server that is started with --versions all shows two here.`;
  host.replaceChildren(
    make("section", { className: "wide" }, make("h2", {}, "Versions side by side"), make("p", {}, about),
      make("div", { className: "row" }, ...(ready.length > 1 ? choices : [])), error, verdict),
    ...(ready.length > 1 && sample ? [timeBar(), results] : []),
  );
  if (ready.length < 2) return undefined;  // the answer of one stands under “Try”
  if (!sample) {
    verdict.textContent = "No input is chosen. Choose one under “Try”.";
    return undefined;
  }
  let newest = 0;

  async function compare() {
    const mine = newest += 1;
    const wanted = () => mine === newest && results.isConnected;
    error.textContent = "";
    try {
      const answers = await Promise.all(sides.map((version) => ask(model, version, sample, fields)));
      if (!wanted()) return;
      const made = answers.map(sideOf);
      results.replaceChildren(...made.map(({ side }) => side));  // both first, since a plot is as wide as its place then is
      made.forEach(({ race, rasters }, k) => draw(race, rasters, answers[k]));
      setSteps(Math.max(...answers.map(({ prediction }) => prediction.steps)), (step) => answers.map((answer) => told(answer, step)).join(", "));
      verdict.textContent = difference(answers);
    } catch (fault) {
      if (!wanted()) return;
      results.replaceChildren();
      verdict.textContent = "";
      error.textContent = fault.message;
    }
  }
  return compare();
}

async function ask(model, version, sample, fields) {
  const described = await describe(model.name, version);
  const least = ["spikes_per_node"], lists = [[...least, "raster", "membrane"], [...least, "raster"], least];
  const exchange = await predictReturning(described, sample, { version, ...fields }, ...lists);
  return { described, exchange, prediction: { ...exchange.body.predictions[0], steps: exchange.body.time_steps } };
}

function sideOf({ described, exchange, prediction }) {
  const { version, labels, metrics } = described;
  const best = prediction.class_index;
  const facts = [`version ${version}`, prediction.values ? "" : percent(prediction.probabilities[best]), milliseconds(exchange.total)];
  const race = make("div"), rasters = make("div");
  const rows = Object.entries(prediction.spikes_per_node).map(([name, spikes]) => [name, spikes]);
  const side = make("section", { "aria-label": `Version ${version}` },
    make("div", { className: "answer-of" }, answerOf(described, prediction)),
    make("p", { className: "quiet" }, facts.filter(Boolean).join(" · ")),
    ...("test_accuracy" in metrics ? [make("p", { className: "quiet" }, `${percent(metrics.test_accuracy)} right on its test samples, ${plain(labels.length)} classes`)] : []),
    race, rasters, ...work(described, prediction), rows.length ? table(`Spikes of version ${version}`, ["layer", "spikes"], rows) : "");
  return { side, race, rasters };
}

function draw(race, rasters, { described, exchange, prediction }) {
  const time = "time step";
  drawRace(race, described, prediction, {}, time);
  if (!prediction.raster) rasters.append(make("p", { className: "quiet" }, exchange.tooLong ?? "No layer's spikes are known."));
  firing(described).forEach((layer, index) => {
    const spikes = prediction.raster?.[layer.name], own = colours();
    if (spikes) addRaster(rasters, layer, spikes, prediction.steps, { colour: own[index % (own.length - 1)], time });
  });
}

// How many neurons of a version spike at a step, in words.
function told({ described: { version }, prediction: { raster = {} } }, step) {
  const spikes = Object.values(raster).reduce((all, { t }) => all + t.filter((each) => each === step).length, 0);
  return `${counted(spikes, "spike")} in version ${version}`;
}

// Where the two differ, in one sentence.
function difference([left, right]) {
  const same = answerOf(left.described, left.prediction) === answerOf(right.described, right.prediction);
  const [a, b] = [left, right].map(({ prediction }) => prediction.synaptic_operations);
  const more = a && b ? ` Version ${left.described.version} takes ${percent(a / b)} of the synaptic operations of version ${right.described.version}.` : "";
  return `${same ? "Both give the same answer." : "They give different answers."}${more}`;
}
