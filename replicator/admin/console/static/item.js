// One item everywhere: whether its places agree, and why not.

import { ask } from "./api.js";
import { allowed, button, copyable } from "./actions.js";
import { h, prose, say, section, state, table } from "./dom.js";
import { quoted, span, tail, typed } from "./text.js";

let rule = "", key = "", found = null;

const command = () => `replicator inspect ${quoted(rule)} ${quoted(key)}`;

async function look(refresh, values = false) {
  if (!allowed(() => look(refresh, values), ["read", "write"])) return;
  try {
    found = await ask(`/rules/${encodeURIComponent(rule)}/inspect?key=${encodeURIComponent(key)}${values ? "&values=show" : ""}`);
  } catch (refused) {
    found = null;
    say(refused.message);
  }
  refresh();
}

function reasons(why) {
  if (!why) return null;
  if (why.unknown) return h("p", {}, state("unknown", "warn"), " ", why.unknown);
  return [
    why.problems.map((each) => h("div", { class: "problem" }, h("p", {}, h("strong", {}, each.sentence)), h("p", { class: "soft" }, prose(each.reason)), each.command && copyable(each.command))),
    Object.entries(why.lags ?? {}).map(([target, lag]) => h("p", {}, `${target} is ${lag === null ? "behind by an unknown time" : `at most ${span(lag)} behind`}.`)),
    why.logged.map((entry) => h("p", {}, `Conflict ${entry.id.slice(0, 12)}, ${entry.detected_at}: ${entry.kind}, ${entry.outcome}. `, h("a", { href: "#/conflicts" }, "Conflicts"))),
  ];
}

function answer(refresh) {
  const agrees = { true: state("yes", "good"), false: state("no", "bad"), null: "" };
  const rows = found.places.map((each) => [each.role, `${each.name} in ${each.region}`, each.state, h("code", {}, tail(each.version ?? "", 24)), each.bytes ?? "", agrees[String(each.agrees)],
    found.masked ? "•••" : h("code", {}, typed(each.item ?? undefined))]);
  const verdict = found.agree === null ? state("unknown", "warn") : found.agree ? state("all copies agree", "good") : state("copies differ", "bad");
  return section("Copies of the item", h("p", {}, verdict, " ", found.troubles.join(" ")),
    found.differences.map((each) => h("p", {}, `${each.place}: ${each.attribute ?? ""} ${each.how}`)), reasons(found.reasons),
    table(["what", "where", "state", "version", "bytes", "agrees", "item"], rows, { caption: "Every copy of the item" }),
    h("div", { class: "row" }, h("button", { type: "button", "data-key": "reveal", onclick: () => look(refresh, found.masked) }, found.masked ? "Reveal values" : "Hide values"),
      button("Repair", "repair", { rule, key }, { title: "Correct this item where it differs?", parts: h("p", {}, "Replaced versions are kept in the conflict log, as kind repair.") })),
    copyable(command()));
}

export const item = {
  title: "Item",
  load: async () => null,
  every: null,
  draw: (_, { status, refresh }) => {
    const names = (status?.rules ?? []).map((each) => each.name);
    if (!names.includes(rule)) rule = names[0] ?? "";
    const choose = h("select", { "aria-label": "Rule", "data-key": "rule", onchange: (event) => { rule = event.target.value; found = null; refresh(); } }, names.map((name) => h("option", { value: name, selected: name === rule }, name)));
    const input = h("input", { type: "text", "aria-label": "Key", "data-key": "key", size: 40, value: key, placeholder: 'for example 17 or {"pk":"a","sk":1}', required: true, oninput: (event) => { key = event.target.value; } });
    const submit = (event) => { event.preventDefault(); look(refresh); };
    return [section("Which item", h("form", { class: "row", onsubmit: submit }, choose, input, h("button", { type: "submit", class: "main", "data-key": "look" }, "Look"))), found && answer(refresh)];
  },
};
