// What a component is made of: its loading on every task, with how far that can be trusted.
import { evidence, offer, title } from "./components.js";
import { axis, colour, draw } from "./plots.js";
import { fill } from "./tables.js";
import { between, counted, drawn, shortened, signed } from "./wording.js";

const BAR = 30;

/** Show the components that /v1/traits answers, one at a time. */
export function showLoadings({ traits }) {
  const select = document.getElementById("component");
  offer(select, traits, 0);
  const show = () => showComponent(traits[Number(select.value)]);
  select.onchange = show;
  show();
}

function showComponent(component) {
  const loadings = component.loadings.toSorted((a, b) => b.weight - a.weight);
  const found = component.stability === null ? "not known" : component.stability.toFixed(2);
  document.getElementById("component-note").textContent =
    `${evidence(component)}. Stability ${found} (median likeness, 0 to 1, of what resampled examples give).`;
  document.getElementById("component-evidence").textContent = component.evidence;
  fillTable(loadings);
  draw("loadings-plot", () => bars(component, loadings));
}

function fillTable(loadings) {
  const columns = [{ title: "task" }, { title: "loading", figure: true }, { title: "95% interval", figure: true }];
  const rows = loadings.map((loading) => ({
    cells: [loading.task, { text: signed(loading.weight), sure: isSure(loading) }, interval(loading)],
  }));
  fill(document.getElementById("loadings-table"), columns, rows);
}

const interval = ({ low, high }) => (low === null ? "not known" : between(low, high));

const isSure = ({ low, high }) => low !== null && (low > 0 || high < 0);

function bars(component, loadings) {
  const limit = 1.08 * Math.max(0.05, ...loadings.flatMap(({ weight, low, high }) => [weight, low, high].map(Math.abs)));
  const [gain, loss] = [colour("mark"), colour("mark-loss")];
  const trace = {
    type: "bar",
    orientation: "h",
    y: loadings.map((_, i) => i),
    x: loadings.map(({ weight }) => weight),
    customdata: loadings.map((loading) => `${drawn(loading.task)}: ${signed(loading.weight)}<br>95% ${interval(loading)}`),
    hovertemplate: "%{customdata}<extra></extra>",
    marker: {
      color: loadings.map(({ weight }) => (weight < 0 ? loss : gain)),
      opacity: loadings.map((loading) => (isSure(loading) ? 1 : 0.35)),
    },
    error_x: {
      type: "data",
      symmetric: false,
      // A percentile interval need not hold its own estimate; bars are never negative.
      array: loadings.map(({ weight, high }) => Math.max(0, (high ?? weight) - weight)),
      arrayminus: loadings.map(({ weight, low }) => Math.max(0, weight - (low ?? weight))),
      color: colour("ink"),
      thickness: 1.3,
      width: 4,
    },
  };
  return {
    traces: [trace],
    layout: {
      height: 70 + BAR * loadings.length,
      bargap: 0.35,
      xaxis: axis({ title: { text: "loading" }, range: [-limit, limit], tickformat: ".1f" }),
      yaxis: axis({
        showgrid: false,
        zeroline: false,
        ticks: "",
        range: [loadings.length - 0.5, -0.5],
        tickvals: loadings.map((_, i) => i),
        ticktext: loadings.map(({ task }) => `${drawn(shortened(task))} `),
      }),
    },
    label: `Bar chart of the loadings of ${title(component)} on ${counted(loadings.length, "task")}. The table below holds every figure.`,
  };
}
