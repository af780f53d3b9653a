// Shards with their lineage, gaps and jobs, workers with what they own, and what was done here.

import { ask } from "./api.js";
import { drawn, lineage } from "./charts.js";
import { allowed, button } from "./actions.js";
import { h, say, section, state, table } from "./dom.js";
import { place, span, tail, time } from "./text.js";

let everyShard = false;

const STANDING = { finished: "", open: "good", closed: "good", waiting: "warn", vanished: "bad" };

// What would be read again is shown before it is.
async function rewinding(rule, to, done) {
  const open = async () => {
    if (!allowed(open)) return;
    try {
      const planned = await ask(`/rules/${encodeURIComponent(rule)}/rewind?to=${encodeURIComponent(to)}`);
      if (planned.count === 0) { say("Nothing to rewind."); return; }
      const rows = planned.steps.map((each) => () => [each.stream, h("code", {}, tail(each.shard, 26)), each.target, h("code", {}, tail(each.position, 22))]);
      const parts = [h("p", {}, `${planned.count} checkpoints move back. Versions prevent re-read records from undoing anything newer.`),
        planned.gone.length > 0 && h("p", {}, `${planned.gone.length} shards are no longer in their stream and are not changed.`),
        table(["stream", "shard", "target", "checkpoint"], rows, { caption: "Shards to read again" })];
      button("Rewind", "rewind", { rule, to, seen: planned.seen }, { title: `Rewind rule ${rule}?`, parts, done }).click();
    } catch (refused) { say(refused.message); }
  };
  await open();
}

function again(rules, done) {
  const rule = h("select", { "aria-label": "Rule", "data-key": "rewind rule" }, rules.map((each) => h("option", { value: each.name }, each.name)));
  const to = h("input", { type: "text", "aria-label": "Since", "data-key": "rewind to", placeholder: "2h, 2026-07-01T12:00:00Z, trim_horizon", size: 36 });
  return section("Read again", h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); rewinding(rule.value, to.value.trim() || "trim_horizon", done); } },
    rule, to, h("button", { type: "submit", "data-key": "rewind" }, "Rewind…")));
}

const release = (given, of, done) => button("Release", "release_leases", given, { title: `Release ${of}?`, done,
  parts: h("p", {}, "Workers claim it again within seconds, possibly the same one. Records in progress are applied again, which changes nothing.") });

export const shards = {
  title: "Shards",
  load: async () => ask(`/shards${everyShard ? "?all=true" : ""}`),
  every: 15,
  draw: (found, { status, reload }) => {
    const streams = new Map();
    for (const each of found.shards) {
      const name = `${each.region}:${each.table}`;
      if (!streams.has(name)) streams.set(name, []);
      streams.get(name).push(each);
    }
    const some = new Set(drawn(found.shards));
    const toggle = h("label", {}, h("input", { type: "checkbox", "data-key": "all", checked: everyShard, onchange: (event) => { everyShard = event.target.checked; reload(); } }), " finished shards, too");
    return [
      h("div", { class: "row spread" }, h("p", { class: "soft" }, "A shard is read after all its parents were read to their end."), toggle),
      found.unreadable.map((each) => h("p", {}, state("unknown", "warn"), " ", each)),
      found.more && h("p", {}, state("cut", "warn"), ` Only the first ${found.shards.length} shards are shown. All: `, h("code", {}, "replicator leases list")),
      some.size < found.shards.length && h("p", { class: "soft" }, `${some.size} of ${found.shards.length} shards are drawn, first those that wait and those without a worker. The tables list the others.`),
      streams.size === 0 && h("p", { class: "soft" }, "No shards."),
      [...streams].map(([name, own]) => section(name, lineage(own.filter((each) => some.has(each))), table(["shard", "state", "waits for", "worker", "epoch", "positions"], own.map((each) => () => [
        h("code", {}, tail(each.shard, 26)), state(each.state, STANDING[each.state]), each.waits_for.map((id) => tail(id, 26)).join(", "),
        each.owner ? h("code", {}, tail(each.owner)) : state("none", each.state === "finished" ? "" : "warn"), each.epoch,
        Object.entries(each.positions).map(([target, position]) => h("div", {}, h("span", { class: "soft" }, `${target} `), h("code", {}, tail(position ?? "none", 22)))),
      ]), { caption: `Shards of ${name}` }))),
      again(status?.rules ?? [], reload),
    ];
  },
};

