// Sound as levels of mel bands, and spikes where a level rises or falls: as training encodes recordings
// (training/data/audio.py), but that a level is relative to the loudest band so far, since what follows is not known.

import { sum } from "./dom.js";

export const LOWEST = 80, HIGHEST = 4000; // Hz
export const FLOOR = 40, THRESHOLD = 4;   // dB below the loudest band; and between two spikes of a band
const FRAME = 0.032;                      // seconds
const LOUDEST = 1 / 128 ** 2;             // the power of the loudest band before any sound has come: of a whisper

const melOf = (hertz) => 2595 * Math.log10(1 + hertz / 700);
const hertzOf = (mel) => 700 * (10 ** (mel / 2595) - 1);

// Triangles [band][frequency], equally wide in mel, over `count` frequencies that lie `apart`.
function filtersOf(bands, count, apart, highest) {
  const [from, to] = [melOf(LOWEST), melOf(highest)];
  const edges = Array.from({ length: bands + 2 }, (_, k) => hertzOf(from + (to - from) * k / (bands + 1)));
  return Array.from({ length: bands }, (_, band) => {
    const [low, middle, high] = edges.slice(band, band + 3);
    const filter = Float64Array.from({ length: count }, (__, k) =>
      Math.max(0, Math.min((k * apart - low) / (middle - low), (high - k * apart) / (high - middle))));
    if (filter.every((each) => each === 0)) filter[Math.round(middle / apart)] = 1; // narrower than two frequencies
    return filter;
  });
}

export class Bands {
  // Of sound with `rate` samples a second, levels each `hop` seconds: of one frame, or where that is longer of the mean of
  // as many frames as cover it.
  constructor(bands, rate, hop) {
    const size = Math.round(FRAME * rate), apart = rate / size, highest = Math.min(HIGHEST, rate / 2);
    const count = Math.min(Math.floor(size / 2), Math.ceil(highest / apart)) + 1;
    const hann = Float64Array.from({ length: size }, (_, n) => 0.5 - 0.5 * Math.cos(2 * Math.PI * n / (size - 1)));
    // The Fourier transform of a frame, only for the frequencies of the bands; a sine of amplitude 1 has the power 1.
    const wave = (turn) => Array.from({ length: count }, (_, k) =>
      Float32Array.from(hann, (weight, n) => 4 / size * weight * turn(2 * Math.PI * ((k * n) % size) / size)));
    const parts = Math.max(1, Math.ceil(hop / FRAME - 1e-9));
    Object.assign(this, { size, parts, hop: Math.max(1, Math.min(size, Math.round(hop * rate / parts))) });
    Object.assign(this, { loudest: LOUDEST, kept: new Float32Array(0), energies: [] });
    this.waves = [wave(Math.cos), wave(Math.sin)];
    this.filters = filtersOf(bands, count, apart, highest);
  }

  // The levels that a block of sound completes, [time][band], from 0 to FLOOR.
  push(block) {
    const sound = new Float32Array(this.kept.length + block.length), found = [];
    sound.set(this.kept);
    sound.set(block, this.kept.length);
    let start = 0;
    for (; start + this.size <= sound.length; start += this.hop) {
      this.energies.push(this.#energy(sound.subarray(start, start + this.size)));
      if (this.energies.length === this.parts) found.push(this.#levels(this.energies.splice(0)));
    }
    this.kept = sound.slice(start);
    return found;
  }

  // The energy of each band in one frame.
  #energy(frame) {
    const dot = (wave) => {
      let all = 0;
      for (let n = 0; n < frame.length; n += 1) all += wave[n] * frame[n];
      return all;
    };
    const [cosines, sines] = this.waves;
    const power = cosines.map((wave, k) => dot(wave) ** 2 + dot(sines[k]) ** 2);
    return this.filters.map((filter) => power.reduce((all, each, k) => all + each * filter[k], 0));
  }

  #levels(energies) {
    const energy = this.filters.map((_, band) => sum(energies.map((each) => each[band])) / energies.length);
    this.loudest = Math.max(this.loudest, ...energy);
    const smallest = this.loudest * 10 ** (-FLOOR / 10);
    return energy.map((each) => 10 * Math.log10(Math.max(each, smallest) / smallest));
  }
}

// Says of each frame's levels which bands spike: [up, down], each a list of bands.
export function crossings(bands) {
  const reference = new Float64Array(bands);
  return (levels) => {
    const moves = levels.map((level, band) => Math.trunc((level - reference[band]) / THRESHOLD));
    moves.forEach((move, band) => { reference[band] += move * THRESHOLD; });
    const those = (wanted) => Array.from(moves.keys()).filter((band) => wanted(moves[band]));
    return [those((move) => move > 0), those((move) => move < 0)];
  };
}
