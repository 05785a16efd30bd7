// The time cursor: one step that all plots show, moved by a slider, by arrow keys, by a plot, or by playing.
import { make } from "./dom.js";

const FEWEST_A_SECOND = 4, MOST_A_SECOND = 60, SECONDS = 4; // that playing takes, where the steps allow it

let step = 0, steps = 1;
let followers = [];   // { element, follow }: of plots and sliders that are on the page
let drawing = false;  // whether a frame is asked for
let playing = null;   // when it began, or null
let textOf = () => "";

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
  move(wasLast ? steps - 1 : Math.min(step, steps - 1));
}

export function move(to) {
  step = Math.max(0, Math.min(steps - 1, Math.round(to)));
  showSoon();
}

// Shows the step in the next frame, however often it was moved before.
function showSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    followers = followers.filter(({ element }) => element.isConnected);
    for (const each of followers) each.follow(step);
  });
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
  showSoon();
}

// A bar with the slider, a button that plays, and the step in words.
export function timeBar() {
  const button = make("button", { type: "button" }, "Play");
  const slider = make("input", { type: "range", min: 0, value: 0, "aria-label": "Time step" });
  const output = make("output", { "aria-live": "off" }); // the slider says it, with more
  const bar = make("div", { className: "time wide", role: "group", "aria-label": "Time" }, button, slider, output);
  slider.addEventListener("input", () => { stop(); move(slider.valueAsNumber); });
  button.addEventListener("click", () => {
    if (playing !== null) return stop();
    playing = performance.now();
    showSoon();
    requestAnimationFrame(play);
  });
  follow(bar, () => {
    bar.hidden = steps === 1;  // nothing to play
    const text = `step ${step} (0 to ${steps - 1})`;
    button.textContent = playing === null ? "Play" : "Stop";
    slider.max = steps - 1;
    slider.value = step;
    slider.setAttribute("aria-valuetext", `${text}. ${textOf(step)}`);
    output.textContent = text;
  });
  return bar;
}

// Arrow keys move it too, where nothing has the focus.
export function setUpCursor() {
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target !== document.body) return;
    stop();
    move(step + by);
  });
}
