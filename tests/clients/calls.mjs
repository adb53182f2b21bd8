// What the scripts of JavaScript clients share: the same as python/calls.py, told in the same way.
import { appendFileSync } from "node:fs";

const LIMIT = 180_000;
const calls = [];

/** Marks a function as one row of the table. It gets the server of `engine` and fails by throwing. */
export function call(name, engine, run, cannot = "") {
  calls.push({ name, engine, run, cannot });
}

export function check(condition, told = "not so") {
  if (!condition) throw new Error(typeof told === "string" ? told : JSON.stringify(told));
}

/** Runs all calls, one after another, however many fail; arguments may name some of them. */
export async function runCalls() {
  const servers = Object.fromEntries(
    Object.entries(JSON.parse(process.env.CLIENTS_SERVERS)).map(([engine, [url, model]]) => [engine, { engine, url, model }]),
  );
  const named = process.argv.slice(2);
  for (const each of calls) {
    if (named.length && !named.some((part) => each.name.includes(part))) continue;
    tell({ call: each.name, engine: each.engine, state: "began" });
    let [outcome, reason] = each.cannot ? ["failed", "It works now: take the reason away."] : ["passed", ""];
    let timer;
    const tooLong = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no end within ${LIMIT / 1000} s`)), LIMIT);
    });
    try {
      await Promise.race([each.run(servers[each.engine]), tooLong]);
    } catch (error) {
      console.error(error);
      [outcome, reason] = each.cannot ? ["cannot", each.cannot] : ["failed", `${error.name}: ${error.message}`];
    } finally {
      clearTimeout(timer);
    }
    tell({ call: each.name, engine: each.engine, state: outcome, reason });
  }
}

function tell(what) {
  appendFileSync(process.env.CLIENTS_RESULTS, JSON.stringify({ ...what, time: Date.now() / 1000 }) + "\n");
}