function gapRow(gap, reload) {
  return [h("code", {}, gap.gap), gap.target, `${gap.region}:${gap.table}`, h("code", {}, tail(gap.shard, 22)), gap.why, time(gap.found_at),
    gap.acknowledged_at ? `acknowledged by ${gap.acknowledged_by} ${gap.note}`
      : button("Acknowledge", "acknowledge_gap", { id: gap.gap }, { title: "Acknowledge this gap?", confirm: "Acknowledge", note: true, done: reload,
        parts: h("p", {}, `Records of shard ${gap.shard} of ${gap.region}:${gap.table} behind ${gap.after}${gap.until ? ` up to ${gap.until}` : ""} never reached ${gap.target}, or may not have. Items that changed only there differ until they are written again.`) })];
}

function jobRow(job, reload) {
  const share = job.items_expected > 0 ? Math.min(1, job.items / job.items_expected) : null;
  const act = (label, name) => button(label, name, { id: job.job }, { title: `${label} job ${job.job}?`, done: reload });
  const isOpen = ["running", "paused"].includes(job.state);
  return [h("code", {}, job.job), job.rule, job.table, state(job.state, { running: "good", paused: "warn", failed: "bad" }[job.state]),
    [isOpen && h("progress", { max: 1, value: share, "aria-label": `Progress of ${job.job}` }), ` ${job.items} of about ${job.items_expected} items, segments ${job.segments_done}/${job.segments}`,
      job.eta_seconds !== null && `, ${span(job.eta_seconds)} left`], judged(job), job.by, time(job.created_at), job.note,
    isOpen ? h("div", { class: "row" }, job.state === "paused" ? act("Resume", "resume_job") : act("Pause", "pause_job"), act("Cancel", "cancel_job")) : ""];
}

// What a comparison found: of all of its segments together.
function judged(job) {
  const { compared, differences = 0, stale = 0, mended = 0 } = job.counts;
  if (compared === undefined) return "";
  if (differences + stale === 0) return state(job.state === "done" ? "no difference" : "no difference yet", job.state === "done" ? "good" : "");
  const parts = [differences > 0 && `${differences} differ`, stale > 0 && `${stale} cache entries are stale`, mended > 0 && `${mended} mended`];
  return [state(parts.filter(Boolean).join(", "), "bad"), differences > 0 && h("p", { class: "soft" }, "Which: ", h("code", {}, "replicator jobs show ID"))];
}

// When what still waits in a stream begins to leave it; the target that comes first.
function nextLoss(status) {
  const known = (status?.rules ?? []).flatMap((rule) => rule.targets.map((each) => ({ ...each, name: `${rule.name}: ${place(each.target)}` })));
  const unknown = known.filter((each) => each.retention_left_seconds === null || each.unknown_shards > 0).map((each) => each.name);
  const [first] = known.filter((each) => each.retention_left_seconds !== null).sort((a, b) => a.retention_left_seconds - b.retention_left_seconds);
  return [
    first && h("p", {}, first.retention_left_seconds > 0 ? `If reading stopped now, the first records would be lost in ${span(first.retention_left_seconds)}: ` : "Records are lost now: ",
      h("code", {}, first.name), `, ${span(first.lag_seconds)} behind.`),
    unknown.length > 0 && h("p", {}, state("not known", "warn"), ` time until a loss: ${unknown.join(", ")}.`),
    known.length === 0 && h("p", { class: "soft" }, "No target reads a stream, so nothing waits in one."),
  ];
}

export const gaps = {
  title: "Gaps and jobs",
  load: async () => {
    const [lost, work] = await Promise.all([ask("/gaps?all=true"), ask("/jobs?all=true")]);
    return { gaps: lost.gaps, jobs: work.jobs.reverse() };
  },
  every: 5,
  draw: (found, { status, reload }) => {
    const open = found.gaps.filter((gap) => !gap.acknowledged_at), over = found.gaps.length - open.length;
    const start = (rule) => h("div", { class: "row" }, h("strong", {}, rule.name),
      button("Verify", "verify", { rule: rule.name }, { title: `Compare the tables of rule ${rule.name}?`, done: reload, parts: h("p", {}, "Reads every item of its tables, within the units that jobs may take.") }),
      button("Repair", "repair", { rule: rule.name }, { title: `Correct what differs in the tables of rule ${rule.name}?`, done: reload, parts: h("p", {}, "Replaced versions are kept in the conflict log, as kind repair.") }));
    return [
      section("Gaps that are not acknowledged", table(["gap", "target", "stream", "shard", "why", "found", ""], open.map((gap) => () => gapRow(gap, reload)), { caption: "Open gaps", of: "There is no open gap." }),
        over > 0 && h("p", { class: "soft" }, `${over} more are acknowledged.`), nextLoss(status)),
      section("Jobs over whole tables", table(["job", "rule", "table", "state", "progress", "found", "by", "since", "note", ""], found.jobs.slice(0, 30).map((job) => jobRow(job, reload)), { caption: "Jobs, newest first", of: "No job ran yet." })),
      section("Start a job", (status?.rules ?? []).map(start)),
    ];
  },
};

