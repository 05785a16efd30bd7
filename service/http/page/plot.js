// A plot over time: it is drawn once, and at a move of the cursor only a mark on top of it moves.
//
// Step t has the cell from t to t + 1 of the time axis, and all that happens at t stands in that cell, or in its middle.
import { follow, move, stop } from "./cursor.js";
import { make, plain, rounded, theme } from "./dom.js";

export const LEFT = 58, RIGHT = 10, TOP = 6, FOOT = 34; // pixels around the drawing, the same in all plots
const FONT = "12px system-ui, sans-serif";
const TICK = 46; // the fewest pixels between two numbers of the time axis

// A drawing context of a canvas, whose unit is a pixel of the page, however many pixels the screen has for one.
export function context(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return pen;
}

export class Plot {
  // `host` is on the page already, since its width is the plot's.
  constructor(host, { steps, height, label, time = "time step" }) {
    this.steps = steps;
    this.canvas = make("canvas", { role: "img", "aria-label": label });
    this.mark = make("div", { className: "mark" });
    this.element = make("div", { className: "plot" }, this.canvas, this.mark);
    host.append(this.element);
    this.left = LEFT;
    this.top = TOP;
    this.width = Math.max(40, host.clientWidth - LEFT - RIGHT);
    this.height = height;
    this.across = this.width / steps;
    this.pen = context(this.canvas, this.width + LEFT + RIGHT, height + TOP + FOOT);
    this.pen.font = FONT;
    this.pen.fillStyle = theme("--paper");
    this.pen.fillRect(this.left, this.top, this.width, height);
    this.#timeAxis(time);
    this.#listen();
  }

  // The middle of a step's cell.
  x(step) { return this.left + (step + 0.5) * this.across; }

  // Names the vertical axis, and writes each [value, y] beside it.
  axis(name, ticks) {
    const { pen } = this;
    pen.save();
    pen.fillStyle = theme("--quiet");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const [text, y] of ticks) pen.fillText(text, this.left - 6, Math.max(this.top + 6, Math.min(this.top + this.height - 6, y)));
    pen.translate(9, this.top + this.height / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(name, 0, 0, this.height + TOP + FOOT / 2);
    pen.restore();
  }

  // Maps values from low to high to y, with an axis of a few round numbers.
  values(name, low, high) {
    const y = (value) => this.top + this.height * (1 - (value - low) / (high - low || 1));
    this.axis(name, roundNumbers(low, high, Math.max(2, Math.floor(this.height / 30))).map((value) => [rounded(value), y(value)]));
    return y;
  }

  // A line through the middle of each step.
  line(values, y, { colour, dash = [], width = 1.5 }) {
    const { pen } = this;
    pen.save();
    pen.beginPath();
    values.forEach((value, step) => pen.lineTo(this.x(step), y(value)));
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = width;
    pen.setLineDash(dash);
    pen.stroke();
    if (values.length === 1) pen.fillRect(this.x(0) - 2, y(values[0]) - 2, 4, 4);
    pen.restore();
  }

  #timeAxis(name) {
    const { pen } = this;
    const base = this.top + this.height;
    const every = roundUp(TICK / this.across);
    pen.fillStyle = pen.strokeStyle = theme("--quiet");
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let step = 0; step < this.steps; step += every) {
      pen.fillRect(this.x(step) - 0.5, base, 1, 4);
      pen.fillText(plain(step), this.x(step), base + 6);
    }
    pen.textAlign = "right";
    pen.fillText(name, this.left + this.width, base + 20);
  }

  #listen() {
    const { mark } = this;
    mark.style.width = `${Math.max(2, this.across)}px`;
    mark.style.height = `${this.height}px`;
    mark.style.top = `${this.top}px`;
    follow(this.element, (step) => {
      mark.hidden = step >= this.steps;
      mark.style.transform = `translateX(${this.left + step * this.across}px)`;
    });
    const scrub = (event) => {
      stop();
      move(Math.floor((event.clientX - this.canvas.getBoundingClientRect().left - this.left) / this.across));
    };
    this.element.addEventListener("pointerdown", scrub);
    this.element.addEventListener("pointermove", (event) => { if (event.buttons) scrub(event); });
  }
}

// A figure with its caption, which says what it shows; `note` is a part of it that changes.
export function figure(host, title, text = "") {
  const note = make("span", {}, text);
  const made = make("figure", {}, make("figcaption", {}, make("b", {}, title), note));
  host.append(made);
  return { figure: made, note };
}

// The least of 1, 2, 5, 10, 20 … that is at least `least`.
export function roundUp(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-12)));
  const found = [1, 2, 5, 10].find((factor) => factor * power >= least * (1 - 1e-9)) * power;
  return least <= 1 ? 1 : Math.round(found);
}

function roundNumbers(low, high, most) {
  if (!(high > low)) return [low];
  const least = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(least));
  const apart = [1, 2, 5, 10].find((factor) => factor * power >= least) * power;
  const numbers = [];
  for (let k = Math.ceil(low / apart); k * apart <= high + apart * 1e-9; k += 1) numbers.push(k * apart + 0);  // not -0
  return numbers;
}
