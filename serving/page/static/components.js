// What the page calls the components of the gains.
import { percent } from "./wording.js";

/** What it is and what it is called: a trait is a component that holds more than chance would. */
export const title = (component) => `${component.trait ? "Trait" : "Component"} ${component.index}: ${called(component)}`;

/** Its name; that one is unsupported shows in its being called a component. */
export const called = ({ name }) => name.replace(/^unsupported: /, "");

/** How much it explains, and whether chance would explain as much. */
export function evidence({ variance, null: chance, p, trait }) {
  const share = `It holds ${percent(variance)} of the variance, 95% of permutations less than ${percent(chance)} (p ${p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`})`;
  return `${share}: ${trait ? "a trait, more than chance" : "no more than chance"}`;
}

/** Offer the components in a select; `chosen` is the place of the one to begin with. */
export function offer(select, components, chosen) {
  const options = components.map((each, i) => new Option(title(each), String(i), i === chosen, i === chosen));
  select.replaceChildren(...options);
}
