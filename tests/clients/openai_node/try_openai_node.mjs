// OpenAI, Node
// `new OpenAI({ baseURL: "http://127.0.0.1:4080/v1", apiKey: "unused" })`, or `OPENAI_BASE_URL` and `OPENAI_API_KEY`.

import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { call, check, runCalls } from "../calls.mjs";

const client = (server) => new OpenAI({ baseURL: server.url, apiKey: "unused", maxRetries: 0 });
const QUESTION = "What is the capital of France?";
const messages = [{ role: "user", content: QUESTION }];
const WEATHER = [{ role: "user", content: "What is the weather in Paris?" }];
const Verdict = z.object({ score: z.number().int(), grade: z.enum(["good", "bad"]) });
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, unit: { type: "string", enum: ["C", "F"] } },
  required: ["city", "unit"],
};

call("models.list", "simulated", async (server) => {
  const ids = [];
  for await (const model of client(server).models.list()) ids.push(model.id);
  check(ids.includes(server.model), ids);
});

call("chat.completions.create", "embedded", async (server) => {
  const answer = await client(server).chat.completions.create({ model: server.model, messages, temperature: 0 });
  check(answer.choices[0].message.content.includes("Paris"), answer);
});

call("chat.completions.stream", "embedded", async (server) => {
  const stream = client(server).chat.completions.stream({ model: server.model, messages, temperature: 0 });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  check(text.includes("Paris") && (await stream.finalContent()) === text, text);
});

call("chat.completions.parse (a zod schema)", "embedded", async (server) => {
  const answer = await client(server).chat.completions.parse({
    model: server.model,
    messages,
    max_tokens: 200,
    response_format: zodResponseFormat(Verdict, "verdict"),
  });
  check(["good", "bad"].includes(answer.choices[0].message.parsed.grade), answer);
});

call("chat.completions.runTools", "simulated", async (server) => {
  let asked = 0;
  const runner = client(server).chat.completions.runTools({
    model: server.model,
    messages: WEATHER,
    tools: [
      {
        type: "function",
        function: { name: "get_weather", parse: JSON.parse, parameters, function: () => ((asked += 1), "Sunny.") },
      },
    ],
  });
  check(typeof (await runner.finalContent()) === "string" && asked > 0, `${asked} calls of the tool`);
});

call("chat.completions.create, tools, required", "embedded", async (server) => {
  const answer = await client(server).chat.completions.create({
    model: server.model,
    messages: WEATHER,
    temperature: 0,
    max_tokens: 200,
    tools: [{ type: "function", function: { name: "get_weather", parameters } }],
    tool_choice: "required",
  });
  const called = answer.choices[0].message.tool_calls[0].function;
  check(["C", "F"].includes(JSON.parse(called.arguments).unit), answer);
});

call("embeddings.create", "simulated", async (server) => {
  const answer = await client(server).embeddings.create({ model: server.model, input: ["one", "two"] });
  const [one, two] = answer.data.map((each) => each.embedding);
  check(one.length > 1 && one.length === two.length && one.every(Number.isFinite), answer);
});

call("responses.create", "embedded", async (server) => {
  const answer = await client(server).responses.create({ model: server.model, input: QUESTION, temperature: 0 });
  check(answer.output_text.includes("Paris"), answer);
});

call("responses.stream", "embedded", async (server) => {
  const stream = client(server).responses.stream({ model: server.model, input: QUESTION, temperature: 0 });
  let text = "";
  for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  check(text.includes("Paris") && (await stream.finalResponse()).output_text === text, text);
});

call("responses.parse (a zod schema)", "embedded", async (server) => {
  const answer = await client(server).responses.parse({
    model: server.model,
    input: QUESTION,
    max_output_tokens: 200,
    text: { format: zodTextFormat(Verdict, "verdict") },
  });
  check(["good", "bad"].includes(answer.output_parsed.grade), answer);
});

call("batches, /v1/chat/completions", "embedded", async (server) => {
  const api = client(server);
  const line = (id) =>
    JSON.stringify({
      custom_id: id,
      method: "POST",
      url: "/v1/chat/completions",
      body: { model: server.model, messages, temperature: 0, max_tokens: 20 },
    });
  const file = await api.files.create({
    file: await toFile(Buffer.from(`${line("a")}\n${line("b")}\n`), "rows.jsonl"),
    purpose: "batch",
  });
  let batch = await api.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  while (["validating", "in_progress", "finalizing"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    batch = await api.batches.retrieve(batch.id);
  }
  const lines = (await (await api.files.content(batch.output_file_id)).text()).trim().split("\n");
  check(lines.length === 2 && lines.every((each) => each.includes("Paris")), lines);
});

await runCalls();
