// Requests to the worker that served this page. The token is kept by this page alone, and goes with it.

const PREFIX = "/api/v1";
const LONGEST = 190_000;
let token = null;
export let session = { token: null, access: "none" };

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function ask(path, body) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`${PREFIX}${path}`, {
      method: body === undefined ? "GET" : "POST", headers, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "omit", cache: "no-store", redirect: "error", signal: AbortSignal.timeout(LONGEST),
    });
  } catch (error) {
    throw new Refused(0, "The worker does not answer.");
  }
  const document = await answer.json().catch(() => ({ detail: "The answer cannot be read." }));
  if (!answer.ok) throw new Refused(answer.status, document.detail ?? answer.statusText);
  return document;
}

export async function give(offered) {
  const before = token;
  token = offered;
  try {
    session = await ask("/session");
  } catch (error) {
    token = before;
    throw error;
  }
}

// What the document says of every operation: its path, and the command that does the same.
const operations = new Map();

export async function learn() {
  const document = await ask("/openapi.json");
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const operation of Object.values(methods)) {
      operations.set(operation.operationId, { path: path.slice(PREFIX.length), operation });
    }
  }
}

function fields(name) {
  const { operation } = operations.get(name);
  const body = operation.requestBody?.content["application/json"].schema.properties ?? {};
  return [...operation.parameters.map((each) => ({ ...each, option: each["x-option"] })),
    ...Object.entries(body).map(([key, each]) => ({ name: key, in: "body", option: each["x-option"] }))];
}

export function command(name, given, quoted) {
  const words = ["replicator", operations.get(name).operation["x-command"]];
  for (const field of fields(name)) {
    const value = given[field.name];
    if (value === undefined || value === null || value === "") continue;
    if (field.in === "path") words.push(quoted(String(value)));
    else if (field.option) words.push(value === true ? field.option : `${field.option} ${quoted(String(value))}`);
  }
  return words.join(" ");
}

export function perform(name, given) {
  const body = {};
  let path = operations.get(name).path;
  for (const field of fields(name)) {
    const value = given[field.name];
    if (value === undefined || value === null || value === "") continue;
    if (field.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(value));
    else body[field.name] = value;
  }
  return ask(path, body);
}
