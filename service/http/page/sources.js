// What a session is sent: the pointer's events, an example's, values that are drawn, a series, or a microphone's sound.
//
// A source has next(now): what to send by `now`, in microseconds since it was opened, as { messages, drawn, over }. The
// strip shows `drawn`, { t, row, share }; a source that has its own clock tells it as `now`. It may have close().
import { eventsOf, rawOf, sharesOf } from "./model.js";

const MOST_ENTRIES = 100;     // of values in one tick: a page in the background has few of those
const MOST_WAITING = 2 ** 18; // bytes of values that are not sent yet, before some are skipped

const time = (t) => JSON.stringify({ type: "time", t });

// Event records: 8 bytes each, little-endian, of the time, the column, and the row with the polarity as its highest bit.
export function records(events) {
  const view = new DataView(new ArrayBuffer(8 * events.length));
  events.forEach(({ t, x, y, p }, k) => {
    view.setUint32(8 * k, t % 2 ** 32, true);
    view.setUint16(8 * k + 4, x, true);
    view.setUint16(8 * k + 6, y + p * 2 ** 15, true);
  });
  return view.buffer;
}

function told(sensor, events, now) {
  sensor.show(events, now);
  const messages = events.length > 0 ? [records(events), time(now)] : [time(now)];
  return { messages, drawn: events.map(({ t, row }) => ({ t, row, share: 1 })), now };
}

export function pointerEvents(sensor) {
  sensor.listen(true);
  return { next: (now) => told(sensor, sensor.take(now), now), close: () => sensor.listen(false) };
}

// The events of an example as the sensor would have told them, at the beginning of their steps.
export function exampleEvents(sensor, model, example, stepUs) {
  const { t, unit } = eventsOf(model, example), end = model.time_steps * stepUs;
  const events = t.map((step, k) => sensor.eventOf(unit[k], step * stepUs)).sort((a, b) => a.t - b.t);
  let next = 0;
  return {
    next(now) {
      const first = next, until = Math.min(end, now);
      while (next < events.length && events[next].t < until) next += 1;
      return { ...told(sensor, events.slice(first, next), until), over: now >= end };
    },
  };
}

export function heardEvents(sensor, microphone) {
  return {
    close: microphone.close,
    next() {
      const { taken, time: now } = microphone.take();
      return told(sensor, taken.flatMap(({ time: t, inputs }) => inputs.map((input) => sensor.eventOf(input, t))), now);
    },
  };
}

// Float32, little-endian, entry after entry: of each its shares of the model's range, or what it is, `exact`.
function sent(model, entries, now, rows, exact = entries.map((shares) => rawOf(model, shares))) {
  const flat = exact.flat(Infinity);
  const view = new DataView(new ArrayBuffer(4 * flat.length));
  flat.forEach((value, k) => view.setFloat32(4 * k, value, true));
  return { messages: entries.length ? [view.buffer] : [], drawn: entries.length ? pooled(entries.at(-1), rows, now) : [], now };
}

// The greatest value of each of the rows that the strip has.
function pooled(shares, rows, t) {
  const most = new Float64Array(rows);
  shares.forEach((share, k) => {
    const row = Math.floor(k * rows / shares.length);
    most[row] = Math.max(most[row], share);
  });
  return Array.from(most, (share, row) => ({ t, row, share })).filter(({ share }) => share > 0);
}

// What a board shows, so many times a second; a slow connection gets fewer.
export function boardValues(model, board, perSecond, rows, waiting) {
  let count = 0;
  return {
    next(now) {
      const due = Math.floor(now / 1e6 * perSecond) + 1 - count;
      count += due;
      const some = waiting() > MOST_WAITING ? 0 : Math.min(due, MOST_ENTRIES);
      return sent(model, new Array(some).fill(board.shares), now, rows);
    },
  };
}

// An example that is a series, step by step.
export function seriesValues(model, series, perSecond, rows) {
  const shares = series.map((step) => sharesOf(model, step));
  let count = 0;
  return {
    next(now) {
      const first = count;
      count = Math.min(series.length, Math.floor(now / 1e6 * perSecond) + 1, first + MOST_ENTRIES);
      return { ...sent(model, shares.slice(first, count), now, rows, series.slice(first, count)), over: count === series.length };
    },
  };
}

export function heardValues(model, board, microphone, rows) {
  return {
    close: microphone.close,
    next(now) {
      const entries = microphone.take().taken.map(({ shares }) => shares);
      if (entries.length > 0) board.set(entries.at(-1));
      return sent(model, entries, now, rows);
    },
  };
}
