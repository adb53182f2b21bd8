"""Models that cannot be loaded: each real file gets one sentence that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import TinyModel, tiny_model

from gristmill.engines.embedded.llama_cpp import loading
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.gguf_facts import read_facts
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.llama_cpp.needs import Needs, check_memory
from gristmill.user_error import UserError

GIB = 2**30


def refused(path: Path, **options: Any) -> str:
    defaults = {"kv_cache_gb": 0.003, "threads": 1}
    with pytest.raises(UserError) as caught:
        load_model(str(path), msgspec.to_builtins(LlamaCppOptions(**(defaults | options))))
    return str(caught.value)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-1000])
    assert "damaged or cut short" in refused(path)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"no model" * 100)
    assert "is not a GGUF file" in refused(path)


def test_an_architecture_that_llama_cpp_does_not_know(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", "brontosaurus")
    message = refused(path)
    assert f"cannot load '{path}': unknown model architecture: 'brontosaurus'." in message
    assert "llama.cpp 0." in message


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    path = TinyModel(tmp_path / "tiny.gguf").sizes().vocabulary().write()
    assert "tiny.gguf': tensor 'token_embd.weight' not found." in refused(path)


def test_a_file_without_a_vocabulary(tmp_path: Path) -> None:
    model = TinyModel(tmp_path / "tiny.gguf").sizes()
    model.writer.add_tokenizer_model("no_vocab")
    assert "has no vocabulary" in refused(model.weights().write())


def test_an_adapter_and_a_projector_are_no_models(tmp_path: Path) -> None:
    model = TinyModel(tmp_path / "adapter.gguf").sizes()
    model.writer.add_type("adapter")
    assert "is an adapter (LoRA)" in refused(model.write())
    assert "is the picture half of a model" in refused(TinyModel(tmp_path / "half.gguf", "clip").weights().write())


def test_a_model_of_which_one_file_is_missing(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny-00001-of-00002.gguf")
    assert "tiny-00002-of-00002.gguf" in refused(path)


def test_a_kv_cache_without_a_cell(tmp_path: Path) -> None:
    assert "KV cache is too small" in refused(tiny_model(tmp_path / "tiny.gguf"), kv_cache_gb=0.00001)


def test_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model(tmp_path / "tiny.gguf")
    monkeypatch.setattr(loading, "available_memory", lambda: 2**20)
    monkeypatch.setattr(loading, "open_model", lambda *_: pytest.fail("it was loaded"))
    message = refused(path)
    assert "this machine has 0.0 GiB free" in message and "kv_cache_gb" in message


def test_what_lies_on_a_gpu_needs_no_memory_of_the_machine() -> None:
    needs = Needs(layers=10, weights=10 * GIB, kv_cache=10 * GIB, step=GIB)
    check_memory(Path("x"), needs, 10, 2 * GIB)
    check_memory(Path("x"), needs, 0, None)
    with pytest.raises(UserError, match=r"needs 11\.0 GiB beside 5 layers on the GPU"):
        check_memory(Path("x"), needs, 5, 2 * GIB)


def test_the_facts_of_a_file_give_the_size_of_its_cache(tmp_path: Path) -> None:
    facts = read_facts(tiny_model(tmp_path / "tiny.gguf"))
    assert (facts.architecture, facts.layers, facts.context_length) == ("llama", 2, 4096)
    # Two layers of two heads, with keys and values of 32 each.
    assert facts.kv_values == 2 * 2 * (32 + 32)


def test_layers_may_have_heads_of_their_own_number(tmp_path: Path) -> None:
    model = TinyModel(tmp_path / "tiny.gguf")
    model.writer.add_context_length(512)
    model.writer.add_embedding_length(64)
    model.writer.add_block_count(3)
    model.writer.add_head_count([4, 4, 4])
    model.writer.add_head_count_kv([0, 2, 1])
    facts = read_facts(model.vocabulary().write())
    # The first keeps a state instead of keys.
    assert facts.kv_values == (2 + 1) * (16 + 16)
