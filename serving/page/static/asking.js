// The request that the reader types: which adapter the router chooses for it, and why. No model runs for that.
import { offerAnswers } from "./answers.js";
import { called } from "./components.js";
import { ask } from "./server.js";
import { element, fill } from "./tables.js";
import { between, percent, signed } from "./wording.js";

const RANKED = 10;

/** Let the form choose; `errors` shows what goes wrong. */
export function listenForRequests(errors) {
  const form = document.getElementById("ask-form");
  const text = document.getElementById("request");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    if (button.disabled) return; // Ctrl+Enter comes here too
    button.disabled = true;
    try {
      const selection = await ask("v1/skills/select", { body: { task: text.value, k: RANKED } });
      errors.hide();
      show(selection);
      offerAnswers(text.value, selection);
    } catch (error) {
      errors.show(error);
    } finally {
      button.disabled = false;
    }
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

function show(selection) {
  document.getElementById("verdict").replaceChildren(verdict(selection));
  document.getElementById("decision").hidden = false;
  fill(document.getElementById("ranking"), RANKING, selection.ranking.map((skill) => ranked(skill, selection.choice)));
  document.getElementById("reasons").replaceChildren(reasons(selection));
}

function verdict({ choice, reason }) {
  const why = reason.startsWith(`${choice}: `) ? reason.slice(choice.length + 2) : reason;
  const className = choice === "base" ? "verdict base" : "verdict";
  return element("p", { className }, element("strong", { text: choice }), " ", element("span", { text: why }));
}

const RANKING = [
  { title: "adapter" },
  { title: "gain", figure: true },
  { title: "interval", figure: true },
  { title: "loaded" },
  { title: "side effects" },
];

function ranked({ name, gain, low, high, loaded, side_effects: lost }, choice) {
  const isBase = name === "base";
  const cells = [
    name === choice ? `${name} (chosen)` : name,
    signed(gain),
    isBase ? "" : between(low, high),
    isBase ? "" : { true: "yes", false: "no", null: "not known" }[loaded],
    lost.map((effect) => `${effect.task} ${signed(effect.gain)}`).join(", ") || (isBase ? "" : "none"),
  ];
  return { cells, chosen: name === choice };
}

function reasons({ nearest_tasks: tasks, demand, profile_version: version }) {
  const like = tasks.map(({ task, similarity }) => `${task} ${percent(Math.max(0, similarity))}`);
  const facts = [["most like the tasks", like.join(", ") || "none"]];
  for (const part of demand) {
    facts.push([`${part.trait ? "trait" : "component"} ${part.index}`, `${signed(part.demand)} (${called(part)})`]);
  }
  facts.push(["profile version", String(version)]);
  return element("dl", {}, ...facts.flatMap(([term, text]) => [element("dt", { text: term }), element("dd", { text })]));
}
