// Runs on the audio thread: passes a microphone's sound on, in blocks.

const BLOCK = 1024; // samples

class Listener extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;

  process([[sound]]) {
    if (!sound) return true;
    for (const sample of sound) {
      this.#block[this.#filled] = sample;
      this.#filled += 1;
      if (this.#filled < BLOCK) continue;
      this.port.postMessage(this.#block);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("listener", Listener);
