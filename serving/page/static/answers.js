// The request answered by base and by an adapter, side by side, as the words come.
import { Refusal, ask, chat } from "./server.js";
import { counted } from "./wording.js";

const FIELDS = ["run-form", "rival", "tokens", "stop", "run-state", "answers"];
const [form, rival, tokens, stop, state, answers] = FIELDS.map((id) => document.getElementById(id));
let text = "";
let running = new AbortController();

/** Offer to run this request on base and on an adapter, first of all on the chosen one. */
export function offerAnswers(request, { ranking, choice }) {
  begin();
  stop.disabled = true;
  text = request;
  const names = ranking.map(({ name }) => name).filter((name) => name !== "base");
  const first = choice === "base" ? names[0] : choice;
  rival.replaceChildren(...names.map((name) => new Option(name, name, name === first, name === first)));
  form.hidden = names.length === 0;
  answers.hidden = true;
  state.textContent = "";
}

/** Let the form run; `errors` shows what goes wrong. */
export function listenForRuns(errors) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(rival.value, Number(tokens.value)).catch(errors.show);
  });
  stop.addEventListener("click", () => running.abort());
}

/** What stops the run that begins here; the one before is stopped. */
function begin() {
  running.abort();
  running = new AbortController();
  return running;
}

async function run(adapter, most) {
  const mine = begin();
  answers.hidden = false;
  document.getElementById("rival-name").textContent = adapter;
  stop.disabled = false;
  state.textContent = `Running base and ${adapter} …`;
  let end = "Not both have answered.";
  try {
    const models = { base: await baseModel(), rival: adapter };
    const sides = Object.entries(models).map(([id, model]) => side(id, model, most, mine.signal));
    if ((await Promise.all(sides)).every(Boolean)) end = "Both have answered.";
  } finally {
    // Unless another run, or request, has taken the place.
    if (mine === running) {
      stop.disabled = true;
      state.textContent = end;
    }
  }
}

/** One side's answer; whether it came to its end. */
async function side(id, model, most, signal) {
  const [answer, note] = ["answer", "note"].map((part) => document.getElementById(`${id}-${part}`));
  answer.replaceChildren();
  note.textContent = "…";
  const start = performance.now();
  try {
    for await (const chunk of chat(model, text, most, signal)) answer.append(chunk);
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
