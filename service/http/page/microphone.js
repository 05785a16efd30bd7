// A microphone's sound as what a session is sent: events or values, an input for each mel band.
import { Bands, FLOOR, HIGHEST, LOWEST, THRESHOLD, crossings } from "./bands.js";
import { plain } from "./dom.js";

const MOST_INPUTS = 512;
const LEAST_HOP = 0.002; // seconds between two frames, so that the browser keeps up

// Only a vector has an order in which bands can be told.
export const canListen = ({ coding, input: { shape } }) => coding !== "latency" && shape.length === 1 && shape[0] <= MOST_INPUTS;

// How many bands a model's inputs are, and whether the second half of them is told where a band falls.
function layoutOf({ coding, input: { shape: [inputs] } }) {
  const both = coding === "spikes" && inputs % 2 === 0;
  return { bands: both ? inputs / 2 : inputs, both };
}

// How bands become inputs, in words.
export function mapping(model) {
  const { bands, both } = layoutOf(model);
  const range = `${bands === 1 ? "One mel band is" : `${plain(bands)} mel bands are`} taken from the sound, ${LOWEST} to ${plain(HIGHEST)} Hz`;
  const inputs = model.coding !== "spikes" ? `each input has the level of one, the lowest first: from the input's least value at ${FLOOR} dB below the loudest so far to its greatest` :
    both ? `inputs 0 to ${bands - 1} spike where one rises by ${THRESHOLD} dB, the lowest first, and inputs ${bands} to ${2 * bands - 1} where it falls` :
      `each input spikes where one rises by ${THRESHOLD} dB, the lowest first`;
  return `${range}: ${inputs}. Only a model that was trained on such inputs can make sense of it, and nothing says whether this one was.`;
}

// Opens the microphone; `hop` is the time of a frame in seconds. Raises Error with a sentence for the user.
export async function listen(model, hop) {
  if (!(hop >= LEAST_HOP)) throw new Error(`To listen, a step must last ${1e6 * LEAST_HOP} µs or more, it lasts ${plain(Math.round(1e6 * hop))} µs.`);
  if (!navigator.mediaDevices) throw new Error("A browser gives the microphone only to pages over HTTPS or on localhost.");
  const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  let stream, context;
  const close = () => {
    stream?.getTracks().forEach((track) => track.stop());
    context?.close();
  };
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
    context = new AudioContext();
    await context.audioWorklet.addModule(new URL("./listener.js", import.meta.url));
    const node = new AudioWorkletNode(context, "listener");
    context.createMediaStreamSource(stream).connect(node).connect(context.destination);  // silent: it only passes sound on
    return { ...hearing(model, context.sampleRate, hop, node.port), close };
  } catch (error) {
    close();
    throw new Error(why(error));
  }
}

function why({ name, message }) {
  if (name === "NotAllowedError") return "The microphone was not allowed.";
  if (name === "NotFoundError") return "There is no microphone.";
  return `The microphone could not be opened: ${message}`;
}

// What was heard: `take` gives the frames since it was last called, each { time, inputs that spike, shares of the
// loudest level }, and the time until which sound has come, in microseconds.
function hearing(model, rate, hop, port) {
  const { bands, both } = layoutOf(model);
  const filters = new Bands(bands, rate, hop), cross = crossings(bands);
  let frames = [], count = 0;
  port.onmessage = ({ data }) => {
    for (const levels of filters.push(data)) {
      const [up, down] = cross(levels);
      const inputs = both ? [...up, ...down.map((band) => bands + band)] : up;
      frames.push({ time: Math.round(1e6 * hop * count), inputs, shares: levels.map((level) => level / FLOOR) });
      count += 1;
    }
  };
  return {
    take() {
      const taken = frames;
      frames = [];
      return { taken, time: Math.round(1e6 * hop * count) };
    },
  };
}
