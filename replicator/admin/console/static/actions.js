// Buttons that change something: each shows the command that does the same, and asks once.

import { command, give, perform, session } from "./api.js";
import { h, say } from "./dom.js";
import { quoted } from "./text.js";

const dialog = () => document.getElementById("dialog");
export const isAsking = () => dialog().open;

export function copyable(text) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("The browser does not allow this page to copy; select the text instead.");
    }
  };
  return h("div", { class: "command" }, h("code", {}, text), h("button", { type: "button", onclick: copy, "aria-label": `Copy: ${text}` }, "Copy"));
}

function open(title, parts, confirm, deed) {
  const error = h("p", { class: "error", role: "alert" });
  const yes = h("button", { type: "submit", class: "main" }, confirm);
  const cancel = h("button", { type: "button", onclick: () => dialog().close() }, "Cancel");
  const submit = async (event) => {
    event.preventDefault();
    yes.disabled = true;
    error.replaceChildren();
    try {
      await deed();
      dialog().close();
    } catch (refused) {
      error.replaceChildren(refused.message);
      yes.disabled = false;
    }
  };
  dialog().replaceChildren(h("form", { onsubmit: submit }, h("h2", { id: "dialog-title" }, title), parts, error, h("div", { class: "row" }, cancel, yes)));
  dialog().showModal();
}

// `parts`: what is shown before it is done; `note`: whether a reason may be given; `done`: what is drawn anew.
export function button(label, name, given, { title, parts = [], note = false, done, key, confirm = label, disabled } = {}) {
  const ask = () => {
    if (!allowed(() => ask())) return;
    const all = { ...given };
    const shown = h("div", {}, copyable(command(name, all, quoted)));
    const why = (event) => {
      all.note = event.target.value;
      shown.replaceChildren(copyable(command(name, all, quoted)));
    };
    const noted = note && h("label", {}, "Reason (stored and shown)", h("input", { type: "text", maxlength: 500, oninput: why }));
    open(title, [parts, noted, h("p", { class: "soft" }, "The equivalent command:"), shown], confirm, async () => {
      const answer = await perform(name, all);
      say(`${label}: done.`);
      done?.(answer);
    });
  };
  return h("button", { type: "button", onclick: ask, "data-key": key ?? `${name} ${Object.values(given).join(" ")}`, disabled }, label);
}

// Whether the token may change things; else it is asked for, and then `next` goes on.
export function allowed(next, access = ["write"]) {
  if (access.includes(session.access)) return true;
  askToken(next);
  return false;
}

export function askToken(next) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const about = h("p", {}, "Reading needs no token unless the configuration says so. A token reveals values and allows changes. It is kept until this page is closed or loaded again.");
  open("Enter a token", [about, h("label", {}, "Token", input)], "Use it", async () => {
    await give(input.value.trim());
    document.dispatchEvent(new Event("token"));
    if (next) setTimeout(next);
  });
}
