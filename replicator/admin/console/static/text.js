// Figures as the commands write them.

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "not known";
  for (const [unit, length] of [["d", 86400], ["h", 3600]]) {
    if (seconds >= 2 * length) return `${tenth(seconds / length)} ${unit}`;
  }
  return seconds >= 120 ? `${Math.floor(seconds / 60)} min` : `${tenth(seconds)} s`;
}

function tenth(number) {
  return number >= 10 ? String(Math.floor(number)) : String(Math.floor(number * 10) / 10);
}

export const time = (iso) => iso ? new Date(iso).toLocaleString("sv") : "";
export const clock = (date) => date.toLocaleTimeString("sv");
export const tail = (id, most = 12) => id && id.length > most ? `…${id.slice(-most)}` : id ?? "";
export const place = (target) => target.split("/").slice(1).join(" ");
export const typed = (value) => value === undefined ? "" : JSON.stringify(value);
export const keyText = (key) => Object.entries(key ?? {}).map(([name, value]) => `${name}=${Object.values(value)[0]}`).join(", ");

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;
export const quoted = (text) => PLAIN.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
