// Small helpers of the other modules: elements, text and numbers.

export const at = (id) => document.getElementById(id);

// An element with its properties and children. Text is only ever set as text, never read as HTML.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A table in a box that scrolls sideways; a cell is text, an element, or a number, which stands on the right.
export function table(caption, heads, rows) {
  const numeric = heads.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number"));
  const cell = (tag, content, right) =>
    make(tag, { className: right ? "number" : "" }, typeof content === "number" ? plain(content) : content);
  const head = make("tr", {}, ...heads.map((name, column) => {
    const made = cell("th", name, numeric[column]);
    made.scope = "col";
    return made;
  }));
  const body = rows.map((row) => make("tr", {}, ...row.map((content, column) => cell("td", content, numeric[column]))));
  return make("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption },
    make("table", { "aria-label": caption }, make("thead", {}, head), make("tbody", {}, ...body)));
}

export const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const colours = () => theme("--layers").split(",").map((colour) => colour.trim());
export const product = (sizes) => sizes.reduce((all, size) => all * size, 1);
export const sum = (values) => values.reduce((all, value) => all + value, 0);
// The least and the greatest of many values.
export const extent = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
export const plain = (number) => Number(number).toLocaleString("en");
export const rounded = (number) => Number(number).toLocaleString("en", { maximumSignificantDigits: 4 });
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const milliseconds = (value) => (value < 1000 ? `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms` : `${rounded(value / 1000)} s`);
// A sample as JSON, each number as short as it can be for the same float32: 0.1, and not 0.10000000149011612.
export const asJson = (sample) => JSON.stringify(sample, (_, value) => (typeof value === "number" ? shortest(value) : value));
function shortest(value) {
  for (let digits = 1; digits < 10; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

// Scrolls a list of bars to the best of them, where not all have room.
export function showBest(bars) {
  const best = bars.querySelector(".best");
  if (best) bars.scrollTop = best.offsetTop - bars.clientHeight / 2;
}

// "1 spike", "2 spikes".
export const counted = (number, noun) => `${plain(number)} ${noun}${number === 1 ? "" : "s"}`;
