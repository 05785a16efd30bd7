// The page: which model is chosen, what is asked of the server, and which view is open.
import { describe, examplesOf, get, hasKey, predict, predictReturning, useKey, whenAKeyIsNeeded } from "./api.js";
import { showAnswer, showLabels, showNoAnswer } from "./answer.js";
import { showCard } from "./card.js";
import { setSteps, setUpCursor, stop, timeBar } from "./cursor.js";
import { at, colours, counted, make, rounded, sum } from "./dom.js";
import { currentSample, drawInput, drawThumbnails, fields, overTime, setUpInputs, showInputs } from "./inputs.js";
import { redrawLive, showLive, stopLive } from "./live.js";
import { pickNeuron, setUpMembranes, showMembranes } from "./membrane.js";
import { firing, hasClasses, imageOf, inputName } from "./model.js";
import { showOperator } from "./operator.js";
import { drawRace } from "./race.js";
import { addRaster, addSeries, inOrder, startsOf } from "./raster.js";
import { showVersions } from "./versions.js";

const AGAIN_MS = 2000; // until the server is asked again whose models are still loading

let models = [];       // as GET /models lists them
let model = null;      // the answer of GET /models/{name}
let examples = [];
let prediction = null; // the last answer, with the steps it ran for, and its membranes once they are there
let ends = {};         // after how many steps each rule would have ended it
let asking = false, stale = false;
let choosing = 0;      // models that are being fetched
let details = null;    // stops the requests for what is shown after the answer

const showBusy = () => at("answer").setAttribute("aria-busy", String(asking || choosing > 0));

function showError(error) { at("error").textContent = error ? error.message : ""; }

// Shows the field for the key, and hides the links that a browser would follow without the key.
function showKeyField() {
  at("key-field").hidden = false;
  at("key").focus();
  for (const link of document.querySelectorAll("nav a:not([href='docs'])")) link.hidden = true;
}

// Asks for the sample that is chosen now, one request at a time; if it has changed meanwhile, another follows its answer.
async function ask() {
  stale = true;
  details?.abort();
  if (!currentSample()) return showNothing();
  if (asking) return;
  asking = true;
  showBusy();
  try {
    while (stale) {
      stale = false;
      await askOnce(model, currentSample());
    }
  } finally {
    asking = false;
    showBusy();
  }
}

async function askOnce(asked, sample) {
  details = new AbortController();
  const { signal } = details;
  if (!sample) return;
  try {
    const exchange = await predictReturning(asked, sample, fields(), ["spikes_per_node", "raster"], ["spikes_per_node"]);
    if (asked !== model || currentSample() !== sample) return;
    const { predictions, time_steps: steps } = exchange.body;
    [prediction, ends] = [{ ...predictions[0], steps, exchange, of: predictions.length }, {}];
    showError(null);
    show();
  } catch (error) {
    if (asked === model && currentSample() === sample) {
      showError(error);
      showNothing("");
    }
    return;
  }
  await askDetails(asked, sample, prediction, signal);
}

// Asks when the sample would have ended early, and for the membranes. What is refused is said in their place.
async function askDetails(asked, sample, answer, signal) {
  const wanted = () => !signal.aborted && prediction === answer;
  const one = async (more) => (await predict(asked, sample, { ...fields(), ...more, signal })).body.predictions[0];
  const ownSteps = answer.steps === asked.calibration?.time_steps;
  for (const rule of !hasClasses(asked) ? [] : ownSteps ? ["decided", "confident"] : ["decided"]) {
    const found = wanted() && (await one({ stop: rule }).catch(() => null));
    if (found && wanted()) ends[rule] = found.steps_used;
  }
  if (!wanted()) return;
  try { answer.membrane = (await one({ return: ["membrane"] })).membrane; } catch (error) { answer.membraneError = error.message; }
  if (wanted()) showDetails();
}

// Shows all that is known of the last answer.
function show() {
  if (!prediction) return showNothing();
  showAnswer(model, prediction);
  showRasters();
  showDetails();
}

function showDetails() {
  drawRace(at("race"), model, prediction, ends, timeAxis());
  showMembranes(at("membranes"), model, prediction, timeAxis());
}

function timeAxis() {
  const us = model.input.events?.step_us;
  return us ? `time step (${us >= 1000 ? `${rounded(us / 1000)} ms` : `${us} µs`} each)` : "time step";
}

