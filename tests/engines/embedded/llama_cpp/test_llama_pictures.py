"""Images in chat messages on llama.cpp: answers depend on them, as llama.cpp's own helper computes it."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from PIL import Image
from tiny_gguf import TinyModel, tiny_model
from tiny_projector import Kind, tiny_projector

from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.llama_cpp.projector import InputText, Projector
from gristmill.engines.embedded.llama_cpp.runner import LlamaRunner
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import LabelRequest
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest, ContentPart, Message

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>"
EXACT = LlamaCppOptions(kv_cache_gb=0.02, threads=1, kv_type="f32", flash_attention="off")
#: Architecture of the language model by kind of projector: a causal one, and one whose pictures see themselves whole.
KINDS: dict[Kind, str] = {"mlp": "llama", "gemma3": "gemma3"}
VECTORS = {"mlp": 16, "gemma3": 4}


def png(number: int, size: tuple[int, int] = (50, 40), form: str = "PNG") -> bytes:
    """An image of random pixels; of other numbers, others."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def message(*parts: str | bytes) -> Message:
    """Texts, and images."""
    content = [
        ContentPart("text", part) if isinstance(part, str) else ContentPart("image_url", image_url={"url": url(part)})
        for part in parts
    ]
    return Message("user", content)


def chat(*parts: str | bytes, **parameters: Any) -> ChatCompletionRequest:
    defaults: dict[str, Any] = {"temperature": 0, "max_tokens": 4, "logprobs": True, "top_logprobs": 3}
    return ChatCompletionRequest([message(*parts)], "tiny", **(defaults | parameters))


def seeing_model(folder: Path, kind: Kind) -> Path:
    model = TinyModel(folder / "tiny.gguf", KINDS[kind]).sizes().vocabulary()
    model.writer.add_chat_template(TEMPLATE)
    tiny_projector(folder / "mmproj-tiny.gguf", kind)
    return model.weights().write()


