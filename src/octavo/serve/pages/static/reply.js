// One reply on the page: its reasoning folded, its text as it comes, what it cost, and what can be done with it.

import { asHtml } from "./api.js";

const RENDER_EVERY_MILLISECONDS = 400;

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

export class ReplyView {
  // `actions`: name -> function; which buttons are offered, in this order.
  constructor(reply, t, actions) {
    this.reply = reply;
    this.t = t;
    this.isWriting = false;
    this.renderedText = "";
    this.renderedAt = 0;
    this.isRendering = false;
    this.summary = element("summary");
    this.reasoning = element("div", { className: "thoughts" });
    this.fold = element("details", { className: "reasoning", hidden: true }, this.summary, this.reasoning);
    this.text = element("div", { className: "text" });
    this.tail = element("span", { className: "tail" });
    this.trouble = element("p", { className: "trouble", hidden: true });
    this.facts = element("p", { className: "facts" });
    this.buttons = element("div", { className: "actions", hidden: true });
    for (const [name, act] of Object.entries(actions)) {
      const button = element("button", { type: "button", className: "quiet", textContent: t(`chat.${name}`) });
      button.addEventListener("click", () => act(this, button));
      this.buttons.append(button);
    }
    this.foot = element("div", { className: "foot" }, this.facts, this.buttons);
    this.root = element("article", { className: "reply" }, this.fold, this.text, this.trouble, this.foot);
    this.root.setAttribute("aria-label", reply.model);
  }

  // The reply has grown.
  grow(thinkSeconds) {
    this.isWriting = true;
    this.#showReasoning(thinkSeconds);
    if (this.reply.content) {
      this.tail.textContent = this.reply.content.slice(this.renderedText.length);
      if (!this.tail.isConnected) this.text.append(this.tail);
      this.#renderSoon();
    } else if (!this.reply.reasoning) {
      this.text.replaceChildren(element("span", { className: "waiting", textContent: this.t("chat.waiting") }));
    } else {
      this.text.replaceChildren();
    }
  }

  // The reply is whole: its end is shown as the server wants it to look.
  async finish() {
    this.isWriting = false;
    const { reply, t } = this;
    this.#showReasoning(reply.thinkSeconds);
    this.text.replaceChildren();
    this.trouble.hidden = !reply.error;
    this.trouble.textContent = reply.error;
    const facts = [reply.model];
    if (reply.tokens !== null) facts.push(t("chat.tokens", { count: reply.tokens }));
    if (reply.rate !== null) facts.push(t("chat.rate", { rate: reply.rate.toFixed(1) }));
    if (reply.ending === "length") facts.push(t("chat.cut"));
    if (reply.ending === "stopped") facts.push(t("chat.stopped"));
    if (reply.corrected) facts.push(t("chat.corrected"));
    this.facts.textContent = facts.join(" · ");
    this.buttons.hidden = false;
    if (reply.content) {
      this.text.append(element("span", { className: "tail", textContent: reply.content }));
      await this.#render(reply.content);
    }
  }

  #showReasoning(seconds) {
    const { reply, t } = this;
    this.fold.hidden = !reply.reasoning;
    if (!reply.reasoning) return;
    const key = this.isWriting && !reply.content ? "chat.thinking" : "chat.thought";
    this.summary.textContent = t(key, { seconds: (seconds ?? 0).toFixed(1) });
    if (this.reasoning.textContent !== reply.reasoning) this.reasoning.textContent = reply.reasoning;
  }

  #renderSoon() {
    if (this.isRendering || performance.now() - this.renderedAt < RENDER_EVERY_MILLISECONDS) return;
    this.#render(this.reply.content);
  }

  // Puts `text` on the page as HTML, and behind it, plainly, what has come since.
  async #render(text) {
    this.isRendering = true;
    try {
      const html = await asHtml(text);
      if (!this.isWriting && text !== this.reply.content) return; // corrected meanwhile
      this.text.innerHTML = html;
      this.renderedText = text;
      if (this.isWriting) {
        this.tail.textContent = this.reply.content.slice(text.length);
        this.text.append(this.tail);
      }
    } catch {
      // the server is busy or gone: the plain text stays
    } finally {
      this.isRendering = false;
      this.renderedAt = performance.now();
    }
  }
}

// Fields in the place of a text, to change it: `fields` are {label, value}; resolves to the new values, or null.
export function edit(place, fields, t) {
  return new Promise((resolve) => {
    const inputs = fields.map(({ label, value }) => {
      const area = element("textarea", { value, rows: Math.min(14, value.split("\n").length + 1) });
      return { area, row: element("label", {}, label, area) };
    });
    const save = element("button", { textContent: t("chat.save") });
    const cancel = element("button", { type: "button", className: "quiet", textContent: t("chat.cancel") });
    const form = element("form", { className: "editor" }, ...inputs.map(({ row }) => row), element("div", {}, save, cancel));
    const end = (values) => {
      form.replaceWith(place);
      resolve(values);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end(inputs.map(({ area }) => area.value));
    });
    cancel.addEventListener("click", () => end(null));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end(null);
    });
    place.replaceWith(form);
    inputs.at(-1).area.focus();
  });
}