// What was found is shown before it may be dropped; each look takes a minute when it finds something.
async function lookForOrphans(done) {
  const look = async () => {
    if (!allowed(look, ["read", "write"])) return;
    say("This takes a minute if there are such entries.");
    try {
      const { templates } = await ask("/caches/orphans");
      const found = templates.filter((each) => each.orphans > 0), unknown = templates.filter((each) => each.unknown);
      const seen = templates.reduce((sum, each) => sum + each.looked_at, 0);
      if (found.length === 0) { say(`${seen} entries were looked at, and none is of an item that is gone. ${unknown.map((each) => each.unknown).join(" ")}`); return; }
      const rows = found.map((each) => [each.cache, h("code", {}, each.template), each.looked_at, each.orphans, each.keys.map((key) => h("div", {}, h("code", {}, tail(key, 40))))]);
      const parts = [h("p", {}, `${seen} entries were looked at${templates.some((each) => each.more) ? "; there are more" : ""}. Each one below shows an item that no table has. They are looked at again before they are dropped, which takes a minute.`),
        table(["cache", "template", "looked at", "found", "entries"], rows, { caption: "Entries of items that are gone" })];
      button("Drop", "drop_orphans", {}, { title: "Drop these cache entries?", parts, done }).click();
    } catch (refused) { say(refused.message); }
  };
  await look();
}

export const workers = {
  title: "Workers",
  load: async () => {
    const [leases, caches] = await Promise.all([ask("/leases?fast=true"), ask("/caches")]);
    return { leases, caches: caches.caches };
  },
  every: 15,
  draw: (found, { status, reload }) => {
    const daemons = new Map((status?.workers ?? []).map((each) => [each.worker, each]));
    const rows = found.leases.workers.map((each) => {
      const known = daemons.get(each.worker);
      const answers = known?.daemon ? known.daemon.ready ? state("ready", "good") : state("not ready", "warn") : state("no answer", "bad");
      return [h("code", {}, each.worker), answers, h("code", {}, each.admin), each.shards, (known?.rules ?? []).join(", "), (known?.daemon?.unready ?? []).join(" "),
        each.shards > 0 ? release({ worker: each.worker }, `the ${each.shards} shards of worker ${each.worker}`, reload) : ""];
    });
    const leases = found.leases.shards.map((each) => () => [`${each.region}:${each.table}`, h("code", {}, tail(each.shard, 26)), each.owner ? h("code", {}, each.owner) : state("none", "warn"), each.epoch, each.state,
      each.owner ? release({ shard: each.shard, stream: `${each.region}:${each.table}` }, `shard ${tail(each.shard, 26)}`, reload) : ""]);
    const caches = found.caches.map((each) => [each.cache, each.region, each.away ? state(`away for ${span(each.away_seconds)}`, "bad") : each.trouble ? state("no answer", "warn") : state("here", "good"),
      each.keys === null ? state("not known", "warn") : `${each.more ? "at least " : ""}${each.keys}${each.owes_flush ? ", and a flush" : ""}`, each.address, each.why || each.trouble || ""]);
    return [
      section("Workers", table(["worker", "answers", "admin server", "shards", "rules", "reason", ""], rows, { caption: "Workers", of: "No worker has a heartbeat." })),
      section("Leases", table(["stream", "shard", "worker", "epoch", "state", ""], leases, { caption: "Shards and their owners" })),
      section("Caches", table(["cache", "region", "state", "backlog", "address", "why"], caches, { caption: "Caches", of: "No rule acts on a cache." }),
        found.caches.length > 0 && h("div", { class: "row" }, h("button", { type: "button", "data-key": "orphans", onclick: () => lookForOrphans(reload) }, "Look for entries of items that are gone…"))),
    ];
  },
};

export const audit = {
  title: "Audit",
  load: async () => ask("/audit"),
  every: 15,
  draw: (found) => section("Actions through the API and this console, newest first",
    table(["when", "who", "from", "command", "result", "reason"], found.deeds.map((each) => [time(each.at), each.who, each.origin, h("code", {}, each.command),
      state(each.result, { done: "good", refused: "warn", failed: "bad", begun: "warn" }[each.result]), each.reason]), { caption: "Actions", of: "No actions yet." })),
};
