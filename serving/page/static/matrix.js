// The transfer matrix as a heat map and as a table: gains over base, and which of them are side effects.
import { axis, colour, draw, gainStops } from "./plots.js";
import { fill } from "./tables.js";
import { between, brief, counted, drawn, percent, shortened, signed } from "./wording.js";

const MOST = 50; // rows that a screen still shows; the filter finds the others
const LEAST = 0.1; // the ends of the colour scale, where no gain is larger
const ROW = 34; // pixels, as the next two
const CELL = 58;
const LABELS = 230;

/** Show what /v1/matrix answers, and follow the filter. */
export function showMatrix(answer) {
  const matrix = { tasks: answer.tasks, base: answer.base, rows: answer.skills.map((_, i) => row(answer, i)) };
  const filter = document.getElementById("filter");
  const show = () => showRows(matrix, filter.value.trim().toLowerCase());
  filter.oninput = show; // set, not added: with another key another answer is shown
  show();
}

/** An adapter with its cells, null where nothing was measured; `low` and `high` are null where the gain is an estimate. */
function row({ skills, tasks, gains, scores, low, high, examples }, i) {
  const cells = tasks.map((_, j) =>
    gains[i][j] === null
      ? null
      : { gain: gains[i][j], score: scores[i][j], low: low[i][j], high: high[i][j], n: examples[i][j] },
  );
  return { adapter: skills[i], cells };
}

function showRows(matrix, wanted) {
  const found = matrix.rows.filter((row) => row.adapter.toLowerCase().includes(wanted));
  const rows = found.slice(0, MOST);
  const state = document.getElementById("filter-state");
  state.textContent = `${rows.length} of ${counted(matrix.rows.length, "adapter")} shown`;
  fillTable(matrix, rows);
  // Narrower than this, figures would run into each other: the map is scrolled instead.
  document.getElementById("matrix-plot").style.minWidth = `${LABELS + CELL * matrix.tasks.length}px`;
  draw("matrix-plot", () => heatMap(matrix.tasks, matrix.base, rows));
}

/** Whether a cell's interval leaves no doubt of its sign: 1 for a gain, −1 for a side effect, 0 for neither. */
function certainty({ low, high }) {
  if (low === null) return 0;
  return low > 0 ? 1 : high < 0 ? -1 : 0;
}

function fillTable({ tasks, base }, rows) {
  const columns = [{ title: "adapter" }, ...tasks.map((title) => ({ title, figure: true }))];
  const scores = base.map((score) => `scores ${percent(score)}`);
  const gains = rows.map(({ adapter, cells }) => ({ cells: [adapter, ...cells.map(written)] }));
  fill(document.getElementById("matrix-table"), columns, [{ cells: ["base", ...scores] }, ...gains]);
}

function written(cell) {
  if (cell === null) return "not measured";
  if (cell.low === null) return `${signed(cell.gain)} (estimated)`;
  const sure = certainty(cell);
  const mark = { 1: " ●", 0: "", "-1": " ▼ side effect" }[sure];
  return { text: `${signed(cell.gain)} (${between(cell.low, cell.high)})${mark}`, sure: sure !== 0 };
}

function heatMap(tasks, base, rows) {
  const stops = gainStops();
  const limit = Math.max(LEAST, ...rows.flatMap(({ cells }) => cells.map((cell) => Math.abs(cell?.gain ?? 0))));
  const map = {
    type: "heatmap",
    x: tasks.map((_, j) => j),
    y: rows.map((_, i) => i),
    z: rows.map(({ cells }) => cells.map((cell) => cell?.gain ?? null)),
    text: rows.map(({ adapter, cells }) => cells.map((cell, j) => hint(adapter, tasks[j], base[j], cell))),
    hovertemplate: "%{text}<extra></extra>",
    hoverongaps: false,
    zmin: -limit,
    zmax: limit,
    colorscale: stops.map((stop, i) => [i / (stops.length - 1), stop]),
    xgap: 2,
    ygap: 2,
    colorbar: {
      title: { text: "gain over base", side: "right" },
      tickvals: [-limit, 0, limit],
      ticktext: [-limit, 0, limit].map(brief),
      thickness: 12,
      len: 1,
      outlinewidth: 0,
    },
  };
  const ticks = { showgrid: false, zeroline: false, showline: false, ticks: "" };
  return {
    traces: [map, figures(rows, stops, limit)],
    layout: {
      height: 170 + ROW * rows.length,
      plot_bgcolor: colour("unknown"),
      xaxis: axis({
        ...ticks,
        side: "top",
        tickangle: -38,
        tickvals: tasks.map((_, j) => j),
        ticktext: tasks.map((task) => drawn(shortened(task))),
        range: [-0.5, tasks.length - 0.5],
      }),
      yaxis: axis({
        ...ticks,
        tickvals: rows.map((_, i) => i),
        ticktext: rows.map(({ adapter }) => `${drawn(shortened(adapter))} `),
        range: [rows.length - 0.5, -0.5],
      }),
    },
    label: `Heat map of ${counted(rows.length, "adapter")} on ${counted(tasks.length, "task")}: ${summary(rows)}. The table below holds every figure.`,
  };
}

function summary(rows) {
  const cells = rows.flatMap((row) => row.cells).filter((cell) => cell !== null);
  const count = (sign) => cells.filter((cell) => certainty(cell) === sign).length;
  return `${counted(count(1), "certain gain")}, ${counted(count(-1), "side effect")}`;
}

function hint(adapter, task, base, cell) {
  if (cell === null) return "";
  const known = cell.low === null ? "estimated" : `95% ${between(cell.low, cell.high)}`;
  const of = cell.low === null ? "" : `, ${counted(cell.n, "example")}`;
  return (
    `<b>${drawn(adapter)}</b> on <b>${drawn(task)}</b><br>gain ${signed(cell.gain)}, ${known}` +
    `<br>scores ${percent(cell.score)}, base ${percent(base)}${of}`
  );
}

/** What the cells say; a trace of text, for the heat map's own has one colour for all. */
function figures(rows, stops, limit) {
  const cells = rows.flatMap((row, i) => row.cells.map((cell, j) => ({ cell, i, j }))).filter(({ cell }) => cell !== null);
  return {
    type: "scatter",
    mode: "text",
    hoverinfo: "skip",
    x: cells.map(({ j }) => j),
    y: cells.map(({ i }) => i),
    text: cells.map(({ cell }) => marked(cell)),
    textfont: { size: 12.5, color: cells.map(({ cell }) => inkOn(mixed(stops, (cell.gain / limit + 1) / 2))) },
  };
}

function marked(cell) {
  const figure = brief(cell.gain);
  return { 1: `<b>${figure} ●</b>`, 0: figure, "-1": `<b>${figure} ▼</b>` }[certainty(cell)];
}

/** The colour [red, green, blue] at `share` of a scale. */
function mixed(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(at), stops.length - 2);
  const [from, to] = [parts(stops[first]), parts(stops[first + 1])];
  return from.map((part, i) => part + (at - first) * (to[i] - part));
}

const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** Black or white, whichever contrasts more (the luminance of WCAG 2). */
function inkOn(rgb) {
  const linear = rgb.map((part) => part / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return luminance > 0.179 ? "#000000" : "#ffffff";
}
