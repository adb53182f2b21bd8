// The official Node client, unchanged, through the life of a batch. Prints one JSON object for the test to check.
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused" });
const line = (id, content) => ({
  custom_id: id,
  method: "POST",
  url: "/v1/chat/completions",
  body: { model: "simulated", messages: [{ role: "user", content }], max_tokens: 8 },
});
const jsonl = (lines) => lines.map((each) => JSON.stringify(each) + "\n").join("");
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function ended(batch) {
  while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
    await pause(50);
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

async function submit(text) {
  const file = await client.files.create({ file: await toFile(Buffer.from(text), "rows.jsonl"), purpose: "batch" });
  return client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
    metadata: { from: "node" },
  });
}

const rows = Array.from({ length: 200 }, (_, index) => line(`row-${index}`, `Rate candidate ${index}.`));
const completed = await ended(await submit(jsonl(rows)));
const content = await (await client.files.content(completed.output_file_id)).text();

const rejected = await ended(await submit(jsonl([line("same", "a"), line("same", "b")])));

const slow = await submit(jsonl([...rows, line("slow", "x")]));
const cancelled = await ended(await client.batches.cancel(slow.id));

const errors = {};
const caught = async (name, call) => {
  try {
    await call();
  } catch (error) {
    errors[name] = { type: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
};
await caught("cancel", () => client.batches.cancel(completed.id));
await caught("unknown batch", () => client.batches.retrieve("batch_none"));
await caught("unknown file", () => client.files.retrieve("file-none"));
await caught("not jsonl", async () =>
  client.files.create({ file: await toFile(Buffer.from("plain notes"), "notes.txt"), purpose: "batch" }),
);

const listed = [];
for await (const batch of client.batches.list({ limit: 1 })) listed.push(batch.id);

const bytes = Buffer.from(jsonl(rows));
const half = bytes.length >> 1;
const upload = await client.uploads.create({
  bytes: bytes.length,
  filename: "big.jsonl",
  mime_type: "application/jsonl",
  purpose: "batch",
});
const part = async (data) => (await client.uploads.parts.create(upload.id, { data: await toFile(data, "part") })).id;
const [second, first] = [await part(bytes.subarray(half)), await part(bytes.subarray(0, half))];
const uploaded = await client.uploads.complete(upload.id, { part_ids: [first, second] });

let streamed = "";
const messages = [{ role: "user", content: "Hello" }];
for await (const chunk of await client.chat.completions.create({ model: "simulated", messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const whole = (await client.chat.completions.create({ model: "simulated", messages })).choices[0].message.content;
const deleted = await client.files.delete(uploaded.file.id);

console.log(
  JSON.stringify({
    completed,
    ids: content.trimEnd().split("\n").map((each) => JSON.parse(each).custom_id),
    rejected: rejected.errors.data,
    cancelled: cancelled.status,
    errors,
    listed,
    uploaded: uploaded.file.bytes === bytes.length,
    streamed: streamed === whole,
    deleted: deleted.deleted,
    models: (await client.models.list()).data.map((model) => model.id),
  }),
);
