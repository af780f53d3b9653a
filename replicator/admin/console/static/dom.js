// Elements from values. Text is only ever set as text, so that nothing in a key or a value is markup.

const SVG = "http://www.w3.org/2000/svg";

function made(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export const h = (tag, properties, ...children) => made(document.createElement(tag), properties, children);
export const svg = (tag, properties, ...children) => made(document.createElementNS(SVG, tag), properties, children);

// The same place keeps the focus when its page is drawn anew: elements that matter bear a `data-key`.
export function show(place, ...children) {
  const key = document.activeElement?.dataset?.key;
  const within = place.contains(document.activeElement);
  place.replaceChildren(...children.flat(Infinity).filter((child) => child instanceof Node));
  if (within && key) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

const ROWS = 100;
const firsts = new Map(); // where a table that has pages stands, by its caption, also when its page is drawn anew

// A table; on a narrow screen each row is a card. `columns`: names; a cell is text, a node, or a list of them. A row is
// its cells, `{class, cells}`, or a function that returns one: beyond 100 rows there are pages, and only one is made.
export function table(columns, rows, { caption, cards = true, of } = {}) {
  if (rows.length === 0) return h("p", { class: "soft" }, of ?? "None.");
  if (rows.length <= ROWS) return whole(columns, rows, caption, cards);
  const place = h("div", {});
  const turn = (first) => {
    firsts.set(caption, first);
    const end = Math.min(first + ROWS, rows.length);
    const to = (text, key, there) => h("button", { type: "button", "data-key": `${caption} ${key}`, disabled: there < 0 || there >= rows.length, onclick: () => turn(there) }, text);
    show(place,
      h("div", { class: "row spread" }, h("p", { class: "soft" }, `Rows ${first + 1} to ${end} of ${rows.length}`),
        h("div", { class: "row" }, to("Previous", "previous", first - ROWS), to("Next", "next", first + ROWS))),
      whole(columns, rows.slice(first, end), caption, cards));
  };
  turn(Math.min(firsts.get(caption) ?? 0, ROWS * Math.floor((rows.length - 1) / ROWS)));
  return place;
}

function whole(columns, rows, caption, cards) {
  return h("table", { class: cards ? "cards" : "", "aria-label": caption },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map((each) => {
      const row = typeof each === "function" ? each() : each;
      return h("tr", { class: row.class },
        (row.cells ?? row).map((cell, index) => h("td", { "data-label": columns[index], class: typeof cell === "number" ? "number" : "" }, cell)));
    })));
}

// A sentence with the commands that it names in backticks.
export const prose = (text) => String(text).split("`").map((part, index) => index % 2 ? h("code", {}, part) : part);

export const section = (title, ...children) => h("section", { "aria-label": title }, h("h2", {}, title), ...children);
export const state = (text, kind) => h("span", { class: `state ${kind ?? ""}` }, text);

export function say(text) {
  const place = document.getElementById("said");
  place.replaceChildren(h("p", {}, text));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.replaceChildren(), 8000);
}
