// The server: requests with the key, its errors as sentences, and how long each answer took.

const TOO_LARGE = 413;
// Asks for the header Server-Timing; and what people try out here is no sign that clients' inputs drift.
const OWN = { "X-Server-Timing": "1" };

let key = "";                 // kept only here, until the page is closed
let onKeyNeeded = () => {};

export function useKey(given) { key = given; }
export function whenAKeyIsNeeded(handler) { onKeyNeeded = handler; }
export const hasKey = () => key !== "";

// An answer's body, its milliseconds as seen from here, and what the header Server-Timing says of its parts.
export async function exchange(path, { headers = {}, as = "json", ...options } = {}) {
  const began = performance.now();
  let response;
  try {
    response = await fetch(path, { ...options, headers: key ? { ...headers, Authorization: `Bearer ${key}` } : headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  const text = await response.text();
  const total = performance.now() - began;
  if (response.status === 401) onKeyNeeded();
  if (!response.ok) {
    const error = new Error(response.status === 401 && !key ? "This server needs a key." : sentence(text, response));
    throw Object.assign(error, { status: response.status });
  }
  return { body: as === "json" ? JSON.parse(text) : text, total, bytes: text.length, parts: serverTiming(response) };
}

export const get = async (path, as) => (await exchange(path, { as })).body;

function sentence(text, response) {
  try { return JSON.parse(text).error; } catch { return `The server answered ${response.status}.`; }
}

// "total;dur=1.5, run;desc=\"the run\";dur=0.9" as [{ name, milliseconds }].
export function serverTiming(response) {
  return (response.headers.get("Server-Timing") ?? "").split(",").flatMap((entry) => {
    const [name, ...fields] = entry.split(";").map((part) => part.trim());
    const read = Object.fromEntries(fields.map((field) => field.split("=").map((part) => part.trim().replace(/^"|"$/g, ""))));
    return name && "dur" in read ? [{ name: read.desc || name, milliseconds: Number(read.dur) }] : [];
  });
}

const pathOf = (model, version) =>
  `models/${encodeURIComponent(model.name)}${version === undefined ? "" : `/versions/${version}`}`;

export const describe = (name, version) => get(pathOf({ name }, version));
export const examplesOf = async (name) => (await get(`${pathOf({ name })}/examples`)).inputs;

// Asks for a prediction. A sample is { value }, which is sent as JSON, or { file }, whose bytes are sent as they are.
export function predict(model, sample, { version, signal, ...fields }) {
  const path = `${pathOf(model, version)}/predict`;
  if (!sample.file) {
    const body = JSON.stringify({ inputs: [sample.value], ...fields });
    return exchange(path, { method: "POST", headers: { "Content-Type": "application/json", ...OWN }, body, signal });
  }
  const query = new URLSearchParams(Object.entries(fields).map(([name, value]) => [name, String(value)]));
  const type = sample.file.name.endsWith(".npy") ? "application/x-npy" : "application/octet-stream";
  return exchange(`${path}?${query}`, { method: "POST", headers: { "Content-Type": type, ...OWN }, body: sample.file, signal });
}

// Asks with each list of what to return in turn, until the answer is not too long; then `tooLong` says why not the first.
export async function predictReturning(model, sample, fields, ...lists) {
  let tooLong;
  for (const [place, returned] of lists.entries()) {
    try { return { ...await predict(model, sample, { ...fields, return: returned }), tooLong }; } catch (error) {
      if (error.status !== TOO_LARGE || place === lists.length - 1) throw error;
      tooLong ??= error.message;
    }
  }
  throw new Error("There is no list of what to return.");
}

const streamOf = (model, options) => `${pathOf(model)}/stream?${new URLSearchParams(options)}`;

// A session's WebSocket. A browser can set no header of it, so that the key is offered as a subprotocol.
export function openStream(model, options) {
  const url = new URL(streamOf(model, options), document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, key ? ["spikeserve", `spikeserve.key.${key}`] : ["spikeserve"]);
}

// Why a session cannot be opened, which a browser does not tell: an empty stream by POST is refused for the same reason.
export async function whyNoStream(model, options) {
  try {
    await exchange(streamOf(model, options), {
      method: "POST", headers: { "Content-Type": "application/x-ndjson" }, body: "", as: "text",
    });
    return "The session could not be opened.";
  } catch (error) { return error.message; }
}
