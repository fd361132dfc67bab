// What the page asks of its server.

async function post(address, body, signal) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error.message;
  } catch {
    // no error in the API's shape: the status has to do
  }
  throw new Error(message);
}

// The pieces of a reply as they come: {reasoning, content, ending, usage}.
export async function* ask(body, signal) {
  const answer = await post("/v1/chat/completions", { ...body, stream: true, stream_options: { include_usage: true } }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.startsWith("data: ") ? event.slice(6) : "";
      if (data === "[DONE]") return;
      if (!data) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices[0];
      yield {
        reasoning: choice?.delta.reasoning_content ?? "",
        content: choice?.delta.content ?? "",
        ending: choice?.finish_reason ?? "",
        usage: chunk.usage ?? null,
      };
    }
  }
}

// A reply as HTML that is safe to show (markdown.py).
export async function asHtml(text) {
  const answer = await post("/page/html", { text });
  return (await answer.json()).html;
}

export async function keepRow(token, messages) {
  await post("/page/keep", { token, messages });
}
