// Conflicts and parked keys: what lost or was refused, with its values hidden until a token reveals them.

import { ask } from "./api.js";
import { allowed, button } from "./actions.js";
import { h, say, section, state, table } from "./dom.js";
import { keyText, time, typed } from "./text.js";

let chosenConflict = null, chosenRow = null, conflictRule = "";

function images(left, right, names) {
  const all = [...new Set([...Object.keys(left ?? {}), ...Object.keys(right ?? {})])].sort();
  return (differs) => table(["attribute", ...names, ""], all.map((name) => ({
    class: differs.includes(name) ? "differs" : "",
    cells: [h("code", {}, name), h("code", {}, typed(left?.[name])), h("code", {}, typed(right?.[name])), differs.includes(name) ? "differs" : "same"],
  })), { caption: `${names[0]} and ${names[1]} side by side`, of: "Neither side has an image." });
}

// Values are asked for once, for this one thing, and are forgotten when another is chosen.
function reveal(path, chosen, refresh) {
  if (chosen.masked === false) return h("button", { type: "button", "data-key": "hide", onclick: () => { chosen.masked = true; chosen.shown = null; refresh(); } }, "Hide values");
  const show = async () => {
    if (!allowed(show, ["read", "write"])) return;
    try {
      chosen.shown = await ask(`${path}?values=show`);
      chosen.masked = false;
      refresh();
    } catch (refused) { say(refused.message); }
  };
  return h("button", { type: "button", "data-key": "reveal", onclick: show }, "Reveal values");
}

async function promotion(id, region, refresh) {
  const path = `/conflicts/${id}/promotion`;
  const open = async () => {
    if (!allowed(open)) return;
    try {
      const planned = await ask(region ? `${path}?region=${encodeURIComponent(region)}` : path);
      const parts = [
        h("p", {}, `${keyText(planned.key)} in table ${planned.table} of region ${planned.region}${planned.after === null ? " would be deleted" : ""}:`),
        images(planned.before, planned.after, ["now", "promoted"])(planned.differs),
      ];
      const hidden = button("Promote", "promote", { id, seen: planned.seen, region: region ?? planned.region }, { title: "Restore the losing version, as a new write?", parts, done: refresh });
      hidden.click();
    } catch (refused) { say(refused.message); }
  };
  await open();
}

function conflict(entry, refresh) {
  const shown = chosenConflict.shown?.conflict ?? entry;
  const side = (name) => [entry[`${name}_op`], entry[`${name}_region`], entry[`${name}_time`]].filter(Boolean).join(", ");
  return section(`Conflict ${entry.id.slice(0, 12)}`,
    h("p", {}, h("code", {}, keyText(entry.key)), ` of ${entry.table}, rule ${entry.rule}: ${entry.kind}, ${entry.outcome}. ${entry.reason ?? ""}`),
    h("p", { class: "soft" }, `Winner: ${side("winner")}. Loser: ${side("loser")}.`),
    h("div", { class: "row" }, reveal(`/conflicts/${entry.id}`, chosenConflict, refresh),
      h("button", { type: "button", class: "main", "data-key": "promote", onclick: () => promotion(entry.id, null, refresh) }, "Promote the loser…")),
    h("div", { class: "images" }, images(shown.winner, shown.loser, ["winner", "loser"])(entry.differs)));
}

export const conflicts = {
  title: "Conflicts",
  load: async () => (await ask(`/conflicts?limit=50${conflictRule ? `&rule=${encodeURIComponent(conflictRule)}` : ""}`)).conflicts,
  every: null,
  draw: (entries, { status, refresh, reload }) => {
    const names = (status?.rules ?? []).map((rule) => rule.name);
    const choose = h("select", { "aria-label": "Rule", "data-key": "rule", onchange: (event) => { conflictRule = event.target.value; reload(); } },
      [["", "every rule"], ...names.map((name) => [name, name])].map(([value, text]) => h("option", { value, selected: value === conflictRule }, text)));
    const rows = entries.map((entry) => ({
      class: entry.id === chosenConflict?.id ? "chosen" : "",
      cells: [
        h("button", { type: "button", "data-key": entry.id, onclick: () => { chosenConflict = { id: entry.id, masked: true }; refresh(); document.querySelector(`[aria-label^="Conflict ${entry.id.slice(0, 12)}"]`)?.scrollIntoView({ block: "nearest" }); } }, entry.id.slice(0, 12)),
        time(entry.detected_at), entry.rule, h("code", {}, keyText(entry.key)), entry.kind,
        [entry.winner_op, entry.winner_region].filter(Boolean).join(" "), [entry.loser_op, entry.loser_region].filter(Boolean).join(" "), entry.outcome,
      ],
    }));
    const chosen = entries.find((entry) => entry.id === chosenConflict?.id);
    return [
      h("div", { class: "row spread" }, h("p", { class: "soft" }, "The newest 50 entries, as of when this page was opened: "), h("div", { class: "row" }, choose, h("button", { type: "button", "data-key": "again", onclick: reload }, "Reload"))),
      chosen && conflict(chosen, refresh),
      section("Conflicts", table(["id", "detected", "rule", "key", "kind", "winner", "loser", "outcome"], rows, { caption: "Conflict entries, newest first", of: "There is no conflict entry." })),
    ];
  },
};

function parkedRow(row, refresh, reload) {
  const shown = chosenRow.shown ?? { kept: "•••" };
  const facts = [["key", row.shown], ["target", row.target], ["table", `${row.region}:${row.table}`], ["change", row.change], ["why", row.why],
    ["tries", `${row.tries}, first ${time(row.first)}, last ${time(row.last)}`], ["size", row.size === null ? "" : `${row.size} bytes`], ["stored change", shown.kept ?? "nothing"]];
  return section(`Parked key ${row.row}`,
    table(["", "value"], facts.map(([name, value]) => [name, h("code", {}, value)]), { caption: "Details", cards: false }),
    h("div", { class: "row" }, reveal(`/parked/${row.row}`, chosenRow, refresh),
      button("Retry", "retry_parked", { id: row.row }, { title: `Retry ${row.shown}?`, done: (answer) => { say(answer.settled ? "It was applied to its target." : `It is still parked: ${answer.why}`); reload(); } }),
      button("Drop", "drop_parked", { id: row.row }, { title: `Drop this change of ${row.shown}?`, confirm: "Drop it", done: reload,
        parts: h("p", {}, "A dropped change never reaches its target; later changes of the key do. The conflict log keeps it, as kind dropped.") })));
}

export const parked = {
  title: "Parked",
  load: async () => ask("/parked"),
  every: 15,
  draw: (found, { refresh, reload }) => {
    const chosen = found.parked.find((row) => row.row === chosenRow?.id);
    const rows = found.parked.map((row) => () => ({
      class: row.row === chosenRow?.id ? "chosen" : "",
      cells: [h("button", { type: "button", "data-key": row.row, onclick: () => { chosenRow = { id: row.row, masked: true }; refresh(); } }, row.row.slice(0, 12)),
        h("code", {}, row.shown), row.target, row.why, row.change, row.tries, time(row.first)],
    }));
    return [
      found.unreadable.map((each) => h("p", {}, state("unknown", "warn"), " ", each)),
      chosen && parkedRow(chosen, refresh, reload),
      section("Parked changes", table(["row", "key", "target", "why", "change", "tries", "since"], rows, { caption: "Parked keys, oldest first", of: found.unreadable.length ? "What was read holds none." : "Nothing is parked." }),
        found.more && h("p", { class: "soft" }, `The oldest ${found.parked.length} are shown.`)),
    ];
  },
};

