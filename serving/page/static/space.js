// Adapters in trait space: any two components across and up, and a table of all.
import { offer, title } from "./components.js";
import { axis, colour, draw } from "./plots.js";
import { fill } from "./tables.js";
import { counted, drawn, shortened, signed } from "./wording.js";

const NAMED = 40; // beyond so many adapters their names are shown under the pointer only

/** Show what /v1/traits answers, and follow the two selects. */
export function showSpace({ traits, skills }) {
  const [across, up] = ["across", "up"].map((id) => document.getElementById(id));
  offer(across, traits, 0);
  offer(up, traits, Math.min(1, traits.length - 1));
  const show = () => draw("space-plot", () => scatter(traits, skills, Number(across.value), Number(up.value)));
  for (const select of [across, up]) select.addEventListener("change", show);
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
  const points = {
    type: "scatter",
    mode: named ? "markers+text" : "markers",
    x,
    y,
    text: skills.map(({ name }) => drawn(shortened(name))),
    textposition: places(x, y),
    cliponaxis: false,
    customdata: skills.map(({ name }) => drawn(name)),
    hovertemplate: "<b>%{customdata}</b><br>across %{x:+.2f}<br>up %{y:+.2f}<extra></extra>",
    marker: { size: 11, color: colour("mark"), line: { width: 1.5, color: colour("paper") } },
  };
  const side = (i, values) =>
    axis({ title: { text: drawn(shortened(title(traits[i]), 44)) }, range: room(values), tickformat: ".1f" });
  return {
    traces: [points],
    layout: { height: 460, xaxis: side(across, x), yaxis: side(up, y), hovermode: "closest" },
    label: `Scatter plot of ${counted(skills.length, "adapter")}: ${title(traits[across])}, against ${title(traits[up])}. The table below holds every figure.`,
  };
}

/** Bounds that leave room for names beside the outermost points. */
function room(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const margin = 0.22 * (high - low || 1);
  return [low - margin, high + margin];
}

/** Names go above or below their points, whichever is farther from the nearest neighbour. */
function places(x, y) {
  return x.map((_, i) => {
    const gaps = x.map((_, j) => (j === i ? Infinity : Math.hypot(x[j] - x[i], y[j] - y[i])));
    const nearest = gaps.indexOf(Math.min(...gaps));
    return nearest >= 0 && y[nearest] > y[i] ? "bottom center" : "top center";
  });
}
