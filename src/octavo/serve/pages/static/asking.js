// Has a model write one reply, and measures it: how long it reasoned, how fast it wrote.

import { ask } from "./api.js";

const CLOCK_MILLISECONDS = 200;

// Fills the reply of `view` with what the model answers to `messages`; `onGrowth` is called whenever more is shown.
// Ends when the reply is whole, was stopped (by `signal`) or failed; the reply says which.
export async function write(view, messages, settings, signal, onGrowth) {
  const { reply } = view;
  let first = null; // when the first piece came
  let reasonedFrom = null;
  const reasoned = () => (reasonedFrom === null ? null : (performance.now() - reasonedFrom) / 1000);
  const grow = () => view.grow(reply.thinkSeconds ?? reasoned());
  const clock = setInterval(() => reasonedFrom !== null && reply.thinkSeconds === null && grow(), CLOCK_MILLISECONDS);
  grow();
  try {
    for await (const piece of ask(bodyOf(reply.model, messages, settings), signal)) {
      if (piece.reasoning || piece.content) first ??= performance.now();
      if (piece.reasoning) reasonedFrom ??= performance.now();
      reply.reasoning += piece.reasoning;
      reply.content += piece.content;
      if (piece.content) reply.thinkSeconds ??= reasoned();
      if (piece.ending) reply.ending = piece.ending;
      if (piece.usage) measure(reply, piece.usage, first);
      if (piece.reasoning || piece.content) {
        grow();
        onGrowth();
      }
    }
  } catch (error) {
    if (signal.aborted) reply.ending = "stopped";
    else reply.error = error.message;
  } finally {
    clearInterval(clock);
  }
  reply.thinkSeconds ??= reasoned();
  reply.content = reply.content.trim();
  await view.finish();
  onGrowth();
}

function bodyOf(model, messages, settings) {
  const body = { model, messages, temperature: settings.temperature, top_p: settings.top_p };
  if (settings.max_tokens !== null) body.max_tokens = settings.max_tokens; // else as long as the server lets it be
  if (settings.seed !== null) body.seed = settings.seed;
  if (settings.thinking) body.enable_thinking = settings.thinking === "yes";
  return body;
}

// Tokens a second from the first piece on: how long the model took to read is not counted.
function measure(reply, usage, first) {
  reply.tokens = usage.completion_tokens;
  const seconds = (performance.now() - first) / 1000;
  if (first !== null && reply.tokens > 1 && seconds > 0) reply.rate = (reply.tokens - 1) / seconds;
}
