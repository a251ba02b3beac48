// How new adapters do on the share of the traffic that they get, what follows, and which steps were taken.
import { axis, colour, draw } from "./plots.js";
import { Refusal, ask } from "./server.js";
import { fill } from "./tables.js";
import { between, counted, drawn, percent, sentences, shortened, signed } from "./wording.js";

const ROW = 46;
const FOLLOWS = { promote: "● to be promoted", "roll back": "▼ to be rolled back", wait: "not decided yet" };
const COLUMNS = [
  { title: "canary" },
  { title: "share", figure: true },
  { title: "decision" },
  { title: "in place of" },
  ...["conversations", "its own", "canary", "incumbent", "gain", "95%"].map((title) => ({ title, figure: true })),
];
const STEP_COLUMNS = [
  { title: "when (UTC)" },
  { title: "adapter" },
  { title: "step" },
  ...["gain", "95%", "conversations"].map((title) => ({ title, figure: true })),
  { title: "by" },
];

/** Ask for the canaries once, and show them, or why there are none. */
export async function showCanaries() {
  const state = document.getElementById("canaries-state");
  try {
    show(await ask("v1/canaries"));
  } catch (error) {
    if (!(error instanceof Refusal) && !(error instanceof TypeError)) throw error;
    state.textContent = `Not known: ${error.message}`;
  }
}

function show({ data, steps }) {
  document.getElementById("canaries-state").textContent = data.length
    ? data.map(sentence).join(" ")
    : "No adapter is a canary now: traitroute adapters add NAME PLACE --canary 1% makes one of a new adapter.";
  document.getElementById("canaries-notes").textContent = sentences(data.flatMap(({ adapter, notes }) => notes.map((note) => `${note} (${adapter})`)));
  document.getElementById("canaries-figures").hidden = data.length === 0;
  fill(document.getElementById("canaries-table"), COLUMNS, data.map((canary) => ({ cells: cells(canary) })));
  const known = data.filter(({ estimate }) => estimate);
  document.getElementById("canaries-plot").hidden = known.length === 0;
  if (known.length) draw("canaries-plot", () => intervals(known));
  document.getElementById("canaries-past").hidden = steps.length === 0;
  fill(document.getElementById("canaries-steps-table"), STEP_COLUMNS, steps.toReversed().map((step) => ({ cells: stepCells(step) })));
}

/** What is known of one, and what follows. */
function sentence({ adapter, share, next_share: next, margin, source, conversations, given, estimate, verdict, days_left: days }) {
  const counts = `${counted(conversations, "conversation")} with an outcome by ${source}, ${given.toLocaleString("en")} of them its own`;
  if (!estimate) return `${adapter} gets ${shown(share)}, and there is nothing to compare yet: ${counts}.`;
  const soon = days === null ? "" : `; one as good as the incumbent takes ${counted(Math.ceil(days), "day")} more`;
  const follows = {
    promote: `it is to be promoted to ${shown(next)}`,
    "roll back": "it is surely worse than the incumbent, and to be rolled back",
    wait: `whether ${shown(next)} would cost less than ${margin} is not known yet${soon}`,
  }[verdict];
  return `${adapter} gets ${shown(share)}: ${follows} (${counts}).`;
}

/** A share as the command line writes it. */
const shown = (share) => ({ 0: "nothing", 1: "all" })[share] ?? `${Number((100 * share).toPrecision(3))}%`;

const range = ({ low, high }) => between(low, high, 3);

function cells({ adapter, replaces, share, conversations, given, reward_canary: own, reward_incumbent: other, estimate, verdict }) {
  const figures = [own, other].map((reward) => (reward === null ? "–" : percent(reward, 1)));
  const gain = estimate ? { text: signed(estimate.gain, 3), sure: estimate.low > 0 || estimate.high < 0 } : "–";
  const counts = [conversations, given].map((n) => n.toLocaleString("en"));
  return [adapter, shown(share), FOLLOWS[verdict], replaces ?? "the next best", ...counts, ...figures, gain, estimate ? range(estimate) : "–"];
}

function stepCells({ adapter, made_at: at, made_by: by, share, why, figures }) {
  const estimate = figures?.estimate;
  const step = why === "rolled back" ? "▼ rolled back" : why === "promoted" ? `● promoted to ${shown(share)}` : `${why}: ${shown(share)}`;
  const evidence = estimate ? [signed(estimate.gain, 3), range(estimate), figures.conversations.toLocaleString("en")] : ["–", "–", "–"];
  return [at.slice(0, 16).replace("T", " "), adapter, step, ...evidence, by];
}

function intervals(canaries) {
  const rows = canaries.map((_, i) => i);
  const colours = canaries.map(({ estimate }) => (estimate.high < 0 ? colour("mark-loss") : colour("mark")));
  const enough = canaries.map(({ margin, next_share: next }) => Math.max(-1, -margin / next));
  const ends = [...canaries.flatMap(({ estimate: e }) => [e.low, e.high]), ...enough, 0];
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const room = 0.06 * (most - least);
  const estimates = {
    type: "scatter",
    mode: "markers",
    y: rows,
    x: canaries.map(({ estimate }) => estimate.gain),
    customdata: canaries.map(({ adapter, estimate }) => `${drawn(adapter)}: ${signed(estimate.gain, 3)}<br>95% ${range(estimate)}`),
    hovertemplate: "%{customdata}<extra></extra>",
    marker: { size: 11, color: colours },
    error_x: {
      type: "data",
      symmetric: false,
      array: canaries.map(({ estimate: e }) => e.high - e.gain),
      arrayminus: canaries.map(({ estimate: e }) => e.gain - e.low),
      color: colour("ink"),
      thickness: 1.8,
      width: 7,
    },
  };
  const bounds = {
    type: "scatter",
    mode: "markers",
    y: rows,
    x: enough,
    marker: { symbol: "line-ns-open", size: 22, color: colour("soft"), line: { width: 2.5 } },
    hovertemplate: "promoted once the interval begins right of %{x:+.3f}<extra></extra>",
  };
  return {
    traces: [bounds, estimates],
    layout: {
      height: 70 + ROW * canaries.length,
      xaxis: axis({ title: { text: "gain over the incumbent; promoted where all of the interval lies right of the bar" }, range: [least - room, most + room], tickformat: "+.2f", zerolinewidth: 2 }),
      yaxis: axis({
        showgrid: false,
        zeroline: false,
        ticks: "",
        range: [canaries.length - 0.5, -0.5],
        tickvals: rows,
        ticktext: canaries.map(({ adapter, share }) => `${drawn(shortened(adapter))}, ${shown(share)} `),
      }),
      hovermode: "closest",
    },
    label: `Intervals of the canaries ${canaries.map(({ adapter }) => adapter).join(", ")}: gain over the incumbent and its 95% interval. The table below holds every figure.`,
  };
}