@pytest_asyncio.fixture(params=["mlp", "gemma3"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(EXACT, str(seeing_model(tmp_path, request.param)))
    await engine.start()
    yield engine
    await engine.stop()


async def answer(engine: LlamaCppEngine, *parts: str | bytes) -> tuple[list[float], int, int]:
    """Log-probabilities, tokens of the prompt, and how many of them were reused."""
    completion = await engine.complete(chat(*parts))
    logprobs = completion.choices[0].logprobs
    assert logprobs and completion.cached_tokens is not None
    return [each.logprob for each in logprobs], completion.prompt_tokens, completion.cached_tokens


async def test_the_answer_depends_on_the_picture_and_a_shared_one_is_computed_once(engine: LlamaCppEngine) -> None:
    first, tokens, _ = await answer(engine, "What is this? ", png(1), " Say.")
    other, _, shared = await answer(engine, "What is this? ", png(2), " Say.")
    assert np.abs(np.array(first) - other).max() > 0.01
    again, _, reused = await answer(engine, "What is this? ", png(1), " Say it again.")
    assert again != pytest.approx(first, abs=1e-3)
    # With the other picture, the text before it; with the same, all of it, too.
    _, plain, _ = await answer(engine, "What is this? ", " Say.")
    before, picture = len("<user>What is this? "), tokens - plain
    assert before <= shared < before + picture <= reused


async def test_rows_at_once_see_their_own_pictures(engine: LlamaCppEngine) -> None:
    alone = [await answer(engine, "Look: ", png(number), " what?") for number in range(4)]
    asked = [answer(engine, "Look: ", png(number % 4), " what?") for number in range(24)]
    for number, (logprobs, tokens, _) in enumerate(await asyncio.gather(*asked)):
        assert logprobs == pytest.approx(alone[number % 4][0], abs=1e-3)
        assert tokens == alone[number % 4][1]


async def test_labels_are_scored_after_pictures(engine: LlamaCppEngine) -> None:
    scores = [
        await engine.score(LabelRequest("tiny", [message("Grade: ", png(number))], ["1", "2"])) for number in (1, 2)
    ]
    assert np.abs(np.array(scores[0].logprobs) - scores[1].logprobs).max() > 1e-3


@pytest.mark.parametrize(
    ("image_url", "said"),
    [
        ("https://example.com/cat.png", "fetches no images"),
        ("data:image/png;base64,@@@@", "no base64"),
        ("data:image/png;base64," + base64.b64encode(b"no image").decode(), "cannot be read"),
        (url(png(1)[:300]), "cannot be read"),
        (7, "fetches no images"),
    ],
)
async def test_a_bad_image_is_its_own_rows_error(engine: LlamaCppEngine, image_url: Any, said: str) -> None:
    bad = chat("a")
    bad.messages[0].content = [ContentPart("image_url", image_url={"url": image_url})]
    good, refused = await asyncio.gather(answer(engine, png(1)), engine.complete(bad), return_exceptions=True)
    assert not isinstance(good, BaseException)
    assert isinstance(refused, EngineError)
    assert said in refused.message
    assert refused.status == 400 and refused.param is not None and refused.param.startswith("messages")


async def test_a_text_cannot_hold_a_picture(engine: LlamaCppEngine) -> None:
    plain = await engine.complete(chat("<__media__> <start_of_image>"))
    assert plain.prompt_tokens < 60


async def test_a_model_without_eyes_refuses_images(tmp_path: Path) -> None:
    engine = LlamaCppEngine(EXACT, str(tiny_model(tmp_path / "tiny.gguf")))
    await engine.start()
    with pytest.raises(EngineError, match="image_url") as refused:
        await engine.complete(chat(png(1)))
    assert refused.value.status == 400
    with pytest.raises(EngineError, match="image_url"):
        await engine.score(LabelRequest("tiny", [message(png(1))], ["1", "2"]))
    await engine.stop()


def test_a_projector_of_another_model_is_refused_where_it_was_named_and_left_alone_otherwise(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.gguf")
    wrong = tiny_projector(tmp_path / "mmproj.gguf", "mlp", width=96)
    loaded = load_model(str(model), msgspec.to_builtins(EXACT))
    assert isinstance(loaded, LoadedModel)
    assert loaded.eyes is None and "Images are refused" in loaded.notices[0]
    for named in (wrong, tmp_path / "missing.gguf", model):
        with pytest.raises(UserError, match="projector"):
            load_model(str(model), msgspec.to_builtins(msgspec.structs.replace(EXACT, projector=str(named))))
    blind = load_model(str(model), msgspec.to_builtins(msgspec.structs.replace(EXACT, projector="none")))
    assert isinstance(blind, LoadedModel) and blind.eyes is None and not blind.notices


@pytest.mark.parametrize("kind", ["mlp", "gemma3"])
def test_logits_are_those_of_llama_cpps_own_helper(tmp_path: Path, kind: Kind) -> None:
    loaded = load_model(str(seeing_model(tmp_path, kind)), msgspec.to_builtins(EXACT))
    assert isinstance(loaded, LoadedModel)
    runner, eyes = loaded.runner, loaded.eyes
    assert isinstance(runner, LlamaRunner) and isinstance(eyes, Projector)
    picture = eyes.look(png(5))
    assert sum(len(part.vectors) for part in picture.parts) == VECTORS[kind]
    before, after = (loaded.vocabulary.encode(text, False) for text in ("Look: ", " what is it?"))
    tokens = [*before, *picture.tokens, *after]
    runner.new_memory()
    ours = runner.forward([Span(tokens, 0, 0, (len(tokens) - 1,))])[0].copy()
    # In steps, as a scheduler may cut them.
    runner.new_memory()
    cut = len(before) + len(picture.tokens)
    runner.forward([Span(tokens[:cut], 0, 0, ())])
    stepped = runner.forward([Span(tokens[cut:], cut, 0, (len(tokens) - cut - 1,))])[0].copy()
    runner.new_memory()
    theirs = by_helper(runner, eyes, png(5), "Look: ", " what is it?")
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(stepped - theirs).max() < 1e-3
    assert np.abs(theirs).max() > 0.1


def by_helper(runner: LlamaRunner, eyes: Projector, image: bytes, before: str, after: str) -> np.ndarray:
    """Logits of the last token, by ``mtmd_helper_eval_chunks``."""
    library, mtmd, context = runner._library, eyes._multimodal, runner._context
    evaluate = library.symbols("mtmd_helper_eval_chunks", "libmtmd").mtmd_helper_eval_chunks
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    evaluate.argtypes = [pointer, pointer, pointer, integer, integer, integer, ctypes.c_bool, pointer]
    pixels = np.ascontiguousarray(Image.open(io.BytesIO(image)).convert("RGB"))
    bitmap = mtmd.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], pixels.ctypes.data)
    prompt = before.encode() + eyes._marker + after.encode()
    chunks = mtmd.mtmd_input_chunks_init()
    text = InputText(prompt, len(prompt), False, True)
    assert mtmd.mtmd_tokenize(eyes._context, chunks, ctypes.byref(text), (pointer * 1)(bitmap), 1) == 0
    end = integer()
    assert evaluate(eyes._context, context, chunks, 0, 0, 512, True, ctypes.byref(end)) == 0
    return np.ctypeslib.as_array(library.llama_get_logits(context), (runner._vocabulary_size,)).copy()
