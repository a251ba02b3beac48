// Plots, drawn with Plotly in the page's colours, and drawn anew when these change.
// Each stands beside a table of the same figures, so a server without Plotly shows the tables alone.

const SANS = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';
const CONFIG = { displayModeBar: false, responsive: true };
const drawings = new Map();
let loading;

/** Draw what `build` gives ({traces, layout, label}) in the element of this id. */
export async function draw(id, build) {
  drawings.set(id, build);
  if (await loaded()) redraw(id, build);
}

/** One of the page's colours, by the name of its CSS variable. */
export const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** The colours of gains as stops of a scale from −1 to 1, losses first. */
export const gainStops = () => ["loss-2", "loss-1", "none", "gain-1", "gain-2"].map(colour);

/** An axis in the page's colours. */
export const axis = (more) => ({
  gridcolor: colour("line"),
  zerolinecolor: colour("edge"),
  linecolor: colour("edge"),
  automargin: true,
  fixedrange: true,
  ...more,
  title: { font: { size: 13 }, ...more.title },
});

function redraw(id, build) {
  const { traces, layout, label } = build();
  const element = document.getElementById(id);
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", label);
  Plotly.react(element, traces, { ...ground(), ...layout }, CONFIG);
}

function ground() {
  const ink = colour("ink");
  return {
    font: { family: SANS, size: 13, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 8, t: 8, b: 8 },
    showlegend: false,
    dragmode: false,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("edge"), font: { color: ink }, align: "left" },
  };
}

/** Whether Plotly is there; it is asked for once. */
function loaded() {
  loading ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = "traits/plotly.js";
    script.onload = () => resolve(true);
    script.onerror = () => resolve(false);
    document.head.append(script);
  }).then((there) => there || withoutPlots());
  return loading;
}

function withoutPlots() {
  for (const details of document.querySelectorAll("main details")) details.open = true;
  document.getElementById("no-plots").hidden = false;
  return false;
}

document.addEventListener("themechange", async () => {
  if (loading && (await loading)) for (const [id, build] of drawings) redraw(id, build);
});
