// Adapters in trait space: any two components across and up, and a table of all.
import { offer, title } from "./components.js";
import { places } from "./labels.js";
import { axis, colour, draw } from "./plots.js";
import { fill } from "./tables.js";
import { counted, drawn, shortened, signed } from "./wording.js";

const HEIGHT = 460;
const NAMED = 40; // beyond so many adapters their names are shown under the pointer only

/** Show what /v1/traits answers, and follow the two selects. */
export function showSpace({ traits, skills }) {
  const [across, up] = ["across", "up"].map((id) => document.getElementById(id));
  offer(across, traits, 0);
  offer(up, traits, Math.min(1, traits.length - 1));
  const show = () => draw("space-plot", () => scatter(traits, skills, Number(across.value), Number(up.value)));
  across.onchange = up.onchange = show;
  fillTable(traits, skills);
  show();
}

function fillTable(traits, skills) {
  const columns = [{ title: "adapter" }, ...traits.map((trait) => ({ title: title(trait), figure: true }))];
  const rows = skills.map(({ name, scores }) => ({ cells: [name, ...scores.map((score) => signed(score))] }));
  fill(document.getElementById("space-table"), columns, rows);
}

function scatter(traits, skills, across, up) {
  const named = skills.length <= NAMED;
  const [x, y] = [across, up].map((i) => skills.map(({ scores }) => scores[i]));
  const names = skills.map(({ name }) => shortened(name));
  const points = {
    type: "scatter",
    mode: named ? "markers+text" : "markers",
    x,
    y,
    text: names.map(drawn),
    textposition: named ? places(pixels(x, y), names) : "top center",
    cliponaxis: false,
    customdata: skills.map(({ name }) => drawn(name)),
    hovertemplate: "<b>%{customdata}</b><br>across %{x:+.2f}<br>up %{y:+.2f}<extra></extra>",
    marker: { size: 11, color: colour("mark"), line: { width: 1.5, color: colour("paper") } },
  };
  const side = (i, values) =>
    axis({ title: { text: drawn(shortened(title(traits[i]), 44)) }, range: room(values), tickformat: "~g" });
  return {
    traces: [points],
    layout: { height: HEIGHT, xaxis: side(across, x), yaxis: side(up, y), hovermode: "closest" },
    label: `Scatter plot of ${counted(skills.length, "adapter")}: ${title(traits[across])}, against ${title(traits[up])}. The table below holds every figure.`,
  };
}

/** Bounds that leave room for names beside the outermost points. */
function room(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const margin = 0.22 * (high - low || 1);
  return [low - margin, high + margin];
}

/** About where the points lie in the plot; exact they need not be, to keep names apart. */
function pixels(x, y) {
  const width = document.getElementById("space-plot").clientWidth;
  const [[left, right], [low, high]] = [room(x), room(y)];
  return x.map((_, i) => ({
    x: (width * (x[i] - left)) / (right - left),
    y: (HEIGHT * (high - y[i])) / (high - low),
  }));
}
