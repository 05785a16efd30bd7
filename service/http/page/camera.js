// A camera's events as a picture: in one colour where it became brighter, in another where it became darker.
import { theme } from "./dom.js";
import { bytesOf } from "./raster.js";

const MOST_PIXELS = 2 ** 18;
const FAINTEST = 0.3; // of a pixel with one event

// The size of an input that is a camera's, { channels, height, width }; null if it is none.
export function cameraOf({ coding, input: { shape } }) {
  const [channels, height, width] = shape;
  if (coding !== "spikes" || shape.length !== 3 || channels > 2) return null;
  return Math.min(height, width) < 3 || height * width > MOST_PIXELS ? null : { channels, height, width };
}

// What each pixel has seen of both.
export class Accumulated {
  constructor({ height, width }) {
    Object.assign(this, { height, width, brighter: new Float32Array(height * width), darker: new Float32Array(height * width) });
  }

  add(x, y, isBrighter) { (isBrighter ? this.brighter : this.darker)[y * this.width + x] += 1; }

  wipe() { this.fade(0); }

  fade(share) {
    for (const each of [this.brighter, this.darker]) each.forEach((seen, k) => { each[k] = seen * share; });
  }

  // Draws it on a canvas of one pixel for each of the camera's.
  drawOn(canvas) {
    const { height, width, brighter, darker } = this;
    Object.assign(canvas, { width, height });
    const image = new ImageData(width, height), [on, off] = [theme("--brighter"), theme("--darker")].map(bytesOf);
    const most = brighter.reduce((most, each, k) => Math.max(most, each + darker[k]), 1);
    brighter.forEach((each, k) => {
      const seen = each + darker[k];
      if (seen < 0.01) return;
      const strength = Math.min(1, seen) * FAINTEST + (1 - FAINTEST) * seen / most;
      const mixed = on.map((part, place) => (part * each + off[place] * darker[k]) / seen);
      image.data.set([...mixed, 255 * Math.min(1, strength)], 4 * k);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

// The events { t, unit } of a sample up to a step. With two channels the second is of what became brighter.
export function accumulated(camera, { t, unit }, upTo = Infinity) {
  const size = camera.height * camera.width, picture = new Accumulated(camera);
  unit.forEach((each, k) => {
    if (t[k] <= upTo) picture.add(each % camera.width, Math.floor(each % size / camera.width), camera.channels === 1 || each >= size);
  });
  return picture;
}