function showRasters() {
  const { steps } = prediction, host = at("rasters"), time = timeAxis();
  host.replaceChildren();
  const input = overTime();
  if (input?.events) {
    const layer = { name: "input", shape: model.input.shape, axis: inputName(model) };
    addRaster(host, layer, inOrder(input.events, steps), steps, { colour: colours().at(-1), time });
  } else if (input) addSeries(host, "input", input.series, { colour: colours().at(-1), time, axis: inputName(model) });
  const layers = firing(model), starts = [];
  layers.forEach((layer, index) => {
    const spikes = prediction.raster?.[layer.name];
    if (!spikes) return;
    starts.push(startsOf(spikes.t, steps));
    addRaster(host, layer, spikes, steps, { colour: colours()[index % (colours().length - 1)], time, onPick: pickNeuron });
  });
  if (starts.length === 0) host.append(make("p", { className: "quiet" }, prediction.exchange.tooLong ?? "No layer's spikes are known."));
  setSteps(steps, (step) => `${counted(sum(starts.map((of) => of[step + 1] - of[step])), "spike")} in all layers`);
}

function showNothing(text = imageOf(model) ? "Draw something." : "") {
  prediction = null;
  showNoAnswer(text);
  at("rasters").replaceChildren(make("p", { className: "quiet" }, "There is no answer yet."));
  ends = {};
  showDetails();
}

// Fetches all that is shown of a model before anything is: nothing that is typed in then is overwritten.
async function choose(name) {
  choosing += 1;
  showBusy();
  details?.abort();
  try {
    const [found, golden] = await Promise.all([describe(name), examplesOf(name)]).catch((error) => { showError(error); return []; });
    if (!found || name !== at("models").value) return;  // another was chosen meanwhile
    [model, examples, prediction] = [found, golden, null];
    showError(null);
    showLabels(model);
    showNothing();
    showInputs(model, examples);
    openTab(tab());
  } finally {
    choosing -= 1;
    showBusy();
  }
}

// Chooses what can be clicked: the default model if it has examples, else another that has, else one to draw for.
async function firstModel(list) {
  const ready = list.models.filter(({ versions }) => versions.some(({ state }) => state === "ready")).map(({ name }) => name);
  const names = ready.includes(list.default) ? [list.default, ...ready.filter((name) => name !== list.default)] : ready;
  for (const name of names) if ((await examplesOf(name)).length > 0) return name;
  return names[0];
}

async function start() {
  try {
    const list = await get("models");
    at("key-field").hidden = true;
    at("key").value = "";
    models = list.models;
    const first = await firstModel(list);
    at("models").replaceChildren(...models.map(({ name }) => new Option(name, name)));
    if (first === undefined) return wait(list);
    at("models").value = first;
    await choose(first);
  } catch (error) { showError(error); }
}

// Says why no model answers, and asks again while some are loading.
function wait(list) {
  const { error } = list.models.flatMap(({ versions }) => versions).find((version) => version.error) ?? {};
  showError(new Error(error ?? "The models are still loading."));
  if (list.models.some(({ versions }) => versions.some(({ state }) => state === "loading"))) setTimeout(start, AGAIN_MS);
}

// Views

const VIEWS = {
  try: () => { drawThumbnails(); drawInput(); show(); },
  live: () => showLive(at("live"), model, examples, currentSample(), showError),
  versions: () => showVersions(at("versions"), model, currentSample(), fields()),
  card: () => showCard(at("card"), model),
  operator: () => showOperator(at("operator")),
};

const tabs = () => [...at("tabs").children];
const tab = () => tabs().find((button) => button.getAttribute("aria-selected") === "true").id.replace("tab-", "");

function openTab(name) {
  for (const button of tabs()) {
    const chosen = button.id === `tab-${name}`;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    at(button.getAttribute("aria-controls")).hidden = !chosen;
  }
  stop();
  if (name !== "live") stopLive();
  if (model) VIEWS[name]();
}

function setUpTabs() {
  for (const button of tabs()) button.addEventListener("click", () => openTab(button.id.replace("tab-", "")));
  at("tabs").addEventListener("keydown", (event) => {
    const all = tabs(), here = all.indexOf(document.activeElement);
    const next = { ArrowLeft: all.at(here - 1), ArrowRight: all[(here + 1) % all.length], Home: all[0], End: all.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
    openTab(next.id.replace("tab-", ""));
  });
  openTab("try");
}

function redraw() {
  if (tab() === "live") redrawLive();
  else if (model && ["try", "versions"].includes(tab())) VIEWS[tab()]();
}

whenAKeyIsNeeded(showKeyField);
at("key").addEventListener("change", () => { useKey(at("key").value.trim()); if (hasKey()) start(); });
at("models").addEventListener("change", (event) => choose(event.target.value));
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (width !== window.innerWidth) redraw();  // a phone's bars come and go, which changes the height only
  width = window.innerWidth;
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
setUpTabs();
at("race").parentElement.before(timeBar());
setUpCursor();
setUpMembranes();
setUpInputs(ask, showError);
start();
