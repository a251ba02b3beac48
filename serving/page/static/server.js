// Requests to the server, with the API key that the reader gave: kept for this tab only, sent to this server only.
const KEPT = "traitroute-key";
const PAGE = 1000; // rows a page, the most that the server allows

/** An error response, with the server's message. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Send this key with every request from now on; an empty one sends none. */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEPT, key);
  else sessionStorage.removeItem(KEPT);
}

/** The JSON that the server answers, to a GET or, with a body, to a POST. */
export async function ask(path, { body, signal } = {}) {
  return (await send(path, { body, signal })).json();
}

/** All pages of a list that the server answers to GETs, as one: `parts` are the lists to join. */
export async function askAll(path, parts) {
  let page = await ask(`${path}?limit=${PAGE}`);
  const whole = page;
  while (page.next !== null) {
    page = await ask(`${path}?limit=${PAGE}&after=${encodeURIComponent(page.next)}`);
    if (page.profile_version !== whole.profile_version) return askAll(path, parts); // measured anew meanwhile
    for (const part of parts) whole[part].push(...page[part]);
  }
  return whole;
}

/** The text that the server answers to a GET. */
export async function askText(path) {
  return (await send(path, {})).text();
}

/** The reply of a chat model, chunk by chunk. */
export async function* chat(model, text, tokens, signal) {
  const messages = [{ role: "user", content: text }];
  const body = { model, messages, max_tokens: tokens, temperature: 0, stream: true };
  const response = await send("v1/chat/completions", { body, signal });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(500, chunk.error.message ?? "the answer broke off");
    yield chunk.choices?.[0]?.delta?.content ?? "";
  }
}

async function send(path, { body, signal }) {
  const headers = {};
  const key = sessionStorage.getItem(KEPT);
  if (key) headers.authorization = `Bearer ${key}`;
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  if (!response.ok) throw new Refusal(response.status, await reason(response));
  return response;
}

/** What an error answer says, in any of the forms that servers give it. */
async function reason(response) {
  const text = await response.text();
  try {
    const { error, detail, message } = JSON.parse(text);
    const said = error?.message ?? error ?? detail ?? message;
    return typeof said === "string" ? said : JSON.stringify(said ?? response.statusText);
  } catch {
    return text.slice(0, 200) || response.statusText;
  }
}

/** The data of server-sent events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const lines = (rest + read.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}
