// node caller.js PORT KEY LOOK FILL VALUE: reads through the cache; VALUE stands for the table.
const net = require("net"), crypto = require("crypto");
const [port, key, look, fill, value] = process.argv.slice(2);
const socket = net.connect(Number(port), "127.0.0.1");
let data = Buffer.alloc(0), wake = () => {};
socket.on("data", (part) => { data = Buffer.concat([data, part]); wake(); });
async function take(end) {                       // the bytes up to a place that `end` finds
  for (let at; ; await new Promise((go) => (wake = go)))
    if ((at = end(data)) >= 0) { const part = data.subarray(0, at); data = data.subarray(at); return part; }
}
async function reply() {
  const line = (await take((d) => d.indexOf("\r\n") < 0 ? -1 : d.indexOf("\r\n") + 2)).toString().slice(0, -2);
  const size = Number(line.slice(1));
  if (line[0] === "-") throw new Error(line.slice(1));
  if (line[0] === "*") { const all = []; for (let i = 0; i < size; i++) all.push(await reply()); return all; }
  if (line[0] === "$") return (await take((d) => d.length < size + 2 ? -1 : size + 2)).subarray(0, size);
  return size;
}
function command(...words) {
  socket.write(`*${words.length}\r\n` + words.map((w) => `$${Buffer.byteLength(w)}\r\n${w}\r\n`).join(""));
  return reply();
}
async function run(script, ...rest) {
  const sha = crypto.createHash("sha1").update(script).digest("hex");
  try { return await command("EVALSHA", sha, "1", key, ...rest); } catch (error) {
    if (!error.message.startsWith("NOSCRIPT")) throw error;
    return command("EVAL", script, "1", key, ...rest);
  }
}
(async () => {
  const token = crypto.randomBytes(8).toString("hex");
  const [said, entry, lease] = await run(look, token, "5000", "0");
  let found = value;                             // here: a consistent read of the table, after the look
  if (said.toString() === "hit") found = entry.subarray(entry.indexOf("|") + 1).toString();
  if (said.toString() === "lease") await run(fill, lease.toString(), "V:|" + value, "60000");
  console.log(said.toString(), found);
  socket.end();
})();
