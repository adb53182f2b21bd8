"""A GPU whose memory is full in the middle: smaller steps, and the rows again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from crashing_llama import ROOM
from tiny_gguf import tiny_model

from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions, smaller_steps
from gristmill.engines.errors import EngineError
from gristmill.engines.process_exit import OUT_OF_MEMORY, describe_death
from gristmill.engines.protocol import Completion
from gristmill.wire.completions import CompletionRequest


class CrashingEngine(LlamaCppEngine):
    loader = "crashing_llama:load_model"


async def until_answered(engine: LlamaCppEngine, prompt: str) -> Completion:
    body = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 4, "logit_bias": {"2": -100}}
    while True:
        try:
            return await engine.complete(msgspec.convert(body, CompletionRequest))
        except EngineError:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("max_rows", [8, 0])
async def test_a_process_that_ends_for_want_of_memory_comes_back_with_smaller_steps_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_rows: int
) -> None:
    # With 0 it ends while it measures already.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    options = LlamaCppOptions(kv_cache_gb=0.01, threads=1, max_rows=max_rows)
    engine = CrashingEngine(options, str(tiny_model(tmp_path / "tiny.gguf")))
    await engine.start()
    try:
        answers = await asyncio.gather(*(until_answered(engine, f"row {row}") for row in range(16)))
        assert [answer.completion_tokens for answer in answers] == [4] * 16
        assert engine._options.max_rows <= ROOM
        # What is asked of it at a time follows.
        assert engine.capabilities.slots == 2 * engine._options.max_rows
    finally:
        await engine.stop()


def test_steps_are_halved_down_to_one_row() -> None:
    options = LlamaCppOptions(max_rows=5, step_tokens=200)
    sizes = []
    for _ in range(4):
        options = smaller_steps(options)
        sizes.append((options.max_rows, options.step_tokens))
    assert sizes == [(2, 100), (1, 64), (1, 64), (1, 64)]


def test_what_a_process_says_of_its_memory_is_told_though_it_is_not_the_last_line() -> None:
    printed = "loaded\nCUDA error: out of memory\n  current device: 0\n/src/ggml-cuda.cu:88: CUDA error\n"
    assert describe_death(-6, printed, False) == "signal SIGABRT; it printed last: CUDA error: out of memory"


@pytest.mark.parametrize("line", [
    "CUDA error: out of memory",
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9866.00 MiB on device 1: cudaMalloc failed: out of memory",
    "ggml_gallocr_reserve_n: failed to allocate CUDA1 buffer of size 10345253120",
    "llama_model_load: error loading model: unable to allocate Vulkan0 buffer",
    "terminate called ... what(): vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
])  # fmt: skip
def test_the_words_of_backends_for_too_little_memory_are_known(line: str) -> None:
    assert OUT_OF_MEMORY.search(line)


def test_other_faults_are_not_taken_for_it() -> None:
    for line in ("unknown model architecture: 'x'", "GGML_ASSERT(n_tokens <= n_batch) failed", "MemoryError"):
        assert not OUT_OF_MEMORY.search(line)
