// What the page calls the components of the gains.
import { percent } from "./wording.js";

/** The owner's label where there is one, else the automatic name, after what it is. */
export function title(component) {
  const kind = component.trait ? "Trait" : "Component";
  return `${kind} ${component.index}: ${component.label ?? component.name}`;
}

/** How much it explains, and whether chance would explain as much. */
export function evidence({ variance, null: chance, p, trait }) {
  const share = `It holds ${percent(variance)} of the variance, 95% of permutations less than ${percent(chance)} (p ${p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`})`;
  if (variance > chance) return `${share}: more than chance`;
  return trait ? `${share}: no more than chance, and kept because one is needed` : `${share}: no more than chance`;
}

/** Offer the components in a select; `chosen` is the place of the one to begin with. */
export function offer(select, components, chosen) {
  const options = components.map((each, i) => new Option(title(each), String(i), i === chosen, i === chosen));
  select.replaceChildren(...options);
}
