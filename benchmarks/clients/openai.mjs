// OpenAI's client for Node against a live server: streaming, tools, JSON Schema, logprobs, errors, cancellation.
//
//     npm install openai && node openai.mjs http://127.0.0.1:8000/v1 MODEL
//
// Prints one line for each thing that works; ends with status 1 at the first that does not.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const schema = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 }, degrees: { enum: [10, 20, 30] } },
  required: ["city", "degrees"],
  additionalProperties: false,
};
const quiet = { model, messages, reasoning_effort: "none", temperature: 0 };

const models = await client.models.list();
assert(models.data.some((each) => each.id === model));
console.log("models");

const whole = await client.chat.completions.create({ ...quiet, max_tokens: 24 });
let text = "";
let usage = null;
const stream = await client.chat.completions.create({
  ...quiet, max_tokens: 24, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
console.log("streaming");

const format = { type: "json_schema", json_schema: { name: "weather", schema, strict: true } };
const parsed = JSON.parse(
  (await client.chat.completions.create({ ...quiet, max_tokens: 120, response_format: format })).choices[0].message.content,
);
assert.deepEqual(Object.keys(parsed).sort(), ["city", "degrees"]);
assert([10, 20, 30].includes(parsed.degrees));
console.log("JSON Schema");

const tools = [{ type: "function", function: { name: "get_weather", parameters: schema } }];
const called = await client.chat.completions.create({
  ...quiet, max_tokens: 160, tools, tool_choice: "required", parallel_tool_calls: false,
});
assert.equal(called.choices[0].finish_reason, "tool_calls");
const [call] = called.choices[0].message.tool_calls;
assert.equal(call.function.name, "get_weather");
assert([10, 20, 30].includes(JSON.parse(call.function.arguments).degrees));
const answered = await client.chat.completions.create({
  ...quiet, max_tokens: 16, tools, tool_choice: "none",
  messages: [...messages, called.choices[0].message, { role: "tool", tool_call_id: call.id, content: "It rains." }],
});
assert(answered.choices[0].message.content.length > 0);
console.log("tools");

const told = await client.chat.completions.create({ ...quiet, max_tokens: 4, logprobs: true, top_logprobs: 2 });
const tokens = told.choices[0].logprobs.content;
assert.equal(tokens.map((token) => token.token).join(""), told.choices[0].message.content);
assert(tokens.every((token) => token.logprob <= 0 && token.top_logprobs.length === 2));
console.log("logprobs");

await assert.rejects(client.chat.completions.create({ ...quiet, model: "nobody" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...quiet, n: -1 }), OpenAI.BadRequestError);
console.log("errors");

const long = await client.chat.completions.create({ ...quiet, max_tokens: 1000, stream: true });
for await (const chunk of long) if (chunk.choices[0]?.delta?.content) break;
long.controller.abort();
const state = async () => await (await fetch(baseURL.replace("/v1", "/metrics"))).text();
const rows = async () => Number((await state()).match(new RegExp(`octavo_rows\\{model="${model}"\\} (\\S+)`))[1]);
for (let tries = 0; tries < 100 && (await rows()) > 0; tries++) await new Promise((done) => setTimeout(done, 100));
assert.equal(await rows(), 0);
console.log("cancellation");

const response = await client.responses.create({ model, input: "Name a colour.", max_output_tokens: 12, temperature: 0 });
assert(response.output_text.length > 0);
console.log("responses");
