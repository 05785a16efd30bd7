// A sensor that the pointer plays: a field of pixels, or a row of units, whose events are taken by the session.
import { Accumulated } from "./camera.js";
import { counted, make, product, theme } from "./dom.js";
import { inputName } from "./model.js";
import { context } from "./plot.js";

const MOST_HEIGHT = 320; // pixels of the field
const EVERY_US = 5000;   // between two events of a unit that is held
const BRUSH = 1;         // pixels around the pointer that change with it
const FADING_US = 500_000; // in which what events have drawn fades to a third

export class Sensor {
  constructor(canvas, model) {
    const { shape, events } = model.input;
    this.canvas = canvas;
    this.binning = events;
    // Without a binning, one or two channels of rows and columns are a camera's, and anything else is units.
    const camera = events ? events.sensor.length === 2 : shape.length === 3 && shape[0] <= 2;
    const whole = events ? [0, 0, events.sensor[0], events.sensor[1] ?? 1] : camera ? [0, 0, shape[2], shape[1]] : [0, 0, product(shape), 1];
    const area = events?.crop ?? whole;
    [this.x0, this.y0, this.width, this.height] = area;
    this.units = !camera;
    this.polarity = events?.polarity ?? (camera && shape[0] === 2 ? "channels" : "merged");
    this.rows = this.units ? this.width : this.height;
    this.unitName = events ? "unit" : inputName(model);
    this.rowName = this.units ? `one ${this.unitName}` : "one row of the sensor";
    this.seen = camera ? new Accumulated(this) : null; // what the session's events have drawn
    this.until = 0;       // the time up to which it has
    this.waiting = [];    // events that are not taken yet
    this.place = { x: 0, y: 0 };
    this.held = false;
    this.listening = false;
    this.last = -Infinity; // when the unit that is held last fired
    this.#listen();
  }

  listen(on) {
    this.listening = on;
    this.held = false;
    this.waiting = [];
    this.last = -Infinity;
  }

  // The events until now, in microseconds of the session: those of movements, and of a unit that is held.
  take(now) {
    if (this.units && this.held) {
      const from = Math.max(this.last + EVERY_US, now - 20_000);
      for (let t = from; t < now; t += EVERY_US) {
        this.waiting.push({ x: this.place.x, y: 0, p: this.#polarity(0), t });
        this.last = t;
      }
    }
    const taken = this.waiting.map((event) => this.#event({ t: Math.max(0, now - 1), ...event }));
    this.waiting = [];
    return taken;
  }

  // Begins a session: nothing has been seen.
  wipe() {
    this.seen?.wipe();
    this.until = 0;
    this.draw();
  }

  // Adds events that were sent by `now` to the picture.
  show(events, now) {
    if (!this.seen) return;
    this.seen.fade(Math.exp(Math.min(0, this.until - now) / FADING_US));
    this.until = now;
    for (const { x, y, p } of events) this.seen.add(x - this.x0, y - this.y0, p !== 0);
    this.draw();
  }

  // The event of an input of the network, at a time.
  eventOf(input, t) {
    const bin = this.binning?.bin ?? 1;
    const across = Math.ceil(this.width / bin), down = Math.ceil(this.height / bin);
    if (this.units) return this.#event({ t, x: (input % across) * bin, y: 0, p: this.#polarity(Math.floor(input / across)) });
    return this.#event({
      t, x: (input % across) * bin, y: (Math.floor(input / across) % down) * bin, p: this.#polarity(Math.floor(input / (across * down))),
    });
  }

  #polarity(channel) { return { channels: channel, off: 0 }[this.polarity] ?? 1; }

  #event({ t, x, y, p }) { return { t: Math.floor(t), x: x + this.x0, y: y + this.y0, p, row: this.units ? x : y }; }

  draw() {
    const { canvas, width, height, place } = this;
    canvas.setAttribute("aria-label", this.units ? `${counted(width, this.unitName)}, one under the other; at ${this.unitName} ${place.x}` :
      `A sensor of ${width} × ${height} pixels; at column ${place.x}, row ${place.y}`);
    const box = canvas.parentElement.clientWidth;
    const [columns, rows] = this.units ? [1, width] : [width, height];
    const side = this.units ? Math.min(24, MOST_HEIGHT / rows) : Math.min(box / columns, MOST_HEIGHT / rows);
    const [wide, high] = this.units ? [box, side * rows] : [side * columns, side * rows];
    const pen = context(canvas, wide, high);
    this.cell = [wide / columns, high / rows];
    pen.fillStyle = theme("--paper");
    pen.fillRect(0, 0, wide, high);
    pen.fillStyle = theme("--line");
    if (this.cell[1] >= 6) for (let row = 1; row < rows; row += 1) pen.fillRect(0, row * this.cell[1], wide, 1);
    if (this.seen) {
      this.seen.drawOn(this.picture ??= make("canvas"));
      pen.imageSmoothingEnabled = false;
      pen.drawImage(this.picture, 0, 0, wide, high);
    }
    pen.fillStyle = theme("--accent");
    const [column, row] = this.units ? [0, this.place.x] : [this.place.x, this.place.y];
    pen.globalAlpha = this.held ? 1 : 0.4;
    pen.fillRect(column * this.cell[0], row * this.cell[1], Math.max(3, this.cell[0]), Math.max(3, this.cell[1]));
  }

  #listen() {
    const { canvas } = this;
    const at = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor((clientX - box.left) / this.cell[0]), row = Math.floor((clientY - box.top) / this.cell[1]);
      const within = (value, size) => Math.max(0, Math.min(size - 1, value));
      return this.units ? { x: within(row, this.width), y: 0 } : { x: within(column, this.width), y: within(row, this.height) };
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.held = true; this.#move(at(event)); });
    canvas.addEventListener("pointermove", (event) => { if (this.held) this.#move(at(event)); });
    canvas.addEventListener("lostpointercapture", () => { this.held = false; this.draw(); });
    canvas.addEventListener("keydown", (event) => {
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
      if (!dx && !dy && event.key !== " ") return;
      event.preventDefault();
      const { x, y } = this.place, [by, down] = this.units ? [dx + dy, 0] : [dx, dy];
      const next = { x: Math.max(0, Math.min(this.width - 1, x + by)), y: Math.max(0, Math.min(this.height - 1, y + down)) };
      if (event.key === " ") this.#change(this.place, 1);
      else this.place = next;
      this.draw();
    });
  }

  // The pointer has come to a place: there it becomes brighter, and darker where it was.
  #move(place) {
    if (!this.units) this.#change(this.place, 0);
    this.place = place;
    if (!this.units) this.#change(place, 1);
    this.draw();
  }

  #change({ x, y }, p) {
    if (!this.listening) return;
    if (this.units) { this.waiting.push({ x, y: 0, p: this.#polarity(0) }); return; }
    for (let row = y - BRUSH; row <= y + BRUSH; row += 1) {
      for (let column = x - BRUSH; column <= x + BRUSH; column += 1) {
        if (row >= 0 && row < this.height && column >= 0 && column < this.width) this.waiting.push({ x: column, y: row, p });
      }
    }
  }
}
