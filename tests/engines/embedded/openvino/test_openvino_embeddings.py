"""Embeddings on OpenVINO: a tiny BERT against numpy, SmolLM2's hidden states against transformers in float32."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")

import tiny_bert
from gristmill.dispatch.asking import ask_engine
from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import EmbeddingRequest
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.paths import EMBEDDINGS

REFERENCE: dict[str, Any] = json.loads(Path(__file__).parents[1].joinpath("smollm2_embeddings.json").read_text())
TEXTS = ["the cat sat on the mat", "dog", "two red house three blue house " * 5, "the dog ran far away home"]
EXPECTED = {
    how: np.array([tiny_bert.vector(tiny_bert.tokens_of(text), how) for text in TEXTS])
    for how in ("mean", "cls", "last")
}
MODEL = "bert"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[OpenVinoEngine]:
    async with started(tiny_bert.write_ir(tmp_path / MODEL)) as running:
        yield running


class started:
    """An engine while it runs."""

    def __init__(self, source: Path | str, **options: str) -> None:
        self._engine = OpenVinoEngine(OpenVinoOptions.parse(options), str(source))

    async def __aenter__(self) -> OpenVinoEngine:
        await self._engine.start()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        await self._engine.stop()


async def vectors(engine: OpenVinoEngine, inputs: Any, dimensions: int | None = None) -> np.ndarray:
    answer = await engine.embed(EmbeddingRequest(engine.models[0], inputs, dimensions))
    return np.array(answer.vectors)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_vectors_are_the_models_own(tmp_path: Path, pooling: str) -> None:
    async with started(tiny_bert.write_ir(tmp_path / MODEL, pooling)) as engine:
        assert engine.capabilities.endpoints == {EMBEDDINGS}
        assert engine.capabilities.context_length == tiny_bert.POSITIONS
        together = await vectors(engine, TEXTS)
        assert np.abs(together - EXPECTED[pooling]).max() < 1e-5
        for text, expected in zip(TEXTS, EXPECTED[pooling], strict=True):
            assert np.abs(await vectors(engine, [text]) - expected).max() < 1e-5


async def test_token_ids_give_what_their_text_gives(engine: OpenVinoEngine) -> None:
    found = await vectors(engine, [tiny_bert.tokens_of(text) for text in TEXTS])
    assert np.abs(found - EXPECTED["mean"]).max() < 1e-5


async def test_many_requests_at_once_get_their_own_vectors_and_counts(engine: OpenVinoEngine) -> None:
    asked = [EmbeddingRequest(MODEL, [TEXTS[number % 4], TEXTS[(number + 1) % 4]]) for number in range(60)]
    for number, answer in enumerate(await asyncio.gather(*map(engine.embed, asked))):
        places = [number % 4, (number + 1) % 4]
        assert np.abs(np.array(answer.vectors) - EXPECTED["mean"][places]).max() < 1e-5
        assert answer.prompt_tokens == sum(len(tiny_bert.tokens_of(TEXTS[place])) for place in places)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (["cat " * 47], "context_length_exceeded"),
        (["x" * 10**6], "context_length_exceeded"),
        ([[2, 10**9, 3]], "invalid_value"),
        ([[2, len(tiny_bert.VOCABULARY), 3]], "invalid_value"),
        ([[2] * 49], "context_length_exceeded"),
    ],
)
async def test_what_cannot_be_embedded_is_its_own_rows_error(engine: OpenVinoEngine, inputs: Any, code: str) -> None:
    good, bad = await asyncio.gather(vectors(engine, TEXTS), vectors(engine, inputs), return_exceptions=True)
    assert np.abs(good - EXPECTED["mean"]).max() < 1e-5
    assert isinstance(bad, EngineError)
    assert (bad.status, bad.param, bad.code) == (400, "input", code)


async def test_the_longest_input_that_fits_is_embedded(engine: OpenVinoEngine) -> None:
    text = "cat " * 46
    expected = tiny_bert.vector(tiny_bert.tokens_of(text), "mean")
    assert np.abs(await vectors(engine, [text]) - expected).max() < 1e-5


async def test_a_cancelled_request_leaves_the_engine_working(engine: OpenVinoEngine) -> None:
    asking = asyncio.create_task(vectors(engine, TEXTS * 100))
    await asyncio.sleep(0)
    asking.cancel()
    assert np.abs(await vectors(engine, TEXTS) - EXPECTED["mean"]).max() < 1e-5


async def test_vectors_that_the_pipeline_leaves_long_are_left_long(tmp_path: Path) -> None:
    async with started(tiny_bert.write_ir(tmp_path / MODEL, normalised=False)) as engine:
        expected = tiny_bert.hidden_states(tiny_bert.tokens_of(TEXTS[0])).mean(0)
        assert np.abs(await vectors(engine, TEXTS[:1]) - expected).max() < 1e-5


async def test_a_model_is_cut_where_it_may_be(tmp_path: Path) -> None:
    cut = EXPECTED["mean"][:, :8]
    cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    async with started(tiny_bert.write_ir(tmp_path / "a" / MODEL, matryoshka_dimensions=[8, 16])) as engine:
        assert np.abs(await vectors(engine, TEXTS, 8) - cut).max() < 1e-5
        assert (await vectors(engine, TEXTS, tiny_bert.WIDTH)).shape == (4, tiny_bert.WIDTH)
        with pytest.raises(EngineError, match="8, 16 numbers, not 9"):
            await vectors(engine, TEXTS, 9)
    plain = tiny_bert.write_ir(tmp_path / "b" / MODEL)
    async with started(plain) as engine:
        for dimensions in (8, 33):
            with pytest.raises(EngineError) as refused:
                await vectors(engine, TEXTS, dimensions)
            assert (refused.value.status, refused.value.param) == (400, "dimensions")
    async with started(plain, matryoshka="true") as engine:
        assert np.abs(await vectors(engine, TEXTS, 8) - cut).max() < 1e-5


async def test_a_folder_that_does_not_say_how_it_pools_is_asked_for_it(tmp_path: Path) -> None:
    folder = tiny_bert.write_ir(tmp_path / MODEL)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(UserError, match="-O pooling=mean, cls or last"):
        async with started(folder):
            pass
    async with started(folder, pooling="cls") as engine:
        assert np.abs(await vectors(engine, TEXTS) - EXPECTED["cls"]).max() < 1e-5


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("modules.json", '[{"type": "sentence_transformers.models.Dense", "path": ""}]', "Dense"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "pooling_mode_max_tokens"),
        ("1_Pooling/config.json", "{", "cannot be read"),
        ("config.json", "{}", "max_position_embeddings"),
        ("tokenizer.json", "{}", "tokenizer"),
    ],
)
async def test_a_folder_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path, file: str, content: str, said: str
) -> None:
    folder = tiny_bert.write_ir(tmp_path / MODEL)
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=said):
        async with started(folder):
            pass


async def test_a_model_that_embeds_does_not_write(engine: OpenVinoEngine) -> None:
    request = msgspec.convert({"model": MODEL, "messages": [{"role": "user", "content": "a"}]}, ChatCompletionRequest)
    with pytest.raises(EngineError, match="/v1/embeddings") as refused:
        await ask_engine(engine, request)
    assert refused.value.code == "unsupported_endpoint"


@pytest.mark.parametrize("pooling", ["mean", "last"])
async def test_a_model_that_writes_embeds_when_told_how_it_pools(pulled_model: str, pooling: str) -> None:
    async with started(pulled_model, pooling=pooling) as engine:
        assert engine.capabilities.endpoints == {EMBEDDINGS}
        found = await vectors(engine, REFERENCE["texts"])
    expected = np.array(REFERENCE[pooling])
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(found[:, : expected.shape[1]] - expected).max() < 1e-3
