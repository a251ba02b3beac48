// What this server has decided so far, from its Prometheus metrics: with several API server processes they are added up.
import { Refusal, askText } from "./server.js";
import { element, fill } from "./tables.js";
import { percent } from "./wording.js";

const EVERY_MS = 5000;
const SAMPLE = /^traitroute_decisions_total\{(?<labels>.*)\} (?<value>\S+)/gm;
const LABEL = /(?<name>\w+)="(?<value>(?:[^"\\]|\\.)*)"/g;
const COLUMNS = [
  { title: "answered by" },
  { title: "because" },
  { title: "requests", figure: true },
  { title: "share" },
];

/** Refresh the counters as long as the reader wants it and looks at the page. */
export function followDecisions() {
  const live = document.getElementById("live");
  const refreshLive = () => live.checked && !document.hidden && refresh();
  setInterval(refreshLive, EVERY_MS);
  live.addEventListener("change", refreshLive);
  document.addEventListener("visibilitychange", refreshLive);
}

/** Ask for the counters once. */
export async function refresh() {
  const state = document.getElementById("decisions-state");
  try {
    show(counters(await askText("metrics")));
    state.textContent = `As of ${new Date().toLocaleTimeString("en-GB")}.`;
  } catch (error) {
    if (!(error instanceof Refusal) && !(error instanceof TypeError)) throw error;
    state.textContent = `Not known: ${error.message}`;
  }
}

/** The samples {adapter, kind, count} in a text of Prometheus' format, the most frequent first. */
function counters(text) {
  const samples = [...text.matchAll(SAMPLE)].map(({ groups }) => ({
    ...Object.fromEntries([...groups.labels.matchAll(LABEL)].map(({ groups: label }) => [label.name, label.value])),
    count: Number(groups.value),
  }));
  return samples.sort((a, b) => b.count - a.count);
}

function show(samples) {
  const total = samples.reduce((sum, { count }) => sum + count, 0);
  const rows = samples.map(({ adapter, kind, count }) => ({
    cells: [adapter, BECAUSE[kind] ?? kind, count.toLocaleString("en"), bar(`${adapter}, ${kind}`, count / total)],
  }));
  const none = { cells: ["none yet", "", "0", ""] };
  fill(document.getElementById("decisions-table"), COLUMNS, rows.length ? rows : [none]);
}

const BECAUSE = {
  adapter: "it is predicted to help",
  base: "no adapter is sure to help",
  constrained: "the request admits no adapter",
  "no-text": "the request says nothing to route by",
  "no-profile": "nothing was profiled",
  "router-timeout": "the router took too long",
  "router-busy": "the router was busy",
  "router-error": "the router failed",
  "load-failed": "the adapter could not be loaded",
};

function bar(of, share) {
  const meter = element("meter", { min: 0, max: 1, value: share });
  meter.setAttribute("aria-label", `share of ${of}`);
  return element("span", {}, meter, ` ${percent(share)}`);
}
