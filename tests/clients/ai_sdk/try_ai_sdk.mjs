// AI SDK
// `createOpenAI({ baseURL: "http://127.0.0.1:4080/v1", apiKey: "unused" })`, whose default is the Responses API, or
// `createOpenAICompatible({ name: "gristmill", baseURL: "http://127.0.0.1:4080/v1" })`, which sends chat completions.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { call, check, runCalls } from "../calls.mjs";

const PROMPT = "What is the capital of France?";
const Verdict = z.object({ score: z.number().int(), grade: z.enum(["good", "bad"]) });
const common = { prompt: PROMPT, temperature: 0, maxRetries: 0 };

const providers = {
  "@ai-sdk/openai": (server) => {
    const openai = createOpenAI({ baseURL: server.url, apiKey: "unused" });
    return { language: openai(server.model), embedding: openai.embedding(server.model) };
  },
  "@ai-sdk/openai, .chat()": (server) => {
    const openai = createOpenAI({ baseURL: server.url, apiKey: "unused" });
    return { language: openai.chat(server.model) };
  },
  "@ai-sdk/openai-compatible": (server) => {
    const compatible = createOpenAICompatible({ name: "gristmill", baseURL: server.url });
    return { language: compatible(server.model), embedding: compatible.embeddingModel(server.model) };
  },
};

const structured = (server) =>
  createOpenAICompatible({ name: "gristmill", baseURL: server.url, supportsStructuredOutputs: true })(server.model);
const NO_SCHEMA =
  "By default this provider sends no schema at all, only `response_format` `json_object`: the answer is JSON, but of " +
  "no known form. With `supportsStructuredOutputs: true` it sends the schema, which is kept to.";

for (const [name, provider] of Object.entries(providers)) {
  call(`${name}: generateText`, "embedded", async (server) => {
    const { text, usage } = await generateText({ model: provider(server).language, ...common });
    check(text.includes("Paris") && usage.outputTokens > 0, { text, usage });
  });

  call(`${name}: streamText`, "embedded", async (server) => {
    let failure;
    const onError = ({ error }) => (failure = error);
    const result = streamText({ model: provider(server).language, ...common, onError });
    let text = "";
    for await (const part of result.textStream) text += part;
    if (failure) throw failure;
    check(text.includes("Paris") && (await result.finishReason) === "stop", text);
  });

  const cannot = name === "@ai-sdk/openai-compatible" ? NO_SCHEMA : "";
  const generate = async (language) => {
    const { object } = await generateObject({ model: language, ...common, schema: Verdict });
    check(["good", "bad"].includes(object.grade) && Number.isInteger(object.score), object);
  };
  const stream = async (language) => {
    let failure;
    const onError = ({ error }) => (failure = error);
    const result = streamObject({ model: language, ...common, schema: Verdict, onError });
    for await (const _ of result.partialObjectStream);
    if (failure) throw failure;
    check(["good", "bad"].includes((await result.object).grade));
  };
  call(`${name}: generateObject`, "embedded", (server) => generate(provider(server).language), cannot);
  call(`${name}: streamObject`, "embedded", (server) => stream(provider(server).language), cannot);
  if (cannot) {
    const told = `${name}, supportsStructuredOutputs`;
    call(`${told}: generateObject`, "embedded", (server) => generate(structured(server)));
    call(`${told}: streamObject`, "embedded", (server) => stream(structured(server)));
  }

  for (const [choice, engine] of [
    ["auto", "simulated"],
    ["required", "embedded"],
  ]) {
    call(`${name}: tools, ${choice}`, engine, async (server) => {
      const asked = [];
      const { steps } = await generateText({
        model: provider(server).language,
        ...common,
        prompt: "What is the weather in Paris?",
        maxOutputTokens: 200,
        toolChoice: choice,
        stopWhen: stepCountIs(2),
        tools: {
          get_weather: tool({
            description: "The weather in a city.",
            inputSchema: z.object({ city: z.string(), unit: z.enum(["C", "F"]) }),
            execute: async (input) => (asked.push(input), "Sunny."),
          }),
        },
      });
      check(asked.length > 0 && (choice === "required" || steps.at(-1).text), { asked, steps });
    });
  }

  if (name.endsWith(".chat()")) continue;

  call(`${name}: embed`, "simulated", async (server) => {
    const { embedding } = await embed({ model: provider(server).embedding, value: "one", maxRetries: 0 });
    check(embedding.length > 1 && embedding.every(Number.isFinite), embedding);
  });

  call(`${name}: embedMany`, "simulated", async (server) => {
    const values = ["one", "two", "three"];
    const { embeddings } = await embedMany({ model: provider(server).embedding, values, maxRetries: 0 });
    check(embeddings.length === 3 && embeddings[0].length === embeddings[2].length, embeddings);
  });
}

await runCalls();
