"""How exact the llama_cpp engine's log-probabilities are: behind a forked prefix, and against float32.

    python benchmarks/accuracy/llama_cpp.py [--models gemma3-270m,smollm2-135m-instruct] [--rows 2]

Weights as the file has them, and the same numbers as F16 and F32; each with the KV cache and the attention of the
engine's defaults, and with those that are the most exact. Largest and median difference of a log-probability:

- ``label_scores``: labels 0 to 10 behind a rubric of about 700 tokens (Gemma 3's window has 512) and behind short ones;
  of ``TOGETHER`` rows each, all asked of the engine at once, ``--rows`` against the same computed alone, in one go, in
  an empty cache.
- ``library_itself``: the same prompts alone, but behind cells of the cache that another sequence has: no fork, no
  company, only another place.
- ``same_pieces``: behind a fork, alone, against the same pieces in one sequence: what forking itself changes.
- ``float32``: the 20 most probable next tokens of the prompts in ``tests/engines/embedded/accuracy``, those with a
  rubric behind a fork and in one step, against transformers in float32 on the dequantized weights.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import fixtures
import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
import receipt
import workload

from gristmill.engines.embedded.grammar import Grammars
from gristmill.engines.embedded.kv.forked_memory import Forget, Fork
from gristmill.engines.embedded.label_scoring import LabelScoring
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.preparation import RequestReader
from gristmill.engines.embedded.sampler import log_softmax
from gristmill.engines.embedded.scheduling.step_abort import StepAbort
from gristmill.engines.embedded.scheduling.step_plan import Chunk
from gristmill.engines.protocol import LabelRequest
from gristmill.engines.request_frames import SubmitScore
from gristmill.models.locate import locate

LABELS = [str(number) for number in range(11)]
#: Rows that are asked at once.
TOGETHER = 32
#: Of the rubric for label scores; and about what it has in tokens, at least.
RUBRIC_LINES = 28
RUBRIC_TOKENS = 600
#: Cells before a prompt that is computed elsewhere in the cache.
CELLS_BEFORE = 300
_KV_CACHE_GB = 0.5


class Variant(NamedTuple):
    """``weights``: "file", or the type that the file's dequantized weights are stored as."""

    weights: str
    kv_type: str
    flash_attention: str

    def options(self, threads: int) -> LlamaCppOptions:
        computing = {"kv_type": self.kv_type, "flash_attention": self.flash_attention, "threads": threads}
        sizes = {"kv_cache_gb": _KV_CACHE_GB, "prefix_disk_gb": 0.0}
        return msgspec.convert(computing | sizes, LlamaCppOptions)


#: A cache in f32 needs attention without flash attention, which makes f16 of it.
VARIANTS = (
    Variant("file", "f16", "auto"),
    Variant("file", "f32", "off"),
    Variant("f16", "f16", "auto"),
    Variant("f16", "f32", "off"),
    Variant("f32", "f32", "off"),
)


def score_prompts(model: str, rows: int) -> list[str]:
    """Rows behind a rubric, and short ones."""
    prompt = workload.prompt_of(model)
    rubric = "\n".join(workload.rubric().splitlines()[:RUBRIC_LINES])
    return [prompt(row, shared) for shared in (rubric, "Score from 0 to 10.") for row in range(rows)]


async def engine_scores(source: str, options: LlamaCppOptions, prompts: list[str]) -> np.ndarray:
    """Log-probabilities of shape (prompts, labels), computed as a batch's rows are."""
    engine = LlamaCppEngine(options, source)
    await engine.start()
    try:
        name = engine.models[0]
        answers = await asyncio.gather(*(engine.score(LabelRequest(name, prompt, LABELS)) for prompt in prompts))
        behind_rubric = [each for each in answers if each.prompt_tokens >= RUBRIC_TOKENS]
        assert len(behind_rubric) == len(prompts) // 2
        assert sum((each.cached_tokens or 0) >= RUBRIC_TOKENS for each in behind_rubric) >= len(behind_rubric) - 1
        return np.array([each.logprobs for each in answers])
    finally:
        await engine.stop()


def scorings(loaded: LoadedModel, prompts: list[str]) -> list[LabelScoring]:
    reader = RequestReader(loaded.vocabulary, Grammars(loaded.vocabulary, loaded.ends), loaded.context_length)
    found = [reader.read(SubmitScore(row, "", text=prompt, labels=LABELS)) for row, prompt in enumerate(prompts)]
    return [each for each in found if isinstance(each, LabelScoring)]


def plain_scores(loaded: LoadedModel, prompts: list[str], cells_before: int = 0) -> np.ndarray:
    """The same, each sequence alone in a cache with so many cells of another sequence, from its first token to its
    last."""
    for scoring in (found := scorings(loaded, prompts)):
        while probe := scoring.next_probe():
            tokens = probe.sequence.tokens
            chunk = Chunk(probe.sequence, 0, len(tokens), samples=True)
            loaded.runner.new_memory()
            if cells_before:
                loaded.runner.forward([Span([tokens[0]] * cells_before, 0, 1, ())], StepAbort())
            probe.take(chunk, loaded.runner.forward([Span(tokens, 0, 0, probe.offsets(chunk))], StepAbort()))
    return np.array([each.scores().logprobs for each in found])


