// The pages, the look at the group every few seconds, and whether what is shown is still true.

import { ask, learn, session } from "./api.js";
import { askToken, isAsking } from "./actions.js";
import { h, say, show } from "./dom.js";
import { item } from "./item.js";
import { conflicts, parked } from "./kept.js";
import { overview, remember } from "./overview.js";
import { clock, span } from "./text.js";
import { audit, gaps, shards, workers } from "./work.js";

const LOOK_SECONDS = 5, HISTORY_SECONDS = 30, OLD_SECONDS = 15, TICK = 1000;
const PAGES = { overview, item, shards, conflicts, parked, gaps, workers, audit };
const $ = (id) => document.getElementById(id);

let status = null, statusAt = null, trouble = null;
let page = overview, found = null, foundAt = null, pageTrouble = null;
let nextHistory = 0;
let looking = false, loading = false, learned = false;

const now = () => performance.now();
const age = () => statusAt === null ? null : (now() - statusAt.tick) / 1000;

async function look() {
  if (looking) return;
  looking = true;
  try {
    if (!learned) { await learn(); learned = true; }
    status = await ask("/status");
    statusAt = { tick: now(), date: new Date() };
    trouble = null;
    if (now() >= nextHistory) { nextHistory = now() + HISTORY_SECONDS * 1000; await remember(); }
    document.title = `${{ healthy: "✓", problems: "✗", unknown: "?" }[status.verdict.state]} ${status.group}: replicator`;
  } catch (refused) {
    trouble = refused;
    document.title = "? replicator";
  } finally {
    looking = false;
    nextLook = now() + LOOK_SECONDS * 1000;
  }
  header();
  if (page === overview) draw();
}

async function load() {
  const wanted = page;
  if (loading === wanted) return;
  loading = wanted;
  try {
    const answer = await wanted.load();
    if (page === wanted) { found = answer; foundAt = now(); pageTrouble = null; }
  } catch (refused) {
    if (page === wanted) pageTrouble = refused;
  } finally {
    if (loading === wanted) loading = false;
  }
  if (page === wanted) draw();
}

// Nothing is drawn under an open question, and nothing is drawn that was never known.
function draw() {
  if (isAsking()) return;
  const heading = h("h1", {}, page.title);
  if (trouble?.status === 401 && status === null) {
    show($("main"), heading, h("p", {}, trouble.message), h("button", { type: "button", class: "main", onclick: () => askToken() }, "Enter a token"));
    return;
  }
  const known = page === overview ? status : foundAt;
  const context = { status, refresh: () => { look(); draw(); }, reload: () => { load(); look(); } };
  show($("main"), heading,
    pageTrouble && h("p", { class: "stale", role: "alert" }, `${foundAt ? "This page could not be refreshed" : "This page cannot be loaded"}: ${pageTrouble.message}`),
    known ? page.draw(found, context) : h("p", { class: "soft" }, pageTrouble || trouble ? "No data yet." : "Loading…"));
}

function header() {
  const seconds = age(), isOld = seconds === null ? trouble !== null : seconds > OLD_SECONDS || trouble !== null;
  document.body.classList.toggle("old", isOld && statusAt !== null);
  $("group").replaceChildren(status ? `group ${status.group}` : "");
  $("freshness").replaceChildren(seconds === null ? trouble ? "No data" : "Loading…" : `As of ${clock(statusAt.date)}, ${span(seconds)} ago`);
  const stale = $("stale"), sentence = !isOld ? "" : statusAt === null ? trouble.message
    : `${trouble?.message ?? "No answer."} What is shown is from ${clock(statusAt.date)} and may be wrong.`;
  if (stale.textContent !== sentence) stale.replaceChildren(sentence);
  stale.hidden = !isOld;
  const verdict = $("verdict"), state = isOld ? "unknown" : status?.verdict.state ?? "";
  const said = isOld && statusAt !== null ? `Cannot know. Last known: ${status.verdict.sentence}` : status?.verdict.sentence ?? "";
  if (verdict.textContent !== said) verdict.replaceChildren(said);
  verdict.className = `verdict ${state}`;
  verdict.hidden = said === "";
  $("token").replaceChildren(session.token ? `Token ${session.token} (${session.access})` : "Enter a token");
  const counts = { parked: status?.parked.reduce((sum, each) => sum + each.keys + each.records, 0), gaps: status ? status.gaps.length + status.jobs.length : 0 };
  for (const link of $("nav").children) {
    const name = link.dataset.page;
    if (PAGES[name] === page) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    link.replaceChildren(PAGES[name].title, ...(counts[name] ? [" ", h("b", {}, counts[name])] : []));
  }
}

function go() {
  page = PAGES[location.hash.slice(2)] ?? overview;
  found = foundAt = pageTrouble = null;
  header();
  draw();
  if (page !== overview) load();
}

let nextLook = 0;

// One tick a second, and requests only while the page is seen: a page that was hidden looks at once.
function tick() {
  if (document.hidden) return;
  if (now() >= nextLook) look();
  if (page.every && !isAsking() && !loading && foundAt !== null && now() - foundAt > page.every * 1000) load();
  else if (pageTrouble && !loading && now() >= nextLook) load();
  header();
}

const THEMES = ["auto", "light", "dark"];
function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  $("theme").replaceChildren(`Theme: ${name}`);
  try { localStorage.setItem("theme", name); } catch { /* kept for this page only */ }
}
const kept = () => { try { return localStorage.getItem("theme") ?? "auto"; } catch { return "auto"; } };
let chosen = THEMES.includes(kept()) ? kept() : "auto";
theme(chosen);
$("theme").addEventListener("click", () => theme(chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length]));
$("token").addEventListener("click", () => askToken());
$("nav").replaceChildren(...Object.entries(PAGES).map(([name, each]) => h("a", { href: `#/${name}`, "data-page": name }, each.title)));
$("dialog").addEventListener("close", () => { if (isAsking()) return; $("dialog").replaceChildren(); draw(); });
document.addEventListener("token", () => { say(`Token ${session.token} may ${session.access}.`); nextLook = 0; header(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) { nextLook = 0; tick(); } });
window.addEventListener("hashchange", () => { go(); $("main").focus(); });
go();
setInterval(tick, TICK);
tick();
