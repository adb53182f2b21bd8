"""Gristmill's embedded engines beside a real llama.cpp server, on the same file and the same rows.

    python benchmarks/llama_cpp --server PATH/llama-server [--models gemma3-270m,smollm2-135m-instruct] [--rows 128]

One rubric of about 1,700 tokens, about 45 varying tokens a row. Two kinds of work: scores (from us the
log-probabilities of the labels 0 to 10; from the server one token with its 20 most probable ones) and answers of 16
tokens. The server runs at the setting that is the fastest of those tried on the same rows. All engines stay loaded,
warm, and are asked in turns; rows are new ones in every run, so that nothing but the rubric is shared. Medians
of ``--runs``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import msgspec
import receipt
import workload
from llama_server import SETTINGS, LlamaServer, Setting

from gristmill.engines.protocol import Engine, LabelRequest, LabelScorer
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.models.locate import locate
from gristmill.wire.completions import CompletionRequest

LABELS = [str(number) for number in range(11)]
#: Rows that tell the settings of the server apart.
TRIAL_ROWS = 32

Measure = Callable[[list[str], int], Awaitable[None]]


def prompts_of(model: str, rows: range) -> list[str]:
    shared = workload.rubric()
    if model.startswith("smollm2"):
        return [workload.chat_prompt(row, shared) for row in rows]
    # A base model: no chat template.
    return [f"{shared}\n\n{workload.candidate(row)}\nScore:" for row in rows]


def measure_engine(engine: Engine, model: str) -> Measure:
    """``tokens`` 1: label scores."""

    async def measure(prompts: list[str], tokens: int) -> None:
        places = asyncio.Semaphore(engine.capabilities.slots)

        async def one(prompt: str) -> None:
            async with places:
                if tokens == 1:
                    assert isinstance(engine, LabelScorer)
                    await engine.score(LabelRequest(model, prompt, LABELS))
                else:
                    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
                    await engine.complete(msgspec.convert(body, CompletionRequest))

        await asyncio.gather(*(one(prompt) for prompt in prompts))

    return measure


def measure_server(server: LlamaServer) -> Measure:
    async def measure(prompts: list[str], tokens: int) -> None:
        await server.answer(prompts, tokens)

    return measure


async def rate(measure: Measure, prompts: list[str], tokens: int) -> float:
    """Rows a second."""
    started = time.perf_counter()
    await measure(prompts, tokens)
    return round(len(prompts) / (time.perf_counter() - started), 3)


async def best_setting(
    binary: Path, model: str, tokens: int, threads: int, settings: list[Setting]
) -> tuple[Setting, dict[str, float]]:
    """The fastest of the server's settings, and what each reached."""
    rates = {}
    for setting in settings:
        server = LlamaServer(binary, locate(model).path, setting, threads)
        try:
            await server.wait_until_ready()
            await server.answer(prompts_of(model, range(3_000_000, 3_000_000 + 2 * setting.slots)), 1)
            rates[setting] = await rate(measure_server(server), prompts_of(model, range(TRIAL_ROWS)), tokens)
        finally:
            server.stop()
        print(f"{model}: server {setting}, {tokens} tokens: {rates[setting]} rows/s", flush=True)
    return max(rates, key=lambda each: rates[each]), {str(setting): found for setting, found in rates.items()}


async def compare(options: argparse.Namespace, model: str, tokens: int) -> dict[str, Any]:
    setting, tried = await best_setting(options.server, model, tokens, options.threads, list(SETTINGS))
    engines = {
        name: create_engine(EngineSettings(name, model, options={"threads": str(options.threads)}))
        for name in options.engines.split(",")
    }
    server = LlamaServer(options.server, locate(model).path, setting, options.threads)
    try:
        await server.wait_until_ready()
        for engine in engines.values():
            await engine.start()
        contenders = {name: measure_engine(engine, model) for name, engine in engines.items()}
        contenders["llama.cpp server"] = measure_server(server)
        warm_up = prompts_of(model, range(2_000_000, 2_000_000 + options.warm_up))
        for measure in contenders.values():
            await measure(warm_up, tokens)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for run in range(options.runs):
            prompts = prompts_of(model, range(run * options.rows, (run + 1) * options.rows))
            for name, measure in contenders.items():
                rates[name].append(await rate(measure, prompts, tokens))
            print(model, tokens, {name: each[-1] for name, each in rates.items()}, flush=True)
    finally:
        for engine in engines.values():
            await engine.stop()
        server.stop()
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(rates[name], rates["llama.cpp server"], strict=True)), 3)
        for name in engines
    }
    return {
        "rows_per_second": rates,
        "medians": {name: statistics.median(each) for name, each in rates.items()},
        "median_ratio_to_server": ratios,
        "server_setting": str(setting),
        "server_settings_tried": tried,
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for model in options.models.split(","):
        for tokens in (1, 16):
            name = f"{model}, {'label scores' if tokens == 1 else '16 tokens'}"
            results[name] = await compare(options, model, tokens)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--server", type=Path, required=True, help="llama.cpp's llama-server")
    parser.add_argument("--models", default="gemma3-270m,smollm2-135m-instruct")
    parser.add_argument("--engines", default="openvino,llama_cpp")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--warm-up", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--receipt", default="llama-cpp")
    options = parser.parse_args()
    results = asyncio.run(run(options))
    content = {
        "rows": options.rows,
        "warm_up_rows": options.warm_up,
        "runs": options.runs,
        "threads": options.threads,
        "results": results,
    }
    path = receipt.write(options.receipt, content, ("openvino", "xllamacpp"))
    for name, each in results.items():
        print(f"{name}: {each['medians']}, times the server: {each['median_ratio_to_server']}")
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
