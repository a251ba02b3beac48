// The request answered by base and by an adapter, side by side, as the words come.
import { Refusal, ask, chat } from "./server.js";
import { counted } from "./wording.js";

const FIELDS = ["run-form", "rival", "tokens", "stop", "run-state", "answers"];
const [form, rival, tokens, stop, state, answers] = FIELDS.map((id) => document.getElementById(id));
let text = "";
let running = new AbortController();

/** Offer to run this request on base and on an adapter, first of all on the chosen one. */
export function offerAnswers(request, { ranking, choice }) {
  running.abort();
  text = request;
  const names = ranking.map(({ name }) => name).filter((name) => name !== "base");
  const first = choice === "base" ? names[0] : choice;
  rival.replaceChildren(...names.map((name) => new Option(name, name, name === first, name === first)));
  form.hidden = names.length === 0;
  answers.hidden = true;
  state.textContent = "";
}

/** Let the form run; `trouble` tells what goes wrong. */
export function listenForRuns(trouble) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(rival.value, Number(tokens.value)).catch(trouble.tell);
  });
  stop.addEventListener("click", () => running.abort());
}

async function run(adapter, most) {
  running.abort();
  const mine = (running = new AbortController());
  answers.hidden = false;
  document.getElementById("rival-name").textContent = adapter;
  stop.disabled = false;
  state.textContent = `Running base and ${adapter} …`;
  const sides = [
    side("base", await baseModel(), most, mine.signal),
    side("rival", adapter, most, mine.signal),
  ];
  const done = await Promise.all(sides);
  if (mine !== running) return; // another run has taken the place
  stop.disabled = true;
  state.textContent = done.every(Boolean) ? "Both have answered." : "Not both have answered.";
}

/** One side's answer; whether it came to its end. */
async function side(id, model, most, signal) {
  const [answer, note] = ["answer", "note"].map((part) => document.getElementById(`${id}-${part}`));
  answer.replaceChildren();
  note.textContent = "…";
  const start = performance.now();
  try {
    for await (const piece of chat(model, text, most, signal)) answer.append(piece);
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof Refusal) && !(error instanceof TypeError)) throw error;
    note.textContent = error.name === "AbortError" ? "stopped" : error.message;
    return false;
  }
  const seconds = (performance.now() - start) / 1000;
  note.textContent = `${counted(answer.textContent.length, "character")} in ${seconds.toFixed(1)} s`;
  return true;
}

/** What the server calls the base model: it comes first in its list. */
async function baseModel() {
  const { data } = await ask("v1/models");
  return data[0].id;
}
