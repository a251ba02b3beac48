// By how much auto is better than base on this server's traffic: the confidence sequence over time, and by kind or adapter.
import { axis, colour, draw } from "./plots.js";
import { Refusal, ask } from "./server.js";
import { fill } from "./tables.js";
import { between, counted, percent, sentences, signed } from "./wording.js";

const HEIGHT = 300;
const ANSWER = {
  better: "auto is better than base",
  worse: "auto is worse than base",
  unknown: "whether auto is better than base is not known yet",
};

/** Ask for the comparison once, and show it, or why there is none. */
export async function showLift() {
  const state = document.getElementById("lift-state");
  try {
    show(await ask("v1/lift"));
  } catch (error) {
    if (!(error instanceof Refusal) && !(error instanceof TypeError)) throw error;
    state.textContent = `Not known: ${error.message}`;
  }
}

function show(report) {
  const { total, notes, planning, days, source } = report;
  document.getElementById("lift-state").textContent = `${sentence(total)} ${counts(report)}`;
  const doubts = planning ? [...notes, detectable(planning)] : notes;
  document.getElementById("lift-notes").textContent = sentences(doubts);
  document.getElementById("lift-figures").hidden = total.conversations === 0;
  const by = document.getElementById("lift-by");
  const split = () => fillTable(report, by.value);
  by.onchange = split; // set, not added: with another key another answer is shown
  split();
  fillDays(days);
  document.getElementById("lift-plot").hidden = days.length === 0;
  if (days.length) draw("lift-plot", () => overTime(days, source));
}

/** How sure the sign is: an interval leaves no doubt where it lies on one side of zero. */
function verdict(estimate) {
  if (!estimate || (estimate.low <= 0 && estimate.high >= 0)) return "unknown";
  return estimate.low > 0 ? "better" : "worse";
}

function sentence({ estimate }) {
  if (!estimate) return "The gain of auto over base is not known.";
  const answer = ANSWER[verdict(estimate)];
  return `${answer[0].toUpperCase()}${answer.slice(1)}: ${signed(estimate.gain, 3)} score points a conversation, 95% ${range(estimate)}.`;
}

function counts({ total, source, settling }) {
  const more = settling ? `, ${settling.toLocaleString("en")} more within the hour` : "";
  return `${counted(total.conversations, "conversation")} with an outcome by ${source}, ${total.control.toLocaleString("en")} of them held back${more}.`;
}

function detectable({ detectable: gain, days_for_a_point: days }) {
  const point = days === null ? "years" : counted(Math.ceil(days), "day");
  return `outcomes like these show a gain of ${gain.toFixed(3)} in four cases of five; one of 0.01 takes ${point} of such traffic in all`;
}

const range = ({ low, high }) => between(low, high, 3);

function fillTable({ kinds, adapters, total }, by) {
  const columns = [
    { title: by === "kinds" ? "kind of request" : "adapter chosen" },
    ...["conversations", "held back", "auto", "base", "gain", "95%"].map((title) => ({ title, figure: true })),
    { title: "so" },
  ];
  const rows = { kinds, adapters }[by].map((row) => ({ cells: cells(row.name ?? "like no task", row) }));
  fill(document.getElementById("lift-table"), columns, [...rows, { cells: cells("all", total), chosen: true }]);
}

function fillDays(days) {
  const columns = [{ title: "day (UTC)" }, ...["conversations", "gain of the day", "gain so far", "95% so far"].map((title) => ({ title, figure: true }))];
  const rows = days.map(({ day, conversations, gain, so_far: estimate }) => ({
    cells: [day, conversations.toLocaleString("en"), signed(gain, 3), signed(estimate.gain, 3), range(estimate)],
  }));
  fill(document.getElementById("lift-days-table"), columns, rows);
}

function cells(name, { conversations, chosen, control, reward_auto: auto, reward_base: base, estimate }) {
  const sure = verdict(estimate);
  const mark = { better: "● better", worse: "▼ worse", unknown: chosen ? "not known yet" : "base itself" }[sure];
  const figures = [auto, base].map((reward) => (reward === null ? "–" : percent(reward, 1)));
  const gain = estimate ? { text: signed(estimate.gain, 3), sure: sure !== "unknown" } : "–";
  return [name, conversations.toLocaleString("en"), control.toLocaleString("en"), ...figures, gain, estimate ? range(estimate) : "–", mark];
}

function overTime(days, source) {
  const x = days.map(({ day }) => day);
  const edge = (bound) => days.map(({ so_far: estimate }) => estimate[bound]);
  const line = { type: "scatter", mode: "lines", x, hoverinfo: "skip" };
  const band = { ...line, line: { width: 0 } };
  const last = days.at(-1);
  // While the band is as wide as all that is possible, it would hide what comes later.
  const known = days.filter(({ so_far: e }) => e.high - e.low < 1);
  const shown = known.length ? known : days;
  const bounds = [Math.min(0, ...shown.map(({ so_far: e }) => e.low)), Math.max(0, ...shown.map(({ so_far: e }) => e.high))];
  const room = 0.08 * (bounds[1] - bounds[0]);
  return {
    traces: [
      { ...band, y: edge("low") },
      { ...band, y: edge("high"), fill: "tonexty", fillcolor: `${colour("mark")}38` },
      {
        ...line,
        y: edge("gain"),
        mode: "lines+markers",
        line: { color: colour("mark"), width: 2.5 },
        marker: { size: 5, color: colour("mark") },
        hoverinfo: undefined,
        customdata: days.map(({ so_far: e, conversations, gain }) => [between(e.low, e.high), conversations, signed(gain, 3)]),
        hovertemplate: "%{x}: %{y:+.3f} so far<br>95% %{customdata[0]}<br>the day alone: %{customdata[2]}, %{customdata[1]} conversations<extra></extra>",
      },
    ],
    layout: {
      height: HEIGHT,
      xaxis: axis({ type: "date", showgrid: false, title: { text: "day (UTC)" } }),
      yaxis: axis({ title: { text: "gain so far" }, range: [bounds[0] - room, bounds[1] + room], tickformat: "+.2f", zerolinewidth: 2 }),
      hovermode: "closest",
    },
    label: `Line with a band: the gain of auto over base by ${source} outcomes, and its 95% interval, over ${counted(days.length, "day")}; at the end ${signed(last.so_far.gain, 3)}, ${range(last.so_far)}. The table below holds every figure.`,
  };
}
