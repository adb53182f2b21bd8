"""Embeddings on llama.cpp: a tiny BERT against numpy, SmolLM2's hidden states against transformers in float32."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import TinyModel, tiny_model

import tiny_bert
from gristmill.engines.embedded.llama_cpp.embedder import MOST_SEQUENCES, InputSlice, calls, groups
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import EmbeddingRequest
from gristmill.user_error import UserError
from gristmill.wire.paths import EMBEDDINGS

REFERENCE: dict[str, Any] = json.loads(Path(__file__).parents[1].joinpath("smollm2_embeddings.json").read_text())
TEXTS = ["the cat sat on the mat", "dog", "two red house three blue house " * 5, "the dog ran far away home"]
TOKENS = [tiny_bert.tokens_of(text) for text in TEXTS]
EXPECTED = {how: np.array([tiny_bert.vector(each, how) for each in TOKENS]) for how in ("mean", "cls", "last")}
#: ggml looks GELU up in a table of float16.
NEAR = 2e-3
MODEL = "tiny-bert"


class started:
    """An engine while it runs."""

    def __init__(self, source: Path | str, **options: str) -> None:
        small = {"kv_cache_gb": "0.1", "threads": "1"}
        self._engine = LlamaCppEngine(LlamaCppOptions.parse(small | options), str(source))

    async def __aenter__(self) -> LlamaCppEngine:
        await self._engine.start()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        await self._engine.stop()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    async with started(tiny_bert.write_gguf(tmp_path / f"{MODEL}.gguf")) as running:
        yield running


async def vectors(engine: LlamaCppEngine, inputs: Any, dimensions: int | None = None) -> np.ndarray:
    answer = await engine.embed(EmbeddingRequest(engine.models[0], inputs, dimensions))
    return np.array(answer.vectors)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_vectors_are_the_models_own(tmp_path: Path, pooling: str) -> None:
    async with started(tiny_bert.write_gguf(tmp_path / f"{MODEL}.gguf", pooling)) as engine:
        assert engine.capabilities.endpoints == {EMBEDDINGS}
        assert engine.capabilities.context_length == tiny_bert.POSITIONS
        together = await vectors(engine, TEXTS)
        assert np.abs(together - EXPECTED[pooling]).max() < NEAR
        for text, vector in zip(TEXTS, together, strict=True):
            assert np.abs(await vectors(engine, [text]) - vector).max() < 1e-5


async def test_pooling_can_be_chosen_instead(tmp_path: Path) -> None:
    async with started(tiny_bert.write_gguf(tmp_path / f"{MODEL}.gguf"), pooling="cls") as engine:
        assert np.abs(await vectors(engine, TEXTS) - EXPECTED["cls"]).max() < NEAR


async def test_many_requests_at_once_get_their_own_vectors_and_counts(engine: LlamaCppEngine) -> None:
    asked = [EmbeddingRequest(MODEL, [TEXTS[number % 4], TEXTS[(number + 1) % 4]]) for number in range(200)]
    for number, answer in enumerate(await asyncio.gather(*map(engine.embed, asked))):
        places = [number % 4, (number + 1) % 4]
        assert np.abs(np.array(answer.vectors) - EXPECTED["mean"][places]).max() < NEAR
        assert answer.prompt_tokens == sum(len(tiny_bert.tokens_of(TEXTS[place])) for place in places)


async def test_token_ids_give_what_their_text_gives(engine: LlamaCppEngine) -> None:
    found = await vectors(engine, [tiny_bert.tokens_of(text) for text in TEXTS])
    assert np.abs(found - EXPECTED["mean"]).max() < NEAR


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (["cat " * 47], "context_length_exceeded"),
        ([[2, len(tiny_bert.VOCABULARY), 3]], "invalid_value"),
        ([[2] * 49], "context_length_exceeded"),
    ],
)
async def test_what_cannot_be_embedded_is_its_own_rows_error(engine: LlamaCppEngine, inputs: Any, code: str) -> None:
    good, bad = await asyncio.gather(vectors(engine, TEXTS), vectors(engine, inputs), return_exceptions=True)
    assert isinstance(good, np.ndarray)
    assert np.abs(good - EXPECTED["mean"]).max() < NEAR
    assert isinstance(bad, EngineError)
    assert (bad.status, bad.param, bad.code) == (400, "input", code)


async def test_vectors_are_cut_only_where_that_is_said_to_be_possible(tmp_path: Path) -> None:
    file = tiny_bert.write_gguf(tmp_path / f"{MODEL}.gguf")
    async with started(file) as engine:
        with pytest.raises(EngineError, match="-O matryoshka=true"):
            await vectors(engine, TEXTS, 8)
    async with started(file, matryoshka="true") as engine:
        cut = EXPECTED["mean"][:, :8]
        found = await vectors(engine, TEXTS, 8)
        assert np.abs(found - cut / np.linalg.norm(cut, axis=1, keepdims=True)).max() < 2 * NEAR


async def test_an_input_that_is_computed_in_pieces_has_the_vector_it_has_in_one(tmp_path: Path) -> None:
    """And so has one that shares its pieces with others."""
    file = tiny_model(tmp_path / "tiny.gguf")
    long = "of many words " * 50
    for pooling in ("mean", "cls", "last"):
        exact = {"pooling": pooling, "kv_type": "f32", "flash_attention": "off"}
        async with started(file, step_tokens="2048", **exact) as engine:
            whole = await vectors(engine, [long[:400]])
            assert np.abs(np.linalg.norm(whole) - 1) < 1e-5
            both = await vectors(engine, [long, long[:400]])
        async with started(file, step_tokens="96", **exact) as engine:
            assert np.abs(await vectors(engine, [long[:400]]) - whole).max() < 1e-4
            assert np.abs(await vectors(engine, [long, long[:400]]) - both).max() < 1e-4


async def test_a_model_that_neither_writes_nor_says_how_it_pools_is_refused(tmp_path: Path) -> None:
    model = TinyModel(tmp_path / "tiny.gguf").sizes().vocabulary().weights()
    model.writer.add_causal_attention(False)
    file = model.write()
    with pytest.raises(UserError, match="-O pooling=mean, cls or last"):
        async with started(file):
            pass


async def test_a_model_that_ranks_is_refused(tmp_path: Path) -> None:
    model = TinyModel(tmp_path / "tiny.gguf").sizes().vocabulary().weights()
    model.writer.add_uint32("llama.pooling_type", 4)
    file = model.write()
    with pytest.raises(UserError, match="ranks texts"):
        async with started(file):
            pass


@pytest.mark.parametrize("pooling", ["mean", "last"])
async def test_a_model_that_writes_embeds_when_told_how_it_pools(pulled_model: str, pooling: str) -> None:
    async with started(pulled_model, pooling=pooling, threads="0") as engine:
        found = await vectors(engine, REFERENCE["tokens"])
        assert np.array_equal(await vectors(engine, REFERENCE["texts"]), found)
    expected = np.array(REFERENCE[pooling])
    # The weights stay in 4 bits, and meet activations of 8.
    assert np.abs(found[:, : expected.shape[1]] - expected).max() < 0.02


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 60))
def test_all_inputs_are_in_calls_that_fit(lengths: list[int], most: int) -> None:
    found = groups(lengths, most)
    assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == len(lengths)
    for begin, end in found:
        assert end - begin <= MOST_SEQUENCES
        assert sum(lengths[begin:end]) <= most or end - begin == 1
    parts = [part for call in calls(lengths, most) for part in call]
    assert all(sum(part.end - part.start for part in call) <= most for call in calls(lengths, most))
    for place, length in enumerate(lengths):
        own = [part for part in parts if part.place == place]
        assert own[0].start == 0 and own[-1].end == length
        assert all(before.end == after.start for before, after in zip(own, own[1:], strict=False))


def test_an_input_that_fits_into_a_call_is_one_part_of_it() -> None:
    assert calls([3, 4], 10) == [[InputSlice(0, 0, 3), InputSlice(1, 0, 4)]]
