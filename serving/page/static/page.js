// The page at /traits: it asks the server for what is known of its adapters, and shows it.
import { listenForRuns } from "./answers.js";
import { listenForRequests } from "./asking.js";
import { showCanaries } from "./canaries.js";
import { followDecisions, refresh } from "./decisions.js";
import { showLift } from "./lift.js";
import { showLoadings } from "./loadings.js";
import { showMatrix } from "./matrix.js";
import { Refusal, askAll, useKey } from "./server.js";
import { showSpace } from "./space.js";
import { element, fill } from "./tables.js";

const LISTS = {
  "v1/traits": ["skills"],
  "v1/matrix": ["skills", "scores", "gains", "low", "high", "examples"],
  "v1/skills": ["skills"],
};

const errors = {
  place: document.getElementById("trouble"),
  show(error) {
    const isKey = error instanceof Refusal && error.status === 401;
    errors.place.textContent = isKey ? "This server asks for its API key: give it above." : `That did not work: ${error.message}`;
    errors.place.hidden = false;
    if (isKey) document.getElementById("key").focus();
    if (!(error instanceof Refusal) && !(error instanceof TypeError)) throw error;
  },
  hide() {
    errors.place.hidden = true;
  },
};

async function load() {
  try {
    const [traits, matrix, skills] = await Promise.all(Object.entries(LISTS).map(([path, parts]) => askAll(path, parts)));
    errors.hide();
    showFacts(traits, matrix, skills);
    showMatrix(matrix);
    showSpace(traits);
    showLoadings(traits);
    showProofs(skills);
  } catch (error) {
    errors.show(error);
  }
  await Promise.all([refresh(), showLift(), showCanaries()]);
}

function showProofs({ skills }) {
  const columns = [{ title: "Adapter" }, { title: "When measured", figure: true }, { title: "Here", figure: true }, { title: "Noise", figure: true }, { title: "Verdict" }];
  const figure = (nats) => (nats == null ? "" : nats === 0 || nats >= 0.001 ? nats.toPrecision(3) : nats.toExponential(1));
  const rows = skills.map(({ name, effect, applied }) => ({
    cells: [name, figure(effect), figure(applied?.effect), figure(applied?.noise), applied ? `${applied.verdict}: ${applied.reason}` : "not loaded yet"],
  }));
  fill(document.getElementById("proofs-table"), columns, rows);
}

function showFacts({ traits, profile_version: version }, { tasks }, { base_model: base, skills }) {
  const above = traits.filter(({ trait }) => trait).length;
  const facts = {
    "base model": base,
    adapters: skills.length,
    tasks: tasks.length,
    "traits above chance": `${above} of ${traits.length} components`,
    "profile version": version,
  };
  const pairs = Object.entries(facts).map(([name, fact]) =>
    element("div", {}, element("dt", { text: name }), element("dd", { text: String(fact) })),
  );
  document.getElementById("facts").replaceChildren(...pairs);
}

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = document.getElementById("key");
  useKey(field.value.trim());
  field.value = "";
  load();
});
listenForRequests(errors);
listenForRuns(errors);
followDecisions();
load();