def fork_difference(runner: Any, prompt: list[int], common: int) -> float:
    """The largest over the 20 most probable tokens, with the first ``common`` tokens of a sequence's own, which are
    sequence 0, or another's."""
    rest = prompt[common:]
    # What two sequences hold is kept: cells of one, whose window has passed, llama.cpp gives to others.
    runner.make_moves([Fork(0, 1, common), Fork(0, 2, common)])
    found = []
    for sequence in (1, 0):
        logits = runner.forward([Span(rest, common, sequence, (len(rest) - 1,))], StepAbort())
        found.append(log_softmax(logits)[0].copy())
        runner.make_moves([Forget(sequence, common)])
    runner.make_moves([Forget(1, 0), Forget(2, 0)])
    probable = np.argsort(found[1])[-20:]
    return float(np.abs(found[0] - found[1])[probable].max())


def common_length(prompts: list[list[int]]) -> int:
    columns = zip(*prompts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def compare_next_tokens(loaded: LoadedModel, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """``float32`` and ``same_pieces``."""
    runner = loaded.runner
    short = []
    for case in cases:
        if len(case["prompt"]) < fixtures.LONG:
            runner.new_memory()
            tokens = case["prompt"]
            logits = runner.forward([Span(tokens, 0, 0, (len(tokens) - 1,))], StepAbort())
            short.append(fixtures.difference(logits[0], case["original"]))
    long, same_pieces = [], []
    for together in rubrics(cases):
        runner.new_memory()
        common = common_length([case["prompt"] for case in together])
        runner.forward([Span(together[0]["prompt"][:common], 0, 0, ())], StepAbort())
        same_pieces.append(fork_difference(runner, together[0]["prompt"], common))
        runner.make_moves([Fork(0, row, common) for row in range(1, len(together) + 1)])
        spans = [
            Span(case["prompt"][common:], common, row, (len(case["prompt"]) - common - 1,))
            for row, case in enumerate(together, 1)
        ]
        logits = runner.forward(spans, StepAbort())
        long += [fixtures.difference(each, case["original"]) for each, case in zip(logits, together, strict=True)]
    to_float32 = {"short_prompts": fixtures.summary(short), "long_prompts": fixtures.summary(long)}
    return {"float32": to_float32, "same_pieces": fixtures.summary(same_pieces)}


def rubrics(cases: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The prompts behind each rubric."""
    long = [case for case in cases if len(case["prompt"]) >= fixtures.LONG]
    return [list(group) for _, group in itertools.groupby(long, lambda case: case["prompt"][: fixtures.LONG])]


def differences(found: np.ndarray, expected: np.ndarray) -> dict[str, dict[str, float]]:
    """``found`` and ``expected``: those behind the rubric, then as many short ones."""
    each = np.abs(found - expected).max(axis=1)
    half = len(each) // 2
    return {
        "long_prompts": fixtures.summary(each[:half].tolist()),
        "short_prompts": fixtures.summary(each[half:].tolist()),
    }


def measure(model: str, source: str, variant: Variant, rows: int, threads: int) -> dict[str, Any]:
    prompts = score_prompts(model, TOGETHER)
    # In the middle of the others.
    chosen = [first + TOGETHER // 2 + row for first in (0, TOGETHER) for row in range(rows)]
    few = [prompts[row] for row in chosen]
    scores = asyncio.run(engine_scores(source, variant.options(threads), prompts))[chosen]
    loaded = load_model(source, msgspec.to_builtins(variant.options(threads)))
    plain = plain_scores(loaded, few)
    next_tokens = compare_next_tokens(loaded, fixtures.read(model))
    return {
        "label_scores": differences(scores, plain),
        "library_itself": differences(plain_scores(loaded, few, CELLS_BEFORE), plain),
        **next_tokens,
        "computes_on": loaded.computing.on if loaded.computing else None,
    }


def measure_model(model: str, rows: int, threads: int, variants: list[Variant]) -> dict[str, Any]:
    from gristmill.engines.embedded.openvino.prepare import reencode

    file = locate(model).path
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = {"file": str(file)}
        for variant in variants:
            if variant.weights not in sources:
                stored = Path(folder) / f"{variant.weights}.gguf"
                reencode(file, stored, variant.weights)  # type: ignore[arg-type]
                sources[variant.weights] = str(stored)
            # A process each: llama.cpp's models stay in memory until it ends.
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, spawn) as process:
                found = process.submit(measure, model, sources[variant.weights], variant, rows, threads).result()
            name = f"{variant.weights} weights, {variant.kv_type} cache, flash attention {variant.flash_attention}"
            results[name] = found
            print(model, name, found, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", default=f"{fixtures.SMOLLM2},{fixtures.GEMMA3}")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: all that there are")
    parser.add_argument("--variants", default="", help="numbers of those to measure, from 0; all unless given")
    parser.add_argument("--receipt", default="accuracy-llama-cpp")
    options = parser.parse_args()
    chosen = [VARIANTS[int(number)] for number in options.variants.split(",") if number] or list(VARIANTS)
    results = {
        model: measure_model(model, options.rows, options.threads, chosen) for model in options.models.split(",")
    }
    path = receipt.write(options.receipt, {"rows": options.rows, "results": results}, ("xllamacpp", "gguf", "numpy"))
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
