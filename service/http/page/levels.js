// Levels: a bar for each value of an input that is no image, which the pointer or the keyboard sets.
import { plain, theme } from "./dom.js";
import { context } from "./plot.js";

const TALL = 24, MOST_HEIGHT = 320, LEGIBLE = 12, KEY = 0.1; // pixels of a row, of all rows, of a row with a name; how far a key moves a level

export class Levels {
  // `shares` is where each value lies in its range, 0 to 1; it begins with those of `empty`. `names` may be null.
  constructor(canvas, empty, names) {
    const count = empty.length;
    Object.assign(this, { canvas, names, row: 0, empty: empty.map((each) => Math.max(0, Math.min(1, each))) });
    this.shares = this.empty.slice();
    const set = (event) => {
      const box = canvas.getBoundingClientRect(), within = (value) => Math.max(0, Math.min(1, value));
      this.row = Math.min(count - 1, Math.floor(within((event.clientY - box.top) / box.height) * count));
      this.shares[this.row] = within((event.clientX - box.left) / box.width);
      this.draw();
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); set(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) set(event); });
    canvas.addEventListener("keydown", (event) => {
      const [down, more] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -KEY], ArrowRight: [0, KEY] }[event.key] ?? [0, 0];
      if (!down && !more) return;
      event.preventDefault();
      this.row = Math.max(0, Math.min(count - 1, this.row + down));
      this.shares[this.row] = Math.max(0, Math.min(1, this.shares[this.row] + more));
      this.draw();
    });
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => this.draw());
  }

  set(shares) {
    this.shares.set(shares);
    this.draw();
  }

  clear() { this.set(this.empty); }

  draw() {
    const { canvas, names, row, shares } = this;
    const wide = canvas.parentElement.clientWidth, high = Math.min(MOST_HEIGHT, TALL * shares.length), tall = high / shares.length;
    const pen = context(canvas, wide, high);
    pen.fillStyle = theme("--paper");
    pen.fillRect(0, 0, wide, high);
    pen.fillStyle = theme("--accent");
    shares.forEach((share, k) => pen.fillRect(0, k * tall, Math.max(1, share * wide), Math.max(1, tall - 1)));
    pen.fillStyle = theme("--text");
    pen.textBaseline = "middle";
    if (names && tall >= LEGIBLE) names.forEach((name, k) => pen.fillText(name, 6, (k + 0.5) * tall));
    if (document.activeElement === canvas) {
      pen.strokeStyle = theme("--text");
      pen.strokeRect(0.5, row * tall + 0.5, wide - 1, Math.max(1, tall - 1));
    }
    canvas.setAttribute("aria-label", `${plain(shares.length)} values, one under the other; ${names?.[row] ?? `value ${row}`} is at ` +
      `${Math.round(100 * shares[row])} % of its range. Set them with the pointer, or by arrow keys.`);
  }
}
