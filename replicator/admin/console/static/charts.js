// Small drawings: how a lag went, and which shard came from which.

import { svg } from "./dom.js";
import { span, tail } from "./text.js";

export function sparkline(samples, name) {
  const known = samples.filter((each) => each !== null);
  if (known.length < 2) return "";
  const width = 120, height = 26, most = Math.max(...known, 1);
  const step = width / (samples.length - 1);
  let line = "", pen = "M";
  samples.forEach((each, index) => {
    if (each === null) { pen = "M"; return; }
    line += `${pen}${(index * step).toFixed(1)} ${(height - 2 - (each / most) * (height - 4)).toFixed(1)}`;
    pen = "L";
  });
  const label = `Lag of ${name} in the last hour: now ${span(known.at(-1))}, at most ${span(Math.max(...known))}`;
  return svg("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, svg("path", { d: line }));
}

const WIDE = 216, HIGH = 44, GAP = 46, ROW = 58;

const MOST_DRAWN = 200;

// Which shards to draw: all, or first those that wait, what they wait for, and those without a worker.
export function drawn(shards) {
  if (shards.length <= MOST_DRAWN) return shards;
  const awaited = new Set(shards.flatMap((each) => each.waits_for));
  const rank = (each) => ["vanished", "waiting"].includes(each.state) || awaited.has(each.shard) ? 0 : each.owner || each.state === "finished" ? 2 : 1;
  const first = new Set([...shards].sort((one, other) => rank(one) - rank(other)).slice(0, MOST_DRAWN));
  return shards.filter((each) => first.has(each));
}

// Shards in columns: a child stands to the right of the last of its parents.
export function lineage(shards) {
  if (shards.length === 0) return "";
  const byId = new Map(shards.map((each) => [each.shard, each]));
  const columns = new Map();
  const depth = (each, seen = new Set()) => {
    if (columns.has(each.shard)) return columns.get(each.shard);
    if (seen.has(each.shard)) return 0;
    seen.add(each.shard);
    const parents = each.parents.map((id) => byId.get(id)).filter(Boolean);
    const column = parents.length ? 1 + Math.max(...parents.map((parent) => depth(parent, seen))) : 0;
    columns.set(each.shard, column);
    return column;
  };
  const rows = [], at = new Map();
  for (const each of shards) {
    const column = depth(each);
    rows[column] = (rows[column] ?? 0) + 1;
    at.set(each.shard, { x: 2 + column * (WIDE + GAP), y: 2 + (rows[column] - 1) * ROW });
  }
  const width = 4 + rows.length * (WIDE + GAP) - GAP, height = 2 + Math.max(...rows.map((each) => each ?? 0)) * ROW;
  const edges = shards.flatMap((each) => each.parents.filter((id) => at.has(id)).map((id) => {
    const from = at.get(id), to = at.get(each.shard);
    const x = from.x + WIDE, y = from.y + HIGH / 2, end = to.y + HIGH / 2, middle = (x + to.x) / 2;
    return svg("path", { d: `M${x} ${y}C${middle} ${y} ${middle} ${end} ${to.x} ${end}` });
  }));
  const nodes = shards.map((each) => {
    const { x, y } = at.get(each.shard);
    const owner = each.owner ? `read by ${tail(each.owner, 10)}` : "no worker";
    return svg("g", { class: each.state, transform: `translate(${x} ${y})` },
      svg("title", {}, `${each.shard}: ${each.state}, ${owner}`),
      svg("rect", { width: WIDE, height: HIGH, rx: 7 }),
      svg("text", { x: 10, y: 18 }, tail(each.shard, 22)),
      svg("text", { x: 10, y: 34, class: "small" }, each.state === "finished" ? "finished" : `${each.state}, ${owner}`));
  });
  return svg("svg", { class: "lineage", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${shards.length} shards and their parents` }, edges, nodes);
}
