"""Whether the embedded engine keeps its pace: many rows, many rubrics, and a soak of short rows.

    python benchmarks/embedded/scaling.py [--rows 10000] [--runs 3] [--soak 20000] [--receipt embedded-scaling]

- ``many rows``: rows/s of 256 rows and of ``--rows``, one after the other, one output token each.
- ``many rubrics``: rows/s of 256 rows behind one rubric, and of 256 rows behind 20 rubrics that arrive interleaved,
  alternating, ``--runs`` times; every rubric has been computed before.
- ``soak``: ``--soak`` rows of about 40 tokens; the memory of the engine's process at every tenth of it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import receipt
import workload

MODEL = "smollm2-135m-instruct"
RUBRICS = 20


class Engine:
    def __init__(self) -> None:
        from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions

        self._engine = OpenVinoEngine(OpenVinoOptions(kv_cache_gb=4), MODEL)

    async def start(self) -> None:
        await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    async def run(self, rows: int, prompt: Callable[[int], str]) -> dict[str, float]:
        """One output token for each of ``rows`` prompts: rows/s, and the share of prompt tokens that was cached."""
        import msgspec

        from gristmill.wire.completions import CompletionRequest

        numbers = iter(range(rows))
        tokens = cached = 0

        async def place() -> None:
            nonlocal tokens, cached
            for number in numbers:
                body = {"model": MODEL, "prompt": prompt(number), "max_tokens": 1, "temperature": 0}
                completion = await self._engine.complete(msgspec.convert(body, CompletionRequest))
                tokens += completion.prompt_tokens
                cached += completion.cached_tokens or 0

        started = time.perf_counter()
        await asyncio.gather(*(place() for _ in range(self._engine.capabilities.slots)))
        seconds = time.perf_counter() - started
        return {"rows_per_second": round(rows / seconds, 2), "cached_share": round(cached / tokens, 4)}

    def memory_mb(self) -> int:
        """Resident memory of the engine's process."""
        import psutil

        (worker,) = psutil.Process().children()
        return int(worker.memory_info().rss / 1e6)


async def measure(rows: int, runs: int, soak: int) -> dict[str, Any]:
    engine = Engine()
    await engine.start()
    shared = [workload.rubric(7 + i) for i in range(RUBRICS)]
    results: dict[str, Any] = {}
    if runs:
        await engine.run(RUBRICS, lambda row: workload.chat_prompt(10**6 + row, shared[row % RUBRICS]))
        results["many rubrics"] = await many_rubrics(engine, runs, shared)
    if rows:
        few = await engine.run(256, lambda row: workload.chat_prompt(2 * 10**6 + row, shared[0]))
        many = await engine.run(rows, lambda row: workload.chat_prompt(3 * 10**6 + row, shared[0]))
        results["many rows"] = {"256": few, str(rows): many, "memory_mb": engine.memory_mb()}
        print("many rows", results["many rows"], flush=True)
    if soak:
        results["soak"] = await soak_short(engine, soak)
    await engine.stop()
    return results


async def many_rubrics(engine: Engine, runs: int, shared: list[str]) -> dict[str, Any]:
    one, many = [], []
    for run in range(runs):
        first = run * 512
        one.append(await engine.run(256, lambda row, first=first: workload.chat_prompt(first + row, shared[0])))
        many.append(
            await engine.run(
                256, lambda row, first=first: workload.chat_prompt(first + 256 + row, shared[row % RUBRICS])
            )
        )
        print("many rubrics", one[-1], many[-1], flush=True)
    ratios = [b["rows_per_second"] / a["rows_per_second"] for a, b in zip(one, many, strict=True)]
    return {"one": one, str(RUBRICS): many, "median_ratio": round(statistics.median(ratios), 3)}


async def soak_short(engine: Engine, rows: int) -> dict[str, Any]:
    memory = [engine.memory_mb()]
    rates = []
    for part in range(10):
        first = 5 * 10**6 + part * rows // 10
        found = await engine.run(rows // 10, lambda row, first=first: workload.candidate(first + row))
        memory.append(engine.memory_mb())
        rates.append(found["rows_per_second"])
        print("soak", part, found, memory[-1], "MB", flush=True)
    return {"rows": rows, "memory_mb": memory, "rows_per_second": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000, help="0: leave this part out")
    parser.add_argument("--runs", type=int, default=3, help="0: leave the rubrics out")
    parser.add_argument("--soak", type=int, default=20_000, help="0: leave this part out")
    parser.add_argument("--receipt", default="embedded-scaling")
    options = parser.parse_args()
    results = asyncio.run(measure(options.rows, options.runs, options.soak))
    content = {"model": MODEL, "weights": "f16", "results": results}
    path = receipt.write(options.receipt, content, ("openvino", "numpy"))
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
