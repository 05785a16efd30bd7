// A pad: an image that the pointer or the keyboard draws on, and pictures of images.
import { plain, theme } from "./dom.js";
import { context } from "./plot.js";
import { bytesOf } from "./raster.js";

// Draws values of 0 to 1 as a picture of one pixel a cell: ink, or red, green and blue.
export function drawImage(canvas, { channels, height, width }, values) {
  canvas.width = width;
  canvas.height = height;
  const drawn = new ImageData(width, height), dark = bytesOf(theme("--ink"));
  for (let k = 0; k < height * width; k += 1) {
    if (channels === 3) drawn.data.set([0, 1, 2].map((part) => 255 * values[part * height * width + k]).concat(255), k * 4);
    else drawn.data.set([...dark, 255 * values[k]], k * 4);
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}

export class Pad {
  // `image` is { channels, height, width }; what is drawn are `shares`, 0 to 1, of each value. A stroke has all channels.
  constructor(canvas, image, changed) {
    Object.assign(this, { canvas, changed });
    this.use(image);
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.#paint(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) this.#paint(event); });
    canvas.addEventListener("keydown", (event) => this.#paintByKey(event));
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => this.draw());
  }

  // Begins with an empty image.
  use(image) {
    this.image = image;
    this.size = image ? image.height * image.width : 0;
    this.shares = new Float32Array(this.size * (image?.channels ?? 0));
    this.cell = 0; // where the keyboard paints
  }

  set(shares) {
    this.shares = Float32Array.from(shares);
    this.draw();
  }

  clear() { this.set(this.shares.fill(0)); }

  draw() {
    const { canvas, cell, shares, image: { channels, height, width } } = this;
    const box = getComputedStyle(canvas.parentElement);
    const size = Math.floor(canvas.parentElement.clientWidth - 2 * parseFloat(box.paddingLeft));
    if (size <= 0) return;
    const side = size / width, seam = width > 32 ? 0 : 1;
    const pen = context(canvas, size, side * height);
    if (channels === 1) {
      pen.fillStyle = theme("--ink");
      shares.forEach((each, k) => {
        pen.globalAlpha = Math.max(0.05, each);
        pen.fillRect((k % width) * side, Math.floor(k / width) * side, side - seam, side - seam);
      });
    } else {
      const picture = document.createElement("canvas");
      drawImage(picture, this.image, shares);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(picture, 0, 0, size, side * height);
    }
    if (document.activeElement === canvas) {
      pen.globalAlpha = 1;
      pen.strokeStyle = theme("--accent");
      pen.strokeRect((cell % width) * side, Math.floor(cell / width) * side, side, side);
    }
    const filled = shares.filter((each) => each > 0.5).length;
    canvas.setAttribute("aria-label", `The input, ${height} × ${width}: ${plain(filled)} cells are dark. ` +
      "Draw with the pointer, or move by arrow keys and press Space.");
  }

  // A pen that is round, darkest in its middle, and as thick as a stroke of a digit.
  #paint(event) {
    const { height, width } = this.image, box = this.canvas.getBoundingClientRect();
    const radius = Math.max(1.1, Math.min(height, width) / 11);
    const coalesced = event.getCoalescedEvents?.() ?? [];
    for (const point of coalesced.length ? coalesced : [event]) {
      const x = (point.clientX - box.left) / box.width * width, y = (point.clientY - box.top) / box.height * height;
      this.shares.forEach((each, k) => {
        const far = Math.hypot(k % width + 0.5 - x, Math.floor(k % this.size / width) + 0.5 - y);
        this.shares[k] = Math.max(each, Math.min(1, 1.25 * (1 - far / radius)));
      });
    }
    this.draw();
    this.changed();
  }

  #paintByKey(event) {
    const { size, image: { width } } = this;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    if (step) this.cell = Math.max(0, Math.min(size - 1, this.cell + step));
    else {
      const share = this.shares[this.cell] > 0.5 ? 0 : 1;
      for (let k = this.cell; k < this.shares.length; k += size) this.shares[k] = share;
    }
    this.draw();
    if (!step) this.changed();
  }
}
