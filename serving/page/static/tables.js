// Tables: the equal of every plot, for those who do not see it or want its figures.

/** An element with text and children in it; never markup, for names come from whoever made the adapters. */
export function element(tag, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/**
 * Fill a table anew, below its caption.
 *
 * `columns` are {title, figure}; a row is {cells, chosen}, and a cell a text, an element or {text, sure}. The first cell heads its row.
 */
export function fill(table, columns, rows) {
  const head = element("tr", {}, ...columns.map((c) => cell("th", c.title, c, { scope: "col" })));
  const body = rows.map(({ cells, chosen = false }) =>
    element(
      "tr",
      { className: chosen ? "chosen" : "" },
      ...cells.map((content, i) =>
        i === 0 ? cell("th", content, columns[i], { scope: "row" }) : cell("td", content, columns[i]),
      ),
    ),
  );
  const caption = table.caption ? [table.caption] : [];
  table.replaceChildren(...caption, element("thead", {}, head), element("tbody", {}, ...body));
}

function cell(tag, content, column, properties = {}) {
  if (content instanceof Node) return element(tag, properties, content);
  const { text, sure } = typeof content === "object" ? content : { text: content };
  const className = [column.figure && "figure", sure && "sure"].filter(Boolean).join(" ");
  return element(tag, { ...properties, className, text });
}
