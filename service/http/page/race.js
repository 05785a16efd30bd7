// The race: what each class has after each step, and after which step the answer was decided.
import { follow } from "./cursor.js";
import { colours, extent, make, rounded, theme } from "./dom.js";
import { courses } from "./model.js";
import { Plot, figure } from "./plot.js";

const HEIGHT = 170;
const DASHES = [[], [7, 3], [2, 3]]; // of the first three, which are told apart without colours too
const RULES = ["decided", "confident"];

// Draws the race of a prediction; `ends` says after how many steps each rule would have ended it, { decided: 5 }.
export function drawRace(host, model, prediction, ends, time) {
  const found = prediction && courses(model, prediction, prediction.steps);
  if (!found) {
    host.replaceChildren(make("p", { className: "quiet" }, why(model, prediction)));
    return;
  }
  host.replaceChildren();
  const { axis, lines } = found;
  const last = prediction.steps - 1;
  const order = lines.map((_, k) => k).sort((a, b) => lines[b].at(-1) - lines[a].at(-1) || a - b);
  const { figure: made, note } = figure(host, axis[0].toUpperCase() + axis.slice(1));
  const label = `Line plot of ${axis} for ${lines.length} classes over ${prediction.steps} steps. At the end: ` +
    `${order.slice(0, 3).map((k) => `${model.labels[k]} has ${rounded(lines[k][last])}`).join(", ")}. ${ended(ends, last + 1)}`;
  const plot = new Plot(made, { steps: prediction.steps, height: HEIGHT, label, time });
  const [least, most] = extent(lines.flat());
  const low = Math.min(0, least), high = Math.max(most, low + 1e-9);
  const y = plot.values(axis, low, high + 0.05 * (high - low));
  for (const k of order.slice(DASHES.length).reverse()) plot.line(lines[k], y, { colour: theme("--bar"), width: 1 });
  const legend = make("figcaption", {});
  order.slice(0, DASHES.length).forEach((k, place) => {
    const colour = colours()[place];
    plot.line(lines[k], y, { colour, dash: DASHES[place], width: 2.5 });
    const name = make("b", {}, `${["━", "╍", "┅"][place]} ${model.labels[k]}`);
    name.style.color = colour;
    legend.append(name);
  });
  if (lines.length > DASHES.length) legend.append(make("span", {}, "grey: all others"));
  made.append(legend);
  drawEnds(plot, ends, last + 1);
  made.append(make("p", { className: "quiet" }, ended(ends, last + 1)));
  follow(made, (step) => {
    if (step > last) return;
    const first = lines.map((_, k) => k).sort((a, b) => lines[b][step] - lines[a][step] || a - b).slice(0, 3);
    note.textContent = `after step ${step}: ${first.map((k) => `${model.labels[k]} has ${rounded(lines[k][step])}`).join(", ")}`;
  });
}

function why(model, prediction) {
  if (!prediction) return "There is no answer yet.";
  if (model.readout.includes("membrane") && !prediction.membrane) return "It is drawn once the membranes are there.";
  return `The answer is read as ${model.readout} of what is not recorded, so that its course is not known.`;
}

function drawEnds(plot, ends, steps) {
  RULES.filter((rule) => ends[rule] < steps).forEach((rule, row) => {
    const { pen } = plot, x = plot.left + ends[rule] * plot.across;
    pen.save();
    pen.strokeStyle = pen.fillStyle = theme("--text");
    pen.setLineDash(rule === "decided" ? [] : [3, 3]);
    pen.beginPath();
    pen.moveTo(x, plot.top);
    pen.lineTo(x, plot.top + plot.height);
    pen.stroke();
    pen.textAlign = x > plot.left + plot.width / 2 ? "right" : "left";
    pen.textBaseline = "top";
    pen.strokeStyle = theme("--paper");  // so that it can be read on a line
    pen.setLineDash([]);
    pen.lineWidth = 4;
    pen.strokeText(rule, x + (pen.textAlign === "left" ? 5 : -5), plot.top + 4 + 15 * row);
    pen.fillText(rule, x + (pen.textAlign === "left" ? 5 : -5), plot.top + 4 + 15 * row);
    pen.restore();
  });
}

function ended(ends, steps) {
  const sentences = [];
  if (ends.decided !== undefined) {
    sentences.push(ends.decided < steps ? `Decided after ${ends.decided} of ${steps} steps: nothing that follows could change the class.` :
      "The class could have changed up to the last step.");
  }
  if (ends.confident !== undefined) sentences.push(`With “stop”: “confident” it ends after ${ends.confident} of ${steps} steps.`);
  return sentences.join(" ");
}
