// The chat page: the conversation that is open, and what its reader does to it.

import { keepRow } from "./api.js";
import { write } from "./asking.js";
import { edit, element, ReplyView } from "./reply.js";
import { keepSettings, lastSettings, loadAll, newConversation, remove, save } from "./store.js";

const told = JSON.parse(document.body.dataset.told);
const at = (id) => document.getElementById(id);
const FIELDS = ["system", "temperature", "top_p", "max_tokens", "seed", "thinking"];

function t(key, values = {}) {
  return told.texts[key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

let conversations = loadAll();
let open = null; // the conversation on the page
let running = null; // AbortController of the replies that are being written

// --- the shelf of conversations

function showShelf() {
  at("conversations").replaceChildren(
    ...conversations.map((conversation) => {
      const name = element("button", { type: "button", className: "name", textContent: conversation.title || t("chat.untitled") });
      if (conversation === open) name.setAttribute("aria-current", "true");
      name.addEventListener("click", () => choose(conversation));
      const drop = element("button", { type: "button", className: "quiet drop", textContent: "×", title: t("chat.delete") });
      drop.setAttribute("aria-label", `${t("chat.delete")}: ${name.textContent}`);
      drop.addEventListener("click", () => dropConversation(conversation));
      return element("li", {}, name, drop);
    }),
  );
}

function choose(conversation) {
  running?.abort();
  open = conversation;
  const known = (model) => (told.models.includes(model) ? model : "");
  at("model").value = known(open.model) || told.models[0];
  at("other").value = known(open.other);
  for (const name of FIELDS) at(name).value = open.settings[name] ?? "";
  showShelf();
  showTurns();
  toggleShelf(false);
  at("question").focus();
}

function begin() {
  choose(newConversation(at("model").value || told.models[0], at("other").value, open?.settings ?? lastSettings()));
}

function dropConversation(conversation) {
  if (!confirm(t("chat.delete_sure", { title: conversation.title || t("chat.untitled") }))) return;
  remove(conversation);
  conversations = conversations.filter((other) => other !== conversation);
  if (conversation === open) begin();
  else showShelf();
}

function keep() {
  if (!conversations.includes(open)) conversations.unshift(open);
  open.title ||= open.turns[0]?.question.trim().slice(0, 60) ?? "";
  if (!save(open)) say(t("chat.not_kept"));
  showShelf();
}

function toggleShelf(shown) {
  document.body.classList.toggle("shelf-open", shown);
  at("open-shelf").setAttribute("aria-expanded", String(shown));
}

// --- turns

function showTurns() {
  views.clear();
  const turns = open.turns.map((turn, number) => turnView(turn, number));
  const empty = element("p", { className: "empty", textContent: t("chat.empty") });
  at("turns").replaceChildren(...(turns.length ? turns : [empty]));
  for (const [reply, view] of views) if (!written.has(reply)) view.finish();
  toEnd();
}

const views = new Map(); // reply -> ReplyView
const written = new Set(); // replies that are being written

function turnView(turn, number) {
  const words = element("p", { className: "words", textContent: turn.question });
  const change = element("button", { type: "button", className: "quiet", textContent: t("chat.edit") });
  const question = element("div", { className: "question" }, words, change);
  change.addEventListener("click", async () => {
    const values = await edit(question, [{ label: t("chat.question"), value: turn.question }], t);
    if (values && values[0].trim()) answer(number, values[0].trim());
  });
  const replies = turn.replies.map((reply, side) => {
    const view = new ReplyView(reply, t, actionsOn(turn, number, reply, side));
    views.set(reply, view);
    return view.root;
  });
  const row = element("div", { className: replies.length > 1 ? "replies two" : "replies" }, ...replies);
  return element("section", { className: "turn" }, question, row);
}

function actionsOn(turn, number, reply, side) {
  const actions = {
    copy: async (view, button) => {
      await navigator.clipboard.writeText(reply.content);
      flash(button, t("chat.copied"));
    },
    retry: () => answer(number, turn.question),
    correct: async (view) => {
      const fields = [{ label: t("chat.answer"), value: reply.content }];
      if (reply.reasoning) fields.unshift({ label: t("chat.reasoning"), value: reply.reasoning });
      const values = await edit(view.root, fields, t);
      if (!values) return;
      reply.content = values.at(-1);
      if (reply.reasoning) reply.reasoning = values[0];
      reply.corrected = true;
      view.finish();
      keep();
    },
  };
  if (told.keeps) {
    actions.keep = async (view, button) => {
      const last = { role: "assistant", content: reply.content };
      if (reply.reasoning) last.reasoning_content = reply.reasoning;
      try {
        await keepRow(told.token, [...history(number, side), { role: "user", content: turn.question }, last]);
        flash(button, t("chat.row_kept"));
      } catch (error) {
        say(error.message);
        flash(button, error.message);
      }
    };
  }
  return actions;
}

function flash(button, text) {
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => (button.textContent = before), 2500);
}

// What a model is told before the question of turn `number`: the conversation as its side of the page saw it.
function history(number, side) {
  const messages = open.settings.system.trim() ? [{ role: "system", content: open.settings.system.trim() }] : [];
  for (const turn of open.turns.slice(0, number)) {
    const reply = turn.replies[side] ?? turn.replies[0];
    if (!reply?.content) continue; // nothing came
    messages.push({ role: "user", content: turn.question }, { role: "assistant", content: reply.content });
  }
  return messages;
}

// --- asking

// Ask (again) at turn `number`; what stood there and after it goes.
async function answer(number, question) {
  running?.abort();
  const control = (running = new AbortController());
  const models = [open.model, open.other].filter(Boolean);
  const blank = { reasoning: "", content: "", thinkSeconds: null, tokens: null, rate: null, ending: "", error: "", corrected: false };
  const turn = { question, replies: models.map((model) => ({ ...blank, model })) };
  open.turns.splice(number, Infinity, turn);
  const asked = open;
  for (const reply of turn.replies) written.add(reply);
  keep();
  showTurns();
  writing(true);
  const last = { role: "user", content: question };
  await Promise.all(
    turn.replies.map(async (reply, side) => {
      await write(views.get(reply), [...history(number, side), last], asked.settings, control.signal, followEnd);
      written.delete(reply);
    }),
  );
  if (running === control) {
    running = null;
    writing(false);
    say(t("chat.finished"));
  }
  if (asked === open) keep();
  else save(asked);
}

function writing(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
  at("turns").setAttribute("aria-busy", String(is));
}

function say(text) {
  at("status").textContent = text;
}

let follows = true; // whether the end of the conversation is to be kept in sight
at("turns")?.addEventListener("scroll", (event) => {
  const box = event.target;
  follows = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
});

function followEnd() {
  if (follows) at("turns").scrollTop = at("turns").scrollHeight;
}

function toEnd() {
  follows = true;
  followEnd();
}

// --- what the reader does

function readSettings() {
  const number = (name) => (at(name).value === "" || !at(name).checkValidity() ? null : Number(at(name).value));
  const before = open.settings;
  open.settings = {
    system: at("system").value,
    temperature: number("temperature") ?? before.temperature,
    top_p: number("top_p") ?? before.top_p,
    max_tokens: number("max_tokens"),
    seed: number("seed"),
    thinking: at("thinking").value,
  };
  keepSettings({ ...open.settings, system: "" });
  if (open.turns.length) keep();
}

function send() {
  const question = at("question").value.trim();
  if (!question || running) return;
  at("question").value = "";
  fit();
  answer(open.turns.length, question);
}

function fit() {
  const box = at("question");
  box.rows = Math.min(8, Math.max(1, box.value.split("\n").length));
}

function listen() {
  at("new").addEventListener("click", begin);
  at("open-shelf").addEventListener("click", () => toggleShelf(!document.body.classList.contains("shelf-open")));
  at("open-settings").addEventListener("click", () => {
    at("settings").hidden = !at("settings").hidden;
    at("open-settings").setAttribute("aria-expanded", String(!at("settings").hidden));
  });
  at("settings").addEventListener("submit", (event) => event.preventDefault());
  at("settings").addEventListener("change", readSettings);
  for (const id of ["model", "other"]) {
    at(id).addEventListener("change", () => {
      open[id] = at(id).value;
      if (open.turns.length) keep();
    });
  }
  at("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  at("stop").addEventListener("click", () => running?.abort());
  at("question").addEventListener("input", fit);
  at("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  window.addEventListener("pagehide", () => running && save(open)); // what has come so far is not lost
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      running?.abort();
      toggleShelf(false);
    }
  });
}

if (told.models.length) {
  listen();
  at("question").disabled = at("send").disabled = false;
  if (conversations.length) choose(conversations[0]);
  else begin();
}
