"""Whether an embedded engine keeps its pace and its memory: many rows, many rubrics, and a soak of short rows.

    python benchmarks/embedded/scaling.py [--engine openvino] [--model smollm2-135m-instruct] [-O NAME=VALUE]
        [--rows 10000] [--runs 3] [--soak 20000] [--receipt embedded-scaling]

- ``many rows``: ``--rows`` rows of about 45 tokens behind one rubric, one output token each: rows/s of every tenth of
  them, and the memory of the engine's process after it; ``last_to_first`` compares the last tenth with the first.
- ``many rubrics``: rows/s of 256 rows behind one rubric, and of 256 rows behind 20 rubrics that arrive interleaved,
  alternating, ``--runs`` times; every rubric has been computed before.
- ``soak``: the same as many rows for ``--soak`` rows of about 40 tokens and no rubric.
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

from gristmill.cli.config import engine_settings

RUBRICS = 20
#: Memory for the KV cache: room for all the rubrics. No prefixes on disk: each run computes its own.
OPTIONS = {"kv_cache_gb": "4", "prefix_disk_gb": "0"}


class Engine:
    def __init__(self, name: str, model: str, options: dict[str, str]) -> None:
        from gristmill.engines.registry import EngineSettings, create_engine

        self._engine = create_engine(EngineSettings(name, model, options=options))

    async def start(self) -> None:
        await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    async def run(self, rows: int, prompt: Callable[[int], str]) -> dict[str, float]:
        """One output token for each of ``rows`` prompts: rows/s, and the share of prompt tokens that was cached."""
        import msgspec

        from gristmill.wire.completions import CompletionRequest

        (model,) = self._engine.models
        numbers = iter(range(rows))
        tokens = cached = 0

        async def place() -> None:
            nonlocal tokens, cached
            for number in numbers:
                body = {"model": model, "prompt": prompt(number), "max_tokens": 1, "temperature": 0}
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


async def measure(options: argparse.Namespace, own: dict[str, str]) -> dict[str, Any]:
    """``own``: options of the engine."""
    engine = Engine(options.engine, options.model, own)
    await engine.start()
    shared = [workload.rubric(7 + i) for i in range(RUBRICS)]
    prompt = workload.prompt_of(options.model)
    results: dict[str, Any] = {}
    if options.runs:
        await engine.run(RUBRICS, lambda row: prompt(10**6 + row, shared[row % RUBRICS]))
        results["many rubrics"] = await many_rubrics(engine, options.runs, shared, prompt)
    if options.rows:
        await engine.run(options.rows // 10, lambda row: prompt(2 * 10**6 + row, shared[0]))
        results["many rows"] = await in_tenths(engine, options.rows, lambda row: prompt(3 * 10**6 + row, shared[0]))
    if options.soak:
        results["soak"] = await in_tenths(engine, options.soak, lambda row: workload.candidate(5 * 10**6 + row))
    await engine.stop()
    return results


async def many_rubrics(
    engine: Engine, runs: int, shared: list[str], prompt: Callable[[int, str], str]
) -> dict[str, Any]:
    one, many = [], []
    for run in range(runs):
        first = run * 512
        one.append(await engine.run(256, lambda row, first=first: prompt(first + row, shared[0])))
        many.append(await engine.run(256, lambda row, first=first: prompt(first + 256 + row, shared[row % RUBRICS])))
        print("many rubrics", one[-1], many[-1], flush=True)
    ratios = [b["rows_per_second"] / a["rows_per_second"] for a, b in zip(one, many, strict=True)]
    return {"one": one, str(RUBRICS): many, "median_ratio": round(statistics.median(ratios), 3)}


async def in_tenths(engine: Engine, rows: int, prompt: Callable[[int], str]) -> dict[str, Any]:
    """``memory_mb``: before the first tenth, and after each."""
    memory = [engine.memory_mb()]
    rates, cached = [], []
    for part in range(10):
        first = part * rows // 10
        found = await engine.run(rows // 10, lambda row, first=first: prompt(first + row))
        memory.append(engine.memory_mb())
        rates.append(found["rows_per_second"])
        cached.append(found["cached_share"])
        print(f"rows {first} to {first + rows // 10}: {found}, {memory[-1]} MB", flush=True)
    return {
        "rows": rows,
        "memory_mb": memory,
        "rows_per_second": rates,
        "cached_share": cached,
        "last_to_first": round(rates[-1] / rates[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine", default="openvino", help="openvino or llama_cpp")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("-O", dest="option", action="append", default=[], help="an option of the engine")
    parser.add_argument("--rows", type=int, default=10_000, help="0: leave this part out")
    parser.add_argument("--runs", type=int, default=3, help="0: leave the rubrics out")
    parser.add_argument("--soak", type=int, default=20_000, help="0: leave this part out")
    parser.add_argument("--receipt", default="embedded-scaling")
    options = parser.parse_args()
    own = OPTIONS | engine_settings(options.engine, options.model, None, options.option).options
    results = asyncio.run(measure(options, own))
    content = {
        "engine": options.engine,
        "model": receipt.without_folders(options.model),
        "options": {name: receipt.without_folders(value) for name, value in own.items()},
        "results": results,
    }
    packages = ("xllamacpp",) if options.engine == "llama_cpp" else ("openvino",)
    path = receipt.write(options.receipt, content, (*packages, "numpy"))
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
