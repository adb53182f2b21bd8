"""The planner: how fast it plans, what its order saves, and whether its pilot tells the truth.

    python benchmarks/planner speed [--rows 10000,100000,170000,1000000] [--row-bytes 10000]
    python benchmarks/planner order
    python benchmarks/planner pilot [--jobs 3] [--pilots 7] [--rows 2000]
    python benchmarks/planner batch [--rows 10000000] [--duplicates 3000000] [--of 3000000] [--run] [--folder FOLDER]

- ``speed``: ``gristmill plan`` in a process of its own, on rows of ``--row-bytes`` behind 20 prefixes, interleaved at
  random: seconds and peak memory.
- ``order``: prefill tokens of 20 prefixes that arrive interleaved at random, in that order and as planned, with
  room for four of them: the simulated engine's prefix cache, and the embedded engine for real.
- ``batch``: see ``batch.py``.
- ``pilot``: a pilot of 50 rows, several times, each on an embedded engine just started; then the job itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
import receipt
import workload
from batch import batch_speed

MODEL = "smollm2-135m-instruct"
CHAT = "/v1/chat/completions"
PREFIXES = 20
PILOT_ROWS = 50


def request(row: int, system: str, user: str, max_tokens: int = 1) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    body = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
    return {"custom_id": f"row-{row}", "method": "POST", "url": CHAT, "body": body}


# speed


def long_rows(rows: int, row_bytes: int) -> Iterator[str]:
    draw = random.Random(1)
    shared = [("\n".join(workload.rubric(10 * i + j) for j in range(8)))[: row_bytes - 500] for i in range(PREFIXES)]
    for row in range(rows):
        yield json.dumps(request(row, shared[draw.randrange(PREFIXES)], f"{row}: {workload.candidate(row)}")) + "\n"


def plan_speed(sizes: list[int], row_bytes: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        for rows in sizes:
            with path.open("w") as file:
                file.writelines(long_rows(rows, row_bytes))
            command = [sys.executable, "-m", "gristmill", "plan", str(path), "--json"]
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert process.stdout
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            assert status == 0
            plan = json.loads(output)
            found[str(rows)] = {
                "file_gb": round(path.stat().st_size / 1e9, 2),
                "seconds": round(seconds, 1),
                "rows_per_second": round(rows / seconds),
                "peak_memory_mb": round(usage.ru_maxrss / 1000),
                "groups": len(plan["groups"]),
                "computed_share": round(plan["tokens"]["computed"] / plan["tokens"]["sent"], 4),
            }
            print(rows, found[str(rows)], flush=True)
    return {"row_bytes": row_bytes, "prefixes": PREFIXES, "results": found}


# order


async def prefill_tokens(make: Callable[[], Any], bodies: list[bytes], order: list[int]) -> dict[str, Any]:
    """Rows in ``order`` (lines from 1) on a fresh engine: prompt tokens, those not cached, seconds."""
    import msgspec

    from gristmill.dispatch.dispatcher import Dispatcher
    from gristmill.dispatch.stop import Stop
    from gristmill.wire.chat import ChatCompletionRequest

    engine = make()
    await engine.start()
    dispatcher = Dispatcher(engine)
    never, lines = Stop(), iter(order)
    prompt = cached = 0

    async def work() -> None:
        nonlocal prompt, cached
        for line in lines:
            asked = msgspec.json.decode(bodies[line - 1], type=ChatCompletionRequest)
            completion = await dispatcher.ask(asked, never)
            prompt += completion.prompt_tokens
            cached += completion.cached_tokens or 0

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(dispatcher.window)))
    seconds = time.perf_counter() - started
    await engine.stop()
    return {"prompt_tokens": prompt, "prefill_tokens": prompt - cached, "seconds": round(seconds, 1)}


def plan_of(bodies: list[bytes]) -> Any:
    import msgspec

    from gristmill.planning.job_plan import JobPlanner
    from gristmill.wire.line_body import Fields

    with tempfile.TemporaryDirectory() as folder:
        planner = JobPlanner(CHAT, None, Path(folder))
        for line, body in enumerate(bodies, 1):
            planner.add(line, body, msgspec.json.decode(body, type=Fields))
        return planner.plan()


def order_saves() -> dict[str, Any]:
    from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
    from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions

    def interleaved(rows: int, lines: int, words: int) -> list[bytes]:
        draw = random.Random(3)
        shared = [f"Rubric {i}.\n" + "\n".join(workload.rubric(i).split("\n")[:lines]) for i in range(PREFIXES)]
        return [
            json.dumps(
                request(
                    row, shared[draw.randrange(PREFIXES)], f"{row} " + " ".join(workload.candidate(row).split()[:words])
                )["body"]
            ).encode()
            for row in range(rows)
        ]

    cases: dict[str, tuple[Callable[[], Any], list[bytes]]] = {
        "simulated, room for 4 prompts, 2,000 rows": (
            lambda: SimulatedEngine(SimulatedOptions(slots=1, cached_prompts=4), MODEL),
            interleaved(2_000, 67, 37),
        ),
        # 0.16 GiB hold 3,700 tokens: four prefixes of about 650, and sixteen rows.
        "embedded, room for about 4 prefixes, 600 rows": (
            lambda: OpenVinoEngine(OpenVinoOptions(kv_cache_gb=0.16, max_rows=16, prefix_disk_gb=0), MODEL),
            interleaved(600, 24, 6),
        ),
    }
    found = {}
    for name, (make, bodies) in cases.items():
        planned = asyncio.run(prefill_tokens(make, bodies, list(plan_of(bodies).order)))
        arrival = asyncio.run(prefill_tokens(make, bodies, list(range(1, len(bodies) + 1))))
        saved = round(1 - planned["prefill_tokens"] / arrival["prefill_tokens"], 4)
        found[name] = {"arrival": arrival, "planned": planned, "saved_share": saved}
        print(name, found[name], flush=True)
    return {"prefixes": PREFIXES, "results": found}


# pilot


def pilots(jobs: int, count: int, rows: int) -> dict[str, Any]:
    from gristmill.batches.pilot import PilotSettings, pilot_file
    from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
    from gristmill.engines.registry import EngineSettings

    shared = workload.rubric()
    draw = random.Random(5)
    requests = [request(row, shared, workload.candidate(row), draw.randrange(1, 9)) for row in range(rows)]
    bodies = [json.dumps(each["body"]).encode() for each in requests]
    plan = plan_of(bodies)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in requests))
        settings = PilotSettings(EngineSettings("openvino", MODEL), PILOT_ROWS)
        for _ in range(jobs):
            estimates = []
            for _ in range(count):
                _, found_estimate = asyncio.run(pilot_file(path, CHAT, None, plan, settings))
                estimates.append(found_estimate)
                print(found_estimate, flush=True)
            truth = asyncio.run(
                prefill_tokens(lambda: OpenVinoEngine(OpenVinoOptions(), MODEL), bodies, list(plan.order))
            )["seconds"]
            print("truth", truth, flush=True)
            found += [
                {
                    "seconds": round(each.seconds, 1), "low": round(each.low, 1), "high": round(each.high, 1),
                    "truth": truth, "held": each.low <= truth <= each.high,
                    "half_width": round((each.high - each.low) / 2 / each.seconds, 3),
                }
                for each in estimates
            ]  # fmt: skip
    held = sum(each["held"] for each in found)
    widest = max(each["half_width"] for each in found)
    return {"rows": rows, "pilot_rows": PILOT_ROWS, "pilots": len(found), "held": held, "widest": widest, "each": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("speed", "order", "pilot", "batch"))
    parser.add_argument("--rows", default="")
    parser.add_argument("--row-bytes", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--pilots", type=int, default=7)
    parser.add_argument("--duplicates", type=int, default=3_000_000)
    parser.add_argument("--of", type=int, default=3_000_000)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.part == "batch":
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows = int(options.rows or 10_000_000)
            content = batch_speed(rows, options.duplicates, options.of, Path(folder), options.run)
    elif options.part == "speed":
        sizes = [int(size) for size in (options.rows or "10000,100000,170000,1000000").split(",")]
        content = plan_speed(sizes, options.row_bytes)
    elif options.part == "order":
        content = order_saves()
    else:
        content = pilots(options.jobs, options.pilots, int(options.rows or 2_000))
    print(receipt.write(f"planner-{options.part}", content, ("msgspec",)).name)


if __name__ == "__main__":
    main()
