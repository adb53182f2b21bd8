"""llama.cpp's steps, moves and failures, on models of a few kilobytes in float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gristmill.engines.embedded.kv.forked_memory import Forget, Fork
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.sampler import log_softmax
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import VOCABULARY, tiny_model, token_ids

from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.llama_cpp.runner import LlamaRunner, cut

TEXT = "The miller grinds the grain of the valley, and the river turns the wheel. " * 4


def load(path: Path, **options: Any) -> LoadedModel:
    defaults = {"kv_cache_gb": 0.003, "threads": 1, "kv_type": "f32"}
    return load_model(str(path), msgspec.to_builtins(LlamaCppOptions(**(defaults | options))))


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LlamaRunner:
    """gemma3's window is shorter than the texts here."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    window = 32 if request.param == "gemma3" else 0
    runner = load(tiny_model(path, request.param, window), flash_attention="off").runner
    assert isinstance(runner, LlamaRunner)
    return runner


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "runner" in request.fixturenames:
        request.getfixturevalue("runner").new_memory()


def alone(runner: LlamaRunner, tokens: list[int]) -> Any:
    """Log-probabilities after each token, computed in one piece from the beginning."""
    runner.new_memory()
    logits = runner.forward([Span(tokens, 0, 0, tuple(range(len(tokens))))])
    found = log_softmax(logits)
    runner.new_memory()
    return found


def test_a_forked_prefix_gives_what_an_unforked_one_gives(runner: LlamaRunner) -> None:
    prefix, ends = token_ids(TEXT), [token_ids(f"Row {row} is{' very' * row} ready") for row in range(12)]
    expected = [alone(runner, prefix + end)[-1] for end in ends]
    runner.forward([Span(prefix, 0, 0, ())])
    runner.make_moves([Fork(0, row + 1, len(prefix)) for row in range(len(ends))])
    spans = [Span(end, len(prefix), row + 1, (len(end) - 1,)) for row, end in enumerate(ends)]
    found = log_softmax(runner.forward(spans))
    assert np.abs(found - np.array(expected)).max() < 1e-4


def test_f32_keys_are_used_as_f32_unless_flash_attention_is_asked_for(tmp_path: Path) -> None:
    path, tokens = tiny_model(tmp_path / "tiny.gguf"), token_ids(TEXT)

    def found(**options: str) -> Any:
        runner = load(path, **options).runner
        assert isinstance(runner, LlamaRunner)
        return alone(runner, tokens)

    exact = found(flash_attention="off")
    assert np.array_equal(found(), exact)
    assert not np.array_equal(found(flash_attention="on"), exact)


def test_a_fork_takes_only_the_beginning_it_asks_for(runner: LlamaRunner) -> None:
    prefix, other = token_ids(TEXT), token_ids(TEXT[:100] + "but the wind turns the sails")
    expected = alone(runner, other)[-1]
    runner.forward([Span(prefix, 0, 0, ())])
    runner.make_moves([Fork(0, 5, 100)])
    found = log_softmax(runner.forward([Span(other[100:], 100, 5, (len(other) - 101,))]))
    assert np.abs(found[0] - expected).max() < 1e-4


def test_what_is_forgotten_is_computed_anew_as_if_it_had_not_been(runner: LlamaRunner) -> None:
    tokens = token_ids(TEXT)
    expected = alone(runner, tokens)[-1]
    runner.forward([Span(tokens[:200] + token_ids("something else"), 0, 0, ())])
    runner.make_moves([Forget(0, 200)])
    found = log_softmax(runner.forward([Span(tokens[200:], 200, 0, (len(tokens) - 201,))]))
    assert np.abs(found[0] - expected).max() < 1e-4


def test_a_step_larger_than_one_call_comes_back_whole_and_in_order(tmp_path: Path) -> None:
    runner = load(tiny_model(tmp_path / "tiny.gguf"), step_tokens=64, flash_attention="off").runner
    tokens = token_ids(TEXT)
    expected = alone(runner, tokens)
    assert expected.shape == (len(tokens), VOCABULARY)
    again = [runner.forward([Span([token], place, 3, (0,))])[0].copy() for place, token in enumerate(tokens)]
    assert np.abs(log_softmax(np.array(again)) - expected).max() < 1e-4


def test_calls_are_cut_by_tokens_and_by_logits() -> None:
    spans = [Span([1, 2, 3], 0, 4, (2,)), Span([5], 7, 9, ()), Span([6, 7, 8], 1, 2, (0, 1, 2))]
    pieces = cut(spans, most_tokens=5, most_outputs=2)
    assert [piece.tokens.tolist() for piece in pieces] == [[1, 2, 3, 5, 6], [7, 8]]
    assert [piece.positions.tolist() for piece in pieces] == [[0, 1, 2, 7, 1], [2, 3]]
    assert [piece.sequences.tolist() for piece in pieces] == [[4, 4, 4, 9, 2], [2, 2]]
    assert [piece.wanted.tolist() for piece in pieces] == [[0, 0, 1, 0, 1], [1, 1]]
    assert [len(piece.tokens) for piece in cut(spans, most_tokens=100, most_outputs=1)] == [4, 1, 1, 1]


def test_a_cache_without_room_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    runner = load(tiny_model(tmp_path / "tiny.gguf"), kv_cache_gb=0.0003, flash_attention="off").runner
    room = runner.new_memory().tokens
    tokens = (token_ids(TEXT) * 10)[: room + 1]
    runner.forward([Span(tokens[:100], 0, 0, ())])
    with pytest.raises(OutOfRoom):
        runner.forward([Span(tokens[100:], 100, 0, (0,))])
    # The same beginning goes on, as if nothing had been.
    found = log_softmax(runner.forward([Span(tokens[100:120], 100, 0, (19,))]))
    assert np.abs(found[0] - alone(runner, tokens[:120])[-1]).max() < 1e-3


def test_an_aborted_step_leaves_nothing_behind(runner: LlamaRunner) -> None:
    tokens = token_ids(TEXT)
    expected = alone(runner, tokens)[-1]
    abort = StepAbort()
    abort.ask()
    with pytest.raises(StepAborted):
        runner.forward([Span(tokens, 0, 0, (0,))], abort)
    aborted = StepAbort()
    # Between the first node and the last: the flag is looked at before each.
    begin = aborted.begin

    def ask_once_begun(start: Any, cancel: Any) -> None:
        begin(start, cancel)
        aborted.ask()

    aborted.begin = ask_once_begun  # type: ignore[method-assign]
    with pytest.raises(StepAborted):
        runner.forward([Span(tokens, 0, 0, (0,))], aborted)
    found = log_softmax(runner.forward([Span(tokens, 0, 0, (len(tokens) - 1,))]))
    assert np.abs(found[0] - expected).max() < 1e-4


def test_who_asks_after_the_end_of_a_step_aborts_nothing_else(runner: LlamaRunner) -> None:
    tokens, abort = token_ids(TEXT), StepAbort()
    runner.forward([Span(tokens, 0, 0, ())], abort)
    thread = threading.Thread(target=abort.ask)
    thread.start()
    thread.join()
    assert len(runner.forward([Span(token_ids("more"), len(tokens), 0, (3,))])) == 1
