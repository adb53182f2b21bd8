"""The dispatcher over replicas on Ray that compute nothing: how many rows a second pass, and how well replicas add up.

    python benchmarks/ray [--rows 20000] [--replicas 4] [--row-bytes 8000] [--slots 64] [--runs 5]

Client process, Ray and replicas share this machine. ``passed``: rows/s of replicas that answer at once. ``scaled``: of
replicas that need a fixed time for a row, N of them against one; 1.0 is N times as many.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Stop
from gristmill.engines.ray.engine import RayEngine
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.wire.chat import ChatCompletionRequest, Message

#: Of a replica with a fixed time for a row: seconds, and rows at a time.
_LATENCY, _SLOTS = 0.1, 8


def row(number: int, row_bytes: int) -> ChatCompletionRequest:
    rubric = ("Score the candidate from 0 to 10 by the criteria that follow. " * (row_bytes // 60 + 1))[:row_bytes]
    messages = [Message("system", rubric), Message("user", f"Candidate {number}.")]
    return ChatCompletionRequest(model="simulated", messages=messages, max_tokens=8)


async def rows_per_second(replicas: int, rows: int, row_bytes: int, **options: object) -> dict[str, float]:
    given = {
        "replicas": str(replicas),
        "replica_engine": "simulated",
        **{key: str(each) for key, each in options.items()},
    }
    engine = create_engine(EngineSettings("ray", options=given))
    assert isinstance(engine, RayEngine)
    await engine.start()
    try:
        while len(engine.replicas) < replicas:  # noqa: ASYNC110 - nothing else runs here
            await asyncio.sleep(0.05)
        dispatcher, stop = Dispatcher(engine), Stop()
        waiting = iter([row(number, row_bytes) for number in range(rows + dispatcher.window)])

        async def work() -> None:
            for request in waiting:
                await dispatcher.ask(request, stop)

        await asyncio.gather(*(dispatcher.ask(next(waiting), stop) for _ in range(dispatcher.window)))
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(dispatcher.window)))
        seconds = time.perf_counter() - began
        return {"rows_per_second": rows / seconds, "own_cpu_share": (time.process_time() - cpu) / seconds}
    finally:
        await engine.stop()


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    replicas, row_bytes = arguments.replicas, arguments.row_bytes
    passed = await rows_per_second(replicas, arguments.rows, row_bytes, cached_prompts=0, slots=arguments.slots)
    # About five seconds each.
    fixed = {"latency": _LATENCY, "slots": _SLOTS, "cached_prompts": 0}
    few = int(5 * _SLOTS / _LATENCY)
    one = await rows_per_second(1, few, row_bytes, **fixed)
    many = await rows_per_second(replicas, few * replicas, row_bytes, **fixed)
    return {
        "passed": passed,
        "one": one,
        "many": many,
        "scaled": many["rows_per_second"] / one["rows_per_second"] / replicas,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--row-bytes", type=int, default=8_000)
    parser.add_argument("--slots", type=int, default=64, help="of a replica that answers at once")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--receipt", default="ray")
    arguments = parser.parse_args()
    runs = []
    for _ in range(arguments.runs):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runs.append(runner.run(measure(arguments)))
        print(json.dumps(runs[-1]), flush=True)
    content = {
        "rows": arguments.rows,
        "replicas": arguments.replicas,
        "row_bytes": arguments.row_bytes,
        "slots": arguments.slots,
        "median_rows_per_second": round(statistics.median(run["passed"]["rows_per_second"] for run in runs), 1),
        "median_scaled": round(statistics.median(run["scaled"] for run in runs), 4),
        "runs": runs,
    }
    path = receipt.write(arguments.receipt, content, ("ray", "msgspec"))
    print(f"{content['median_rows_per_second']:,.0f} rows/s passed, "
          f"{content['median_scaled']:.1%} of {arguments.replicas} times one; receipt: {path.name}")  # fmt: skip


if __name__ == "__main__":
    main()
