// The time cursor: one step that all plots show, moved by its slider, by arrow keys, by a plot, or by playing.
import { at } from "./dom.js";

const FEWEST_A_SECOND = 4, MOST_A_SECOND = 60, SECONDS = 4; // that playing takes, where the steps allow it

let step = 0, steps = 1;
let followers = [];   // { element, follow }: of plots that are on the page
let drawing = false;  // whether a frame is asked for
let playing = null;   // when it began, or null
let textOf = () => "";

export const cursor = { get step() { return step; }, get steps() { return steps; } };

// Calls follow(step) soon, and at every move, until the element has left the page.
export function follow(element, follow) {
  followers.push({ element, follow });
  showSoon();
}

// Begins a new run of so many steps. The cursor stays where it was, or at the end if it was there.
export function setSteps(count, text) {
  const wasLast = step >= steps - 1;
  steps = count;
  textOf = text;
  at("cursor").max = steps - 1;
  move(wasLast ? steps - 1 : Math.min(step, steps - 1));
}

export function move(to) {
  step = Math.max(0, Math.min(steps - 1, Math.round(to)));
  at("cursor").value = step;
  showSoon();
}

// Shows the step in the next frame, however often it was moved before.
function showSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    showStep();
  });
}

function showStep() {
  const text = `step ${step} (0 to ${steps - 1})`;
  at("cursor-text").textContent = text;
  at("cursor").setAttribute("aria-valuetext", `${text}. ${textOf(step)}`);
  followers = followers.filter(({ element }) => element.isConnected);
  for (const each of followers) each.follow(step);
}

function play(now) {
  if (playing === null) return;
  const rate = Math.max(FEWEST_A_SECOND, Math.min(MOST_A_SECOND, steps / SECONDS));
  move((now - playing) / 1000 * rate);
  if (step >= steps - 1) return stop();
  requestAnimationFrame(play);
}

export function stop() {
  playing = null;
  at("play").textContent = "Play";
}

export function setUpCursor() {
  at("cursor").addEventListener("input", () => { stop(); move(at("cursor").valueAsNumber); });
  at("play").addEventListener("click", () => {
    if (playing !== null) return stop();
    playing = performance.now();
    at("play").textContent = "Stop";
    requestAnimationFrame(play);
  });
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target !== document.body) return;
    stop();
    move(step + by);
  });
}
