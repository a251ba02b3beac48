// Figures and names as the reader sees them.

/** A gain or a loading, with its sign; a true minus, which screen readers say. */
export function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

/** A signed figure without the zero before its point, for narrow cells. */
export const brief = (value) => signed(value).replace("0.", ".").replace(/^\.00$/, "0");

/** An interval of signed figures. */
export const between = (low, high, digits = 2) => `${signed(low, digits)} to ${signed(high, digits)}`;

/** Remarks as sentences, one after the other. */
export const sentences = (remarks) => remarks.map((remark) => `${remark[0].toUpperCase()}${remark.slice(1)}.`).join(" ");

/** A share in [0, 1]. */
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;

/** A number with its noun. */
export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** A name, cut in its middle where it is longer than `most` characters. */
export function shortened(name, most = 24) {
  if (name.length <= most) return name;
  const head = Math.floor((most - 1) / 2);
  return `${name.slice(0, head)}…${name.slice(head + 1 - most)}`;
}

/** A name as Plotly is to draw it: its pseudo-markup would otherwise be read. */
export const drawn = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
