// The flows of a batch with the official Node client. Usage: node flows.mjs BASE_URL
import assert from "node:assert/strict";
import OpenAI, { BadRequestError, ConflictError, NotFoundError, toFile } from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused" });
const endpoint = "/v1/chat/completions";

function line(id) {
  const body = { model: "simulated", messages: [{ role: "user", content: `Rate ${id}.` }] };
  return JSON.stringify({ custom_id: id, method: "POST", url: endpoint, body }) + "\n";
}

async function ended(batch) {
  while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

async function all(pages) {
  const found = [];
  for await (const item of pages) found.push(item.id);
  return found;
}

const input = ["a", "b", "c"].map(line).join("");
const file = await client.files.create({ file: await toFile(Buffer.from(input), "rows.jsonl"), purpose: "batch" });
assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
assert.equal(await (await client.files.content(file.id)).text(), input);

let batch = await client.batches.create({
  input_file_id: file.id, endpoint, completion_window: "24h", metadata: { from: "node" },
});
assert.equal(batch.status, "validating");
batch = await ended(batch);
assert.equal(batch.status, "completed");
assert.deepEqual(batch.metadata, { from: "node" });
assert.deepEqual(batch.request_counts, { total: 3, completed: 3, failed: 0 });
const output = await (await client.files.content(batch.output_file_id)).text();
assert.deepEqual(output.trimEnd().split("\n").map((each) => JSON.parse(each).custom_id), ["a", "b", "c"]);
await assert.rejects(client.batches.cancel(batch.id), ConflictError);

const made = [batch.id];
for (let count = 0; count < 24; count++) {
  made.push((await client.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" })).id);
}
assert.deepEqual(await all(client.batches.list()), made.toReversed());
assert.ok((await all(client.files.list({ limit: 2 }))).includes(file.id));

const rows = Array.from({ length: 20000 }, (_, index) => line(`row-${index}`)).join("");
const big = await client.files.create({ file: await toFile(Buffer.from(rows), "big.jsonl"), purpose: "batch" });
const long = await client.batches.create({ input_file_id: big.id, endpoint, completion_window: "24h" });
assert.equal((await client.batches.cancel(long.id)).status, "cancelling");
assert.equal((await ended(long)).status, "cancelled");

const upload = await client.uploads.create({
  bytes: input.length, filename: "parts.jsonl", mime_type: "application/jsonl", purpose: "batch",
});
const ids = [];
for (const data of [input.slice(0, 50), input.slice(50)]) {
  ids.push((await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(data), "part") })).id);
}
const whole = await client.uploads.complete(upload.id, { part_ids: ids });
assert.equal(await (await client.files.content(whole.file.id)).text(), input);

let text = "";
const ask = { model: "simulated", messages: [{ role: "user", content: "Rate this." }] };
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  text += chunk.choices[0]?.delta.content ?? "";
}
assert.equal(text, (await client.chat.completions.create(ask)).choices[0].message.content);

assert.equal((await client.files.delete(file.id)).deleted, true);
await assert.rejects(client.files.retrieve(file.id), NotFoundError);
await assert.rejects(
  client.batches.create({ input_file_id: big.id, endpoint: "/v1/nowhere", completion_window: "24h" }),
  (error) => error instanceof BadRequestError && error.param === "endpoint" && error.requestID.startsWith("req_"),
);
console.log("all flows passed");
