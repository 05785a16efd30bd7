// Renders a small part of Markdown: headings, paragraphs, lists, tables, code, bold, emphasis and code in a line. What a
// card says is only ever set as text; links and HTML stand there as they were written.
import { make } from "./dom.js";

export function render(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const found = [];
  while (lines.length > 0) found.push(...block(lines));
  return found;
}

// Takes the lines of the next block away, and returns its elements.
function block(lines) {
  const line = lines[0];
  if (!line.trim()) { lines.shift(); return []; }
  if (line.startsWith("```")) return [code(lines)];
  const heading = /^(#{1,6})\s+(.*)/.exec(line);
  if (heading) { lines.shift(); return [make(heading[1].length === 1 ? "h2" : "h3", {}, ...inline(heading[2]))]; }
  if (isTable(lines)) return [tableOf(lines)];
  if (isItem(line)) return [list(lines)];
  return [make("p", {}, ...inline(take(lines, () => true).join(" ")))];
}

const isItem = (line) => /^\s*([-*+]|\d+[.)])\s+/.test(line);
const isRow = (line) => line.trim().startsWith("|");
const isTable = (lines) => isRow(lines[0]) && /^[\s|:-]+$/.test(lines[1] ?? "") && lines[1].includes("-");

// The lines of a paragraph: up to an empty one, or to what begins another block.
function take(lines, wanted) {
  const taken = [lines.shift()];
  while (lines.length && lines[0].trim() && !isItem(lines[0]) && !isRow(lines[0]) && !/^(#{1,6}\s|```)/.test(lines[0]) && wanted()) {
    taken.push(lines.shift());
  }
  return taken.map((line) => line.trim());
}

function code(lines) {
  lines.shift();
  const taken = [];
  while (lines.length && !lines[0].startsWith("```")) taken.push(lines.shift());
  lines.shift();
  return make("pre", {}, make("code", {}, taken.join("\n")));
}

function list(lines) {
  const made = make(/^\s*\d/.test(lines[0]) ? "ol" : "ul");
  while (lines.length && isItem(lines[0])) {
    const text = take(lines, () => true).join(" ").replace(/^([-*+]|\d+[.)])\s+/, "");
    made.append(make("li", {}, ...inline(text)));
  }
  return made;
}

function tableOf(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => make("tr", {}, ...cells(line).map((cell) => make(tag, {}, ...inline(cell))));
  const head = row(lines.shift(), "th");
  lines.shift();
  const body = [];
  while (lines.length && isRow(lines[0])) body.push(row(lines.shift(), "td"));
  return make("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Table" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

const MARKS = /(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/;

function inline(text) {
  return text.split(MARKS).filter(Boolean).map((part) => {
    if (!MARKS.test(part)) return part;
    if (part.startsWith("`")) return make("code", {}, part.slice(1, -1));
    return part.startsWith("**") ? make("strong", {}, part.slice(2, -2)) : make("em", {}, part.slice(1, -1));
  });
}
