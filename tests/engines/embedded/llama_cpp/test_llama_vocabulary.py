"""llama.cpp's tokenizer gives what the model's own does, and what grammars and scores need of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import tiny_model, token_ids

from gristmill.engines.embedded.llama_cpp.library import load_library
from gristmill.engines.embedded.llama_cpp.vocabulary import LlamaVocabulary
from gristmill.models.locate import locate
from gristmill.user_error import UserError

TEXTS = (
    "The capital of France is",
    "  two spaces,\n\n\ttabs and\r\nlines  ",
    "Zahlen: 0 1 10 127 3.14159 -7",
    "Grüße aus Köln — 北京 🙂 a\u0301 \u200b|",
    '{"score": 7, "why": "it\'s fine"}',
    "def f(x):\n    return x ** 2  # square\n",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start |> is none, <|im_end|><|im_end|> are two",
    "a\0b",
    "",
    " ",
    "x" * 3000,
)


def vocabulary_of(path: Path) -> LlamaVocabulary:
    library = load_library()
    params = library.llama_model_default_params()
    params.vocab_only = True
    model = library.llama_model_load_from_file(bytes(path), params)
    return LlamaVocabulary(library, model)


@pytest.fixture(scope="module")
def smollm2(pulled_model: str) -> LlamaVocabulary:
    return vocabulary_of(locate(pulled_model).path)


@pytest.fixture(scope="module")
def reference(pulled_model: str) -> Callable[[str], list[int]]:
    """The same model's tokenizer as OpenVINO runs it, without anything around a text."""
    from gristmill.engines.embedded.openvino.prepare import prepare
    from gristmill.engines.embedded.openvino.vocabulary import ModelVocabulary

    own = ModelVocabulary(prepare(locate(pulled_model), "f16").folder)
    return lambda text: own.encode(text, special_tokens=False)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_are_those_of_the_models_own_tokenizer(
    smollm2: LlamaVocabulary, reference: Callable[[str], list[int]], text: str
) -> None:
    assert smollm2.encode(text, special_tokens=False) == reference(text)


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_the_tokens_are_those_of_the_text(smollm2: LlamaVocabulary, text: str) -> None:
    tokens = smollm2.encode(text, special_tokens=False)
    spelled = b"".join(smollm2.token_bytes[token] or smollm2.special_text(token) for token in tokens)
    assert spelled == text.encode()


@pytest.fixture(scope="module")
def gemma() -> LlamaVocabulary:
    """SentencePiece, with a space as a character of its own and bytes where a text has no token."""
    try:
        return vocabulary_of(locate("gemma3-270m").path)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("text", [text.replace("<|im_", "<|gemma_") for text in TEXTS])
def test_a_sentencepiece_vocabulary_spells_every_text_as_it_is(gemma: LlamaVocabulary, text: str) -> None:
    tokens = gemma.encode(text, special_tokens=False)
    assert b"".join(gemma.token_bytes[token] for token in tokens) == text.encode()
    assert gemma.encode(text, special_tokens=True) == [2, *tokens]


def test_the_marks_of_a_turn_are_single_tokens_of_which_one_ends_the_answer(gemma: LlamaVocabulary) -> None:
    start, end = gemma.encode("<start_of_turn><end_of_turn>", special_tokens=False)
    assert start in gemma.special and end in gemma.ends and start not in gemma.ends
    assert gemma.encode("Hello world", special_tokens=False) == [9259, 1902]


def test_special_tokens_add_nothing_to_a_text_and_have_a_name(smollm2: LlamaVocabulary) -> None:
    (end,) = smollm2.encode("<|im_end|>", special_tokens=False)
    assert end in smollm2.special and end in smollm2.ends
    assert smollm2.token_bytes[end] == b""
    assert smollm2.special_text(end) == b"<|im_end|>"
    assert "<|im_end|>" in smollm2.special_texts
    assert all(smollm2.token_bytes[token] for token in range(smollm2.size) if token not in smollm2.special)
    assert smollm2.longest_token == max(len(smollm2.special_text(token)) for token in range(smollm2.size))


def test_the_file_brings_its_chat_template_and_names(smollm2: LlamaVocabulary) -> None:
    assert "<|im_start|>" in smollm2.chat_template
    assert (smollm2.bos_token, smollm2.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_a_beginning_that_the_model_wants_is_added_where_it_is_asked_for(tmp_path: Path) -> None:
    tiny = vocabulary_of(tiny_model(tmp_path / "tiny.gguf"))
    assert tiny.encode("ab", special_tokens=True) == [1, *token_ids("ab")]
    assert tiny.encode("ab", special_tokens=False) == token_ids("ab")
    assert tiny.encode("a</s>", special_tokens=False) == [*token_ids("a"), 2]
    assert tiny.ends == {2}
    assert tiny.special >= {0, 1, 2}
    assert tiny.token_bytes[3 + ord("x")] == b"x"


def test_half_of_a_surrogate_pair_is_told_by_its_kind(smollm2: LlamaVocabulary) -> None:
    with pytest.raises(UnicodeEncodeError):
        smollm2.encode("\ud800", special_tokens=False)


def test_several_threads_tokenize_at_a_time(smollm2: LlamaVocabulary) -> None:
    expected = [smollm2.encode(text, False) for text in TEXTS]
    found: list[list[list[int]]] = []
    threads = [
        threading.Thread(target=lambda: found.append([smollm2.encode(text, False) for text in TEXTS * 5]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected * 5] * 4
