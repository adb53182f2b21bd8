"""Models of Ollama's library whose files only Ollama's llama.cpp reads compute as the originals, rewritten once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import pytest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

import tiny_gguf
from tiny_gguf import HEADS, LAYERS, VOCABULARY, WIDTH, TinyModel, token_ids

from gristmill.engines.choice import MachineFacts, choose_engine
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppEngine, LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.support import read_model_facts
from gristmill.engines.registry import open_tokenizer
from gristmill.models.locate import locate
from gristmill.models.ollama import rewritten
from gristmill.models.ollama.rewritten import copies_of, rewrite, rewriting_of
from gristmill.user_error import UserError
from models.ollama_folder import OllamaFolder
from models.ollama_layout import in_ollamas_layout

NAME = "ollama:gemma3:12b"
TEXT = "The miller grinds the grain of the valley. " * 3
ADD = Callable[[Path], None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ADD:
    """Puts a file into Ollama's folder as gemma3:12b."""
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    folder = OllamaFolder(tmp_path / "ollama")
    monkeypatch.setenv("OLLAMA_MODELS", str(folder.path))

    def put(path: Path) -> None:
        layers = [("model", path.read_bytes()), ("template", b"{{ .Prompt }}")]
        folder.add("registry.ollama.ai/library/gemma3/12b", layers, model_family="gemma3")

    return put


def load(source: str, **options: Any) -> LoadedModel:
    chosen = {"kv_cache_gb": 0.003, "threads": 1, "kv_type": "f32", "flash_attention": "off"} | options
    found = load_model(source, msgspec.to_builtins(LlamaCppOptions(**chosen)))
    assert isinstance(found, LoadedModel)
    return found


def logits(model: LoadedModel, tokens: list[int]) -> Any:
    model.runner.new_memory()
    return np.array(model.runner.forward([Span(tokens, 0, 0, tuple(range(len(tokens))))]))


