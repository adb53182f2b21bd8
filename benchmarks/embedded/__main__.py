"""The embedded engine beside OpenVINO GenAI's ContinuousBatchingPipeline, on the same prompts and the same weights.

    python benchmarks/embedded [--rows 256] [--runs 5] [--receipt embedded] [--cases text-16,text-1,json,labels]

One process an engine, alternating, after ``--warm-up`` rows of one token each that fill the prefix cache and have the
system give the KV cache's memory. Greedy, with the same limits and the same end of answer, so that both engines do the
same work. The pipeline is at its best settings: f32 inference and KV cache, prefix caching, 2,048 tokens a step. Label
scores (0 to 10) are compared with its one-token answers, as it has no label scores. ``json`` asks both for the same
JSON schema, an object with one integer from 0 to 10; the first answer of each run is kept in the receipt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import receipt
import workload

MODEL = "smollm2-135m-instruct"
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["score"],
    "additionalProperties": False,
}
LABELS = [str(number) for number in range(11)]


class Case(NamedTuple):
    """``tokens``: the most output tokens; ``kind``: text, json or labels."""

    title: str
    kind: str
    tokens: int


CASES = {
    "text-16": Case("16 output tokens", "text", 16),
    "text-1": Case("1 output token", "text", 1),
    "json": Case("JSON object with one integer 0 to 10", "json", 32),
    "labels": Case("label scores 0 to 10 (pipeline: 1 output token)", "labels", 1),
}


def model_folder() -> Path:
    from gristmill.engines.embedded.openvino.prepare import prepare
    from gristmill.models.locate import locate

    return prepare(locate(MODEL), "f16").folder


def run_genai(commands: Any) -> None:
    """Read ``{"first", "rows", "case"}`` lines, answer ``{"seconds", "sample"}`` lines."""
    from gristmill.extras import require

    genai = require("openvino_genai")
    schedule = genai.SchedulerConfig()
    schedule.enable_prefix_caching = True
    schedule.max_num_batched_tokens = 2048
    schedule.cache_size = 2
    options = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    pipeline = genai.ContinuousBatchingPipeline(str(model_folder()), schedule, "CPU", options)
    shared = workload.rubric()

    def answer(rows: range, case: Case) -> str:
        config = genai.GenerationConfig()
        config.max_new_tokens = case.tokens
        config.do_sample = False
        config.apply_chat_template = False
        if case.kind == "json":
            config.structured_output_config = genai.StructuredOutputConfig(json_schema=json.dumps(SCHEMA))
        answers = pipeline.generate([workload.chat_prompt(row, shared) for row in rows], [config] * len(rows))
        sample: str = answers[0].m_generation_ids[0]
        return sample

    answer(range(1_000_000, 1_000_001), CASES["text-1"])
    for command in commands:
        started = time.perf_counter()
        sample = answer(range(command["first"], command["first"] + command["rows"]), CASES[command["case"]])
        print(json.dumps({"seconds": time.perf_counter() - started, "sample": sample}), flush=True)


def run_gristmill(commands: Any) -> None:
    asyncio.run(_run_gristmill(commands))


async def _run_gristmill(commands: Any) -> None:
    import msgspec

    from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
    from gristmill.engines.protocol import LabelRequest
    from gristmill.wire.completions import CompletionRequest

    engine = OpenVinoEngine(OpenVinoOptions(), MODEL)
    await engine.start()
    shared = workload.rubric()
    places = asyncio.Semaphore(engine.capabilities.slots)

    async def answer(row: int, case: Case) -> str:
        prompt = workload.chat_prompt(row, shared)
        async with places:
            if case.kind == "labels":
                await engine.score(LabelRequest(MODEL, prompt, LABELS))
                return ""
            body: dict[str, Any] = {"model": MODEL, "prompt": prompt, "max_tokens": case.tokens, "temperature": 0}
            if case.kind == "json":
                body["structured_outputs"] = {"json": SCHEMA}
            completion = await engine.complete(msgspec.convert(body, CompletionRequest))
            produced.append(completion.completion_tokens)
            return completion.choices[0].text

    produced: list[int] = []
    await answer(1_000_000, CASES["text-1"])
    for command in commands:
        produced.clear()
        rows = range(command["first"], command["first"] + command["rows"])
        started = time.perf_counter()
        answers = await asyncio.gather(*(answer(row, CASES[command["case"]]) for row in rows))
        seconds = time.perf_counter() - started
        found = {"seconds": seconds, "sample": answers[0], "completion_tokens": sum(produced)}
        print(json.dumps(found), flush=True)
    await engine.stop()


class Contender:
    """An engine in a process of its own, asked one measurement at a time."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, str(Path(__file__)), "--engine", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, first: int, rows: int, case: str) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"first": first, "rows": rows, "case": case}), file=self._process.stdin, flush=True)
        while not (line := self._process.stdout.readline()).startswith("{"):
            assert line, "the engine's process has died"
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def compare(rows: int, runs: int, cases: list[str], warm_up: int) -> dict[str, Any]:
    contenders = {"gristmill": Contender("gristmill"), "genai": Contender("genai")}
    results: dict[str, Any] = {}
    for contender in contenders.values():
        contender.measure(2_000_000, warm_up, "text-1")
    first = 0
    for case in cases:
        name = CASES[case].title
        rates: dict[str, list[float]] = {"gristmill": [], "genai": []}
        samples: dict[str, list[str]] = {"gristmill": [], "genai": []}
        produced = []
        for _ in range(runs):
            for engine, contender in contenders.items():
                found = contender.measure(first, rows, case)
                rates[engine].append(round(rows / found["seconds"], 2))
                samples[engine].append(found["sample"])
                if engine == "gristmill":
                    produced.append(found["completion_tokens"])
            # New rows every time: only the rubric is shared with what came before.
            first += rows
            print(name, {engine: each[-1] for engine, each in rates.items()}, flush=True)
        medians = {engine: statistics.median(each) for engine, each in rates.items()}
        ratios = [mine / theirs for mine, theirs in zip(rates["gristmill"], rates["genai"], strict=True)]
        results[name] = {
            "rows_per_second": rates,
            "medians": medians,
            "median_ratio": round(statistics.median(ratios), 3),
            "gristmill_completion_tokens": produced,
            "first_answers": samples,
        }
    for contender in contenders.values():
        contender.stop()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1024)
    parser.add_argument("--receipt", default="embedded")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--engine", choices=("gristmill", "genai"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        commands = map(json.loads, sys.stdin)
        (run_gristmill if options.engine == "gristmill" else run_genai)(commands)
        return
    results = compare(options.rows, options.runs, options.cases.split(","), options.warm_up)
    content = {
        "rows": options.rows,
        "warm_up_rows": options.warm_up,
        "runs": options.runs,
        "model": MODEL,
        "weights": "f16",
        "results": results,
    }
    path = receipt.write(options.receipt, content, ("openvino", "openvino-genai", "openvino-tokenizers"))
    for name, each in results.items():
        print(f"{name}: {each['medians']}, {each['median_ratio']} times")
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
