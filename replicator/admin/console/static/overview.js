// The verdict, what is wrong, and how far every target is.

import { ask } from "./api.js";
import { sparkline } from "./charts.js";
import { button, copyable } from "./actions.js";
import { h, prose, section, state, table } from "./dom.js";
import { place, span } from "./text.js";

let history = {};

// What workers remember of the last hour; what is not known is a hole, and is drawn as one.
export async function remember() {
  history = (await ask("/history")).lags;
}

const PAGES = { gap: "gaps", parked: "parked", no_worker: "workers", not_run: "workers", stalled: "shards", unread: "shards", cache: "workers" };

function problem(each) {
  return h("div", { class: "problem" },
    h("p", {}, h("strong", {}, each.sentence), PAGES[each.kind] && [" ", h("a", { href: `#/${PAGES[each.kind]}` }, "Show")]),
    each.reason && h("p", { class: "soft" }, prose(each.reason)), each.advice && h("p", {}, prose(each.advice)),
    each.command && copyable(each.command), each.runbook && h("p", { class: "soft" }, `Runbook: ${each.runbook}`));
}

function standing(rule, name) {
  const here = rule.shards.filter((shard) => !shard.over).flatMap((shard) => shard.targets.filter((each) => each.target === name));
  const blocked = here.find((each) => each.blocked)?.blocked, stalled = here.find((each) => each.stalled)?.stalled;
  if (rule.held.some((row) => row.target === null || row.target === name)) return state("held", "bad");
  if (rule.paused) return [state("paused", "warn"), " ", h("span", { class: "soft" }, `for ${span(rule.paused_seconds)} ${rule.pause_note}`)];
  if (blocked) return [state("blocked", "bad"), " ", h("span", { class: "soft" }, blocked.reason)];
  if (stalled) return [state("stalled", "bad"), " ", h("span", { class: "soft" }, stalled.reason)];
  return here.length ? state("ok", "good") : state("not begun", "warn");
}

function targetRow(rule, target, first, done) {
  const lag = target.lag_seconds === null ? state("not known", "warn") : h("span", { class: "whole" }, span(target.lag_seconds));
  const left = target.retention_left_seconds;
  const hours = left === null ? state("not known", "warn") : left < 6 * 3600 ? state(`${span(left)} left`, left < 3600 ? "bad" : "warn") : h("span", { class: "whole" }, span(left));
  const rest = rule.paused ? button("Resume", "resume", { rule: rule.name }, { title: `Resume rule ${rule.name}?`, done, disabled: false })
    : button("Pause", "pause", { rule: rule.name }, {
      title: `Pause rule ${rule.name} on every worker?`, note: true, done,
      parts: h("p", {}, "Its checkpoints are kept. Streams keep records for 24 hours: changes are lost if the pause is longer."),
    });
  return {
    cells: [
      first ? [h("strong", {}, rule.name), h("br"), h("span", { class: "soft" }, rule.mode)] : "",
      h("code", {}, place(target.target)), lag, sparkline([...(history[target.target] ?? []), target.lag_seconds], target.target), hours,
      [standing(rule, target.target), target.unknown_shards > 0 && h("span", { class: "soft" }, ` lag of ${target.unknown_shards} shards not known`)],
      first ? rest : "",
    ],
  };
}

export const overview = {
  title: "Overview",
  load: async () => null,
  draw: (_, { status, refresh }) => {
    const rows = status.rules.flatMap((rule) => rule.targets.length
      ? rule.targets.map((target, index) => targetRow(rule, target, index === 0, refresh))
      : [{ cells: [h("strong", {}, rule.name), h("span", { class: "soft" }, "no target has a checkpoint yet"), "", "", "", rule.held.length ? state("held", "bad") : "", ""] }]);
    return [
      status.problems.length > 0 && section(`Problems (${status.problems.length})`, status.problems.map(problem)),
      section("Rules and their targets", table(["rule", "target", "lag", "trend", "hours left", "state", ""], rows, { caption: "Targets of every rule" })),
      status.jobs.length > 0 && section("Jobs over whole tables", h("p", {}, status.jobs.length === 1 ? "One job is running: " : `${status.jobs.length} jobs are running: `, h("a", { href: "#/gaps" }, "Gaps and jobs"))),
      status.unconfigured.length > 0 && section("Progress of rules that are not configured", h("p", {}, status.unconfigured.join(", "))),
      status.unreadable.length > 0 && section("Unreadable", status.unreadable.map((each) => h("p", {}, each))),
    ];
  },
};