def gemma3(path: Path, context_length: int = 4096, scaled: bool = False) -> Path:
    """Its sixth layer has no window."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_gguf, "LAYERS", 6)
        model = TinyModel(path, "gemma3", window=32).sizes(context_length).vocabulary()
        model.writer.add_rope_freq_base(1_000_000.0)
        if scaled:
            model.writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            model.writer.add_rope_scaling_factor(8.0)
        return model.weights().write()


def gpt_oss(path: Path) -> Path:
    model = TinyModel(path, "gpt-oss", window=32).sizes().vocabulary()
    writer, random = model.writer, np.random.default_rng(3)
    writer.add_expert_count(4)
    writer.add_expert_used_count(2)
    writer.add_expert_feed_forward_length(32)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, WIDTH), "output.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)
    }  # fmt: skip
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": (WIDTH,), "post_attention_norm.weight": (WIDTH,), "attn_sinks.weight": (HEADS,),
            "ffn_gate_inp.weight": (4, WIDTH), "ffn_gate_inp.bias": (4,), "ffn_down_exps.weight": (4, WIDTH, 32),
            "ffn_down_exps.bias": (4, WIDTH),
        } | {f"attn_{each}.weight": (WIDTH, WIDTH) for each in ("q", "k", "v", "output")}  # fmt: skip
        block |= {f"attn_{each}.bias": (WIDTH,) for each in ("q", "k", "v", "output")}
        block |= {f"ffn_{each}_exps.weight": (4, 32, WIDTH) for each in ("gate", "up")}
        block |= {f"ffn_{each}_exps.bias": (4, 32) for each in ("gate", "up")}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(0.1, 0.2, shape).astype(np.float32))
    return model.write()


def test_gemma3_computes_what_its_file_for_llama_cpp_does(tmp_path: Path, add: ADD) -> None:
    original = gemma3(tmp_path / "original.gguf")
    add(in_ollamas_layout(original, tmp_path / "blob.gguf"))
    model = load(NAME)
    assert model.vocabulary.encode(TEXT, special_tokens=False) == token_ids(TEXT)
    assert model.vocabulary.size == VOCABULARY
    assert model.defaults.template == "{{ .Prompt }}"
    assert "Images are refused" in model.notices[0]
    assert np.array_equal(logits(model, token_ids(TEXT)), logits(load(str(original)), token_ids(TEXT)))


def test_gpt_oss_does_too(tmp_path: Path, add: ADD) -> None:
    original = gpt_oss(tmp_path / "original.gguf")
    add(in_ollamas_layout(original, tmp_path / "blob.gguf", pictures=False))
    model = load(NAME)
    assert model.notices == []
    assert np.array_equal(logits(model, token_ids(TEXT)), logits(load(str(original)), token_ids(TEXT)))


@pytest.fixture(scope="module")
def gemma3_270m() -> Path:
    """Before a test has another cache."""
    try:
        return locate("gemma3-270m").path
    except UserError as error:
        pytest.skip(str(error))


def test_a_quantized_model_of_the_catalog_does_too(gemma3_270m: Path, tmp_path: Path, add: ADD) -> None:
    add(in_ollamas_layout(gemma3_270m, tmp_path / "blob.gguf"))
    options = {"kv_cache_gb": 0.05, "kv_type": "f16", "flash_attention": "auto", "threads": 2}
    found, expected = load(NAME, **options), load(str(gemma3_270m), **options)
    # A text that begins with a word: nothing is put before it.
    tokens = expected.vocabulary.encode(TEXT, special_tokens=True)
    assert found.vocabulary.encode(TEXT, special_tokens=True) == tokens
    assert found.vocabulary.ends == expected.vocabulary.ends
    assert np.array_equal(logits(found, tokens), logits(expected, tokens))


def test_large_models_get_their_scaled_positions(tmp_path: Path, add: ADD) -> None:
    original = gemma3(tmp_path / "original.gguf", 131072, scaled=True)
    add(in_ollamas_layout(original, tmp_path / "blob.gguf"))
    found = logits(load(NAME), token_ids(TEXT))
    assert np.array_equal(found, logits(load(str(original)), token_ids(TEXT)))
    assert not np.array_equal(found, logits(load(str(gemma3(tmp_path / "unscaled.gguf"))), token_ids(TEXT)))


def test_it_is_rewritten_once_and_privately(tmp_path: Path, add: ADD, monkeypatch: pytest.MonkeyPatch) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))
    rewriting = rewriting_of(locate(NAME).path, "gemma3:12b")
    assert rewriting is not None and not rewriting.done
    path = rewrite(rewriting)
    assert path.stat().st_size == rewriting.size and path.parent.stat().st_mode & 0o077 == 0
    assert sorted(each.name for each in path.parent.iterdir()) == [".lock", "model.gguf"]
    monkeypatch.setattr(rewritten, "_write", lambda _: pytest.fail("written again"))
    assert rewrite(rewriting) == path
    # Under another name it is the same blob.
    again = rewriting_of(locate(NAME).path, "gemma3:latest")
    assert again is not None and again.done and again.target == path


def test_what_a_kill_left_is_written_over(tmp_path: Path, add: ADD) -> None:
    original = gemma3(tmp_path / "original.gguf")
    add(in_ollamas_layout(original, tmp_path / "blob.gguf"))
    script = """
import os, sys, time
from gristmill.models.locate import locate
from gristmill.models.ollama import rewritten
copy, copied = rewritten._copy, []
def slow(*arguments):
    copied.append(copy(*arguments))
    if len(copied) == 5:
        print("writing", flush=True)
        time.sleep(600)
rewritten._copy = slow
rewritten.rewrite(rewritten.rewriting_of(locate(sys.argv[1]).path, "gemma3:12b"))
"""
    process = subprocess.Popen([sys.executable, "-c", script, NAME], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    rewriting = rewriting_of(locate(NAME).path, "gemma3:12b")
    assert rewriting is not None and not rewriting.done
    assert (rewriting.target.parent / "model.gguf.part").exists()
    assert np.array_equal(logits(load(NAME), token_ids(TEXT)), logits(load(str(original)), token_ids(TEXT)))
    assert not (rewriting.target.parent / "model.gguf.part").exists()


def test_two_processes_at_once_write_it_once(tmp_path: Path, add: ADD) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))
    script = """
