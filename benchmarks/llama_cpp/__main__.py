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
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "side_by_side"))
import receipt
import workload
from contenders import WORKS, Contender, EngineContender, Prompt, Work, measure
from llama_server import LlamaServer, Setting, settings_of, try_settings

from gristmill.engines.registry import EngineSettings
from gristmill.models.locate import locate
from server_process import stop_with_me

SERVER = "llama.cpp server"


async def compare(options: argparse.Namespace, model: str, work: Work) -> dict[str, Any]:
    threads = ["-t", str(options.threads), "-tb", str(options.threads)]

    def make(setting: Setting) -> LlamaServer:
        return LlamaServer(options.server, locate(model).path, setting, threads)

    shared, prompt = workload.rubric(), workload.prompt_of(model)

    def prompts(rows: range) -> list[Prompt]:
        return [prompt(row, shared) for row in rows]

    trial = await try_settings(make, settings_of(options.server_slots), prompts, work, options.trial_rows)
    # No prefixes from disk: the warm-up computes the rubric, for all alike.
    own = {"threads": str(options.threads), "prefix_disk_gb": "0"}
    library = {"llama_cpp": {"library": options.library}} if options.library else {}
    contenders: dict[str, Contender] = {
        name: EngineContender(EngineSettings(name, model, options=own | library.get(name, {})))
        for name in options.engines.split(",")
    }
    contenders[SERVER] = make(trial.best)
    async with AsyncExitStack() as started:
        for contender in contenders.values():
            await contender.start()
            started.push_async_callback(contender.stop)
        for contender in contenders.values():
            await contender.answer(prompts(range(2_000_000, 2_000_000 + options.warm_up)), work)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        tokens: dict[str, list[int]] = {name: [] for name in contenders}
        for run in range(options.runs):
            rows = prompts(range(run * options.rows, (run + 1) * options.rows))
            for name, contender in contenders.items():
                measured = await measure(contender, rows, work)
                rates[name].append(measured.rows_per_second)
                tokens[name].append(measured.completion_tokens)
            print(model, work.title, {name: each[-1] for name, each in rates.items()}, flush=True)
        facts = {name: contender.facts() for name, contender in contenders.items()}
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(rates[name], rates[SERVER], strict=True)), 3)
        for name in contenders
        if name != SERVER
    }
    return {
        "rows_per_second": rates,
        "medians": {name: round(statistics.median(each), 3) for name, each in rates.items()},
        "median_ratio_to_server": ratios,
        "completion_tokens": tokens,
        "contenders": facts,
        "server_setting": str(trial.best),
        "server_settings_tried": trial.rates,
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for model in options.models.split(","):
        for work in WORKS:
            results[f"{model}, {work.title}"] = await compare(options, model, work)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--server", type=Path, required=True, help="llama.cpp's llama-server")
    parser.add_argument("--models", default="gemma3-270m,smollm2-135m-instruct")
    parser.add_argument("--engines", default="openvino,llama_cpp")
    parser.add_argument("--library", help="libllama.so for the engine llama_cpp, instead of the installed package's")
    parser.add_argument(
        "--server-slots", default="1,4,8,16", help="numbers of slots to try before the best is measured"
    )
    parser.add_argument("--trial-rows", type=int, default=32, help="rows that tell the settings apart")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--warm-up", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--receipt", default="llama-cpp")
    options = parser.parse_args()
    stop_with_me()
    results = asyncio.run(run(options))
    content = {
        "rows": options.rows,
        "warm_up_rows": options.warm_up,
        "runs": options.runs,
        "threads": options.threads,
        "library": options.library and receipt.without_folders(options.library),
        "results": results,
    }
    path = receipt.write(options.receipt, content, ("openvino", "xllamacpp"))
    for name, each in results.items():
        print(f"{name}: {each['medians']}, times the server: {each['median_ratio_to_server']}")
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
