// Conversations, kept in this browser and nowhere else: one entry of localStorage each, so that two tabs do not
// overwrite each other's.
//
// conversation: {id, title, changed, model, other, settings, turns: [{question, replies: [reply, reply?]}]}
// reply: {model, reasoning, content, thinkSeconds, tokens, rate, ending, error, corrected}

const CHAT = "octavo.chat.";
const SETTINGS = "octavo.settings";
export const DEFAULTS = { system: "", temperature: 0.6, top_p: 0.95, max_tokens: null, seed: null, thinking: "" };

export function newConversation(model, other, settings) {
  const id = `${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  return { id, title: "", changed: Date.now(), model, other, settings: { ...settings }, turns: [] };
}

// All conversations, the one changed last first.
export function loadAll() {
  const found = [];
  for (const key of keys()) {
    const conversation = read(key, whole);
    if (conversation) found.push(conversation);
  }
  return found.sort((one, other) => other.changed - one.changed);
}

// Whether it could be kept: a browser has a limit.
export function save(conversation) {
  conversation.changed = Date.now();
  return write(CHAT + conversation.id, conversation);
}

export function remove(conversation) {
  try {
    localStorage.removeItem(CHAT + conversation.id);
  } catch {
    // a browser that keeps nothing has nothing to remove
  }
}

export function lastSettings() {
  return read(SETTINGS, settingsOf) || { ...DEFAULTS };
}

export function keepSettings(settings) {
  write(SETTINGS, settings);
}

function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(CHAT));
  } catch {
    return [];
  }
}

function read(key, check) {
  try {
    return check(JSON.parse(localStorage.getItem(key)));
  } catch {
    return null; // damaged, or from another version: it is not shown, and not thrown away
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function whole(value) {
  if (typeof value.id !== "string" || !Array.isArray(value.turns)) return null;
  const turns = value.turns.map((turn) => ({ question: String(turn.question), replies: turn.replies.map(replyOf) }));
  return {
    id: value.id,
    title: String(value.title ?? ""),
    changed: Number(value.changed) || 0,
    model: String(value.model ?? ""),
    other: String(value.other ?? ""),
    settings: settingsOf(value.settings ?? {}),
    turns,
  };
}

function replyOf(value) {
  const number = (given) => (typeof given === "number" ? given : null);
  return {
    model: String(value.model ?? ""),
    reasoning: String(value.reasoning ?? ""),
    content: String(value.content ?? ""),
    thinkSeconds: number(value.thinkSeconds),
    tokens: number(value.tokens),
    rate: number(value.rate),
    ending: String(value.ending ?? ""),
    error: String(value.error ?? ""),
    corrected: Boolean(value.corrected),
  };
}

function settingsOf(value) {
  const number = (name, low, high) => {
    const given = value[name];
    return typeof given === "number" && given >= low && given <= high ? given : DEFAULTS[name];
  };
  return {
    system: String(value.system ?? ""),
    temperature: number("temperature", 0, 2),
    top_p: number("top_p", 0, 1),
    max_tokens: number("max_tokens", 1, 1e6),
    seed: number("seed", 0, 2 ** 53 - 1),
    thinking: ["yes", "no"].includes(value.thinking) ? value.thinking : "",
  };
}