import sys
from gristmill.models.locate import locate
from gristmill.models.ollama import rewritten
write = rewritten._write
def told(rewriting):
    print("wrote", flush=True)
    write(rewriting)
rewritten._write = told
print(rewritten.rewrite(rewritten.rewriting_of(locate(sys.argv[1]).path, "gemma3:12b")))
"""
    both = [subprocess.Popen([sys.executable, "-c", script, NAME], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("wrote") == 1


def test_without_help_of_the_kernel_the_file_is_the_same(
    tmp_path: Path, add: ADD, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))
    rewriting = rewriting_of(locate(NAME).path, "gemma3:12b")
    assert rewriting is not None
    by_kernel = rewrite(rewriting).read_bytes()
    shutil.rmtree(rewriting.target.parent)

    def refused(*_: Any) -> int:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "copy_file_range", refused)
    assert rewrite(rewriting).read_bytes() == by_kernel


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, add: ADD, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(UserError, match="No space left on device.*free some space"):
        load(NAME)
    (folder,) = (tmp_path / "cache" / "ollama").iterdir()
    assert [each.name for each in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("unknown", ["dense.0.weight", "blk.0.attn_qkv.weight"])
def test_what_does_not_fit_the_rules_is_refused_before_llama_cpp_sees_it(
    tmp_path: Path, add: ADD, unknown: str
) -> None:
    original = gemma3(tmp_path / "original.gguf")
    add(in_ollamas_layout(original, tmp_path / "blob.gguf", extra=unknown))
    both = MachineFacts(frozenset({"openvino", "llama_cpp"}))
    with pytest.raises(UserError, match="No embedded engine can load .*: its file is in a layout of Ollama's own"):
        choose_engine(read_model_facts(NAME, locate(NAME)), both)
    with pytest.raises(UserError, match=f"llama_cpp engine cannot load '{NAME}': its file is in a layout of Ollama's"):
        LlamaCppEngine(LlamaCppOptions(), NAME).served_name()


def test_llama_cpp_is_chosen_for_it(tmp_path: Path, add: ADD) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))
    choice = choose_engine(read_model_facts(NAME, locate(NAME)), MachineFacts(frozenset({"openvino", "llama_cpp"})))
    assert (choice.engine, "rewritten for llama.cpp" in choice.reason) == ("llama_cpp", True)
    # Tokens are counted without writing gigabytes first.
    assert open_tokenizer(NAME) is not None
    assert not (tmp_path / "cache" / "ollama").exists()


async def test_the_engine_says_it_once_and_answers(
    tmp_path: Path, add: ADD, capsys: pytest.CaptureFixture[str]
) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))
    said = []
    for _ in range(2):
        engine = LlamaCppEngine(LlamaCppOptions(kv_cache_gb=0.003, threads=1, prefix_disk_gb=0), NAME)
        await engine.start()
        await engine.stop()
        # The log goes where a test before has configured it to go.
        said.append("is rewritten for llama.cpp once: " in "".join(capsys.readouterr()))
    assert said == [True, False]
    assert len(copies_of("gemma3:12b", None)) == 1


def command(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "gristmill", "models", *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_it_is_listed_shown_and_removed_without_touching_what_is_ollamas(tmp_path: Path, add: ADD) -> None:
    add(in_ollamas_layout(gemma3(tmp_path / "original.gguf"), tmp_path / "blob.gguf"))
    (listed,) = [row for row in msgspec.json.decode(command("list", "--json")) if row["name"] == NAME]
    assert listed["engine"] == "llama_cpp"
    blob = locate(NAME).path
    rewriting = rewriting_of(blob, "gemma3:12b")
    assert rewriting is not None
    assert msgspec.json.decode(command("show", NAME, "--json"))["rewritten"] is None
    path = rewrite(rewriting)
    assert msgspec.json.decode(command("show", NAME, "--json"))["rewritten"] == str(path)
    assert "Ollama's own file stays" in command("rm", "--yes", NAME)
    assert blob.is_file() and not path.exists()
    # Ollama has removed it since.
    rewrite(rewriting)
    shutil.rmtree(tmp_path / "ollama")
    assert "freed" in command("rm", "--yes", NAME)
    assert not path.exists() and copies_of("gemma3:12b", None) == []
