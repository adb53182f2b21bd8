"""KV state of llama.cpp as bytes: what is put back computes on as if it had been computed there."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.prefix_files.prefix_file import Slice
from gristmill.engines.embedded.prefix_files.prefix_folder import prefix_files, prefixes_folder
from gristmill.engines.embedded.sampler import log_softmax
from gristmill.engines.protocol import LabelRequest, LabelScores

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import TinyModel, tiny_model, token_ids

from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.llama_cpp.runner import LlamaRunner

TEXT = "The miller grinds the grain of the valley, and the river turns the wheel. " * 4
PREFIX = token_ids(TEXT)
ROW = token_ids(" Row one is ready")


def load(path: Path, **options: Any) -> LlamaRunner:
    defaults = {"kv_cache_gb": 0.003, "threads": 1, "kv_type": "f32", "flash_attention": "off"}
    runner = load_model(str(path), msgspec.to_builtins(LlamaCppOptions(**(defaults | options)))).runner
    assert isinstance(runner, LlamaRunner)
    return runner


@pytest.fixture(params=["llama", "gemma3"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> LlamaRunner:
    """gemma3's window is shorter than the texts here."""
    runner = load(tiny_model(tmp_path / "tiny.gguf", request.param, 32 if request.param == "gemma3" else 0))
    runner.new_memory()
    return runner


def saved(runner: LlamaRunner, sequence: int = 0) -> list[Slice]:
    size = runner.slice_tokens
    runner.forward([Span(PREFIX, 0, sequence, ())])
    bounds = [(begin, min(begin + size, len(PREFIX))) for begin in range(0, len(PREFIX), size)]
    return [Slice(begin, end, bytes(runner.export_kv(sequence, begin, end))) for begin, end in bounds]


def after(runner: LlamaRunner, tokens: list[int], past: int, sequence: int) -> Any:
    return log_softmax(runner.forward([Span(tokens, past, sequence, (len(tokens) - 1,))]))[0]


def computed(runner: LlamaRunner, tokens: list[int]) -> Any:
    runner.new_memory()
    found = after(runner, tokens, 0, 0)
    runner.new_memory()
    return found


def test_what_was_saved_computes_on_in_another_process_cache(runner: LlamaRunner) -> None:
    expected = computed(runner, PREFIX + ROW)
    pieces = saved(runner)
    runner.new_memory()
    # Others are there, too, and stay as they are.
    runner.forward([Span(ROW * 2, 0, 9, ())])
    for piece in pieces:
        runner.import_kv(3, piece, piece.begin, piece.end)
    assert np.abs(after(runner, ROW, len(PREFIX), 3) - expected).max() < 1e-4
    other = after(runner, PREFIX[:5], len(ROW) * 2, 9)
    assert np.abs(other - computed(runner, ROW * 2 + PREFIX[:5])).max() < 1e-4


def test_a_part_is_put_behind_what_is_there(runner: LlamaRunner) -> None:
    size = runner.slice_tokens
    end = size + 20
    expected = computed(runner, PREFIX[:end] + ROW)
    first, second = saved(runner)[:2]
    runner.new_memory()
    runner.forward([Span(PREFIX[:25], 0, 4, ())])
    runner.import_kv(4, first, 25, size)
    runner.import_kv(4, second, size, end)
    assert np.abs(after(runner, ROW, end, 4) - expected).max() < 1e-4


def test_saving_takes_nothing_away(runner: LlamaRunner) -> None:
    expected = computed(runner, PREFIX + ROW)
    saved(runner)
    assert np.abs(after(runner, ROW, len(PREFIX), 0) - expected).max() < 1e-4


def test_what_is_cut_or_no_state_is_refused_and_leaves_nothing(runner: LlamaRunner) -> None:
    expected = computed(runner, PREFIX + ROW)
    piece = saved(runner)[0]
    for data in (b"", piece.data[:10], piece.data[:-1], piece.data + b"more", b"\0" * len(piece.data)):
        with pytest.raises(ValueError):
            runner.import_kv(3, piece._replace(data=data), 0, piece.end)
    with pytest.raises(ValueError, match="instead of"):
        runner.import_kv(3, Slice(piece.end, 2 * piece.end, piece.data), piece.end, 2 * piece.end)
    assert np.abs(after(runner, PREFIX + ROW, 0, 3) - expected).max() < 1e-4


def test_where_there_is_no_room_it_is_told_apart_and_what_is_there_stays(tmp_path: Path) -> None:
    runner = load(tiny_model(tmp_path / "tiny.gguf"), kv_cache_gb=0.0015)
    runner.new_memory()
    piece = saved(runner)[0]
    cells = runner._cells
    for place in range(1, cells // len(PREFIX)):
        runner.forward([Span(PREFIX, 0, place, ())])
    assert cells % len(PREFIX) < piece.end
    with pytest.raises(MemoryError):
        runner.import_kv(100, piece, 0, piece.end)
    assert np.abs(after(runner, ROW[:1], len(PREFIX), 1) - after(runner, ROW[:1], len(PREFIX), 2)).max() < 1e-4


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not what():
            await asyncio.sleep(0.02)


async def test_after_a_kill_the_engine_reads_what_rows_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    path = TinyModel(tmp_path / "tiny.gguf").sizes().vocabulary().weights().write()
    options = LlamaCppOptions(kv_cache_gb=0.02, threads=1, kv_type="f32", flash_attention="off")
    engine = LlamaCppEngine(options, str(path))

    async def score(row: int) -> LabelScores:
        prompt = f"{TEXT} Row {row} of the harvest."
        return await engine.score(LabelRequest(model="tiny", prompt=prompt, labels=["yes", "no"]))

    others = set(psutil.Process().children())
    await engine.start()
    try:
        assert (await score(1)).cached_tokens == 0
        expected = await score(2)
        assert expected.cached_tokens is not None and expected.cached_tokens > len(PREFIX)
        for row in range(3, 7):
            await score(row)
        await eventually(lambda: len(prefix_files(prefixes_folder())) == 1)
        (worker,) = set(psutil.Process().children()) - others
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: engine.down_reason is not None)
        await eventually(lambda: engine.down_reason is None)
        again = await score(2)
        assert again.cached_tokens is not None and again.cached_tokens > len(PREFIX)
        assert again.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    finally:
        await engine.stop()
