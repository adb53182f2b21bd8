from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from command import Run
from ollama_folder import OllamaFolder
from somebody_else import opened_to_all, somebody_else

from gristmill.models.locate import locate
from gristmill.models.ollama.name import parse_name
from gristmill.models.ollama.store import hidden_folders
from gristmill.models.pull import pull
from gristmill.models.remove import find_removable
from gristmill.user_error import UserError

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture
def ollama(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OllamaFolder:
    folder = OllamaFolder(tmp_path / "ollama")
    monkeypatch.setenv("OLLAMA_MODELS", str(folder.path))
    return folder


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("gemma3", "registry.ollama.ai/library/gemma3/latest", "gemma3:latest"),
        ("gemma3:12b", "registry.ollama.ai/library/gemma3/12b", "gemma3:12b"),
        ("mill/grist:v1.5", "registry.ollama.ai/mill/grist/v1.5", "mill/grist:v1.5"),
        ("hf.co/org/Repo-GGUF:Q4_K_M", "hf.co/org/Repo-GGUF/Q4_K_M", "hf.co/org/Repo-GGUF:Q4_K_M"),
        ("host:5000/a/b", "host:5000/a/b/latest", "host:5000/a/b:latest"),
    ],
)
def test_a_name_is_read_as_ollama_reads_it(text: str, path: str, shown: str) -> None:
    name = parse_name(text)
    assert (name.path, str(name)) == (path, shown)


@pytest.mark.parametrize(
    "text", ["", ":", "a:", "/a", "a/", "../../etc/passwd", "a/../b", "a//b", "a/b/c/d", "a b", "ä"]
)
def test_what_is_no_name_reaches_no_file(text: str) -> None:
    with pytest.raises(UserError, match="is no name of an Ollama model"):
        parse_name(text)


def test_a_model_is_read_where_ollama_keeps_it(ollama: OllamaFolder, gguf_bytes: bytes) -> None:
    params = {"stop": ["<end>", ""], "temperature": 0.7, "top_k": 64, "min_p": 0.05, "repeat_penalty": 1.1, "seed": -1}
    layers = ollama.add(
        f"{LIBRARY}/gemma3/12b",
        [
            ("model", gguf_bytes),
            ("projector", gguf_bytes + b"\0"),
            ("template", b"{{ .Prompt }}"),
            ("system", b"Be brief."),
            ("params", json.dumps(params).encode()),
            ("messages", b'[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'),
            ("license", b"Terms"),
            ("draft", b"ignored"),
        ],
    )
    model = locate("ollama:gemma3:12b")
    assert (model.name, model.kind) == ("gemma3:12b", "gguf")
    assert model.path == ollama.blob_path(layers[0]["digest"])
    assert model.projector == ollama.blob_path(layers[1]["digest"])
    assert (model.defaults.template, model.defaults.system) == ("{{ .Prompt }}", "Be brief.")
    assert [message.text() for message in model.defaults.messages] == ["Hi", "Hello"]
    parameters = model.defaults.parameters
    assert (parameters.temperature, parameters.top_k, parameters.min_p, parameters.seed) == (0.7, 64, 0.05, None)
    assert (parameters.repetition_penalty, parameters.repetition_window) == (1.1, 64)
    assert (parameters.stop, parameters.max_tokens, parameters.top_p) == (("<end>",), None, None)


def test_names_differ_in_more_than_case(ollama: OllamaFolder, gguf_bytes: bytes) -> None:
    ollama.add("hf.co/Mill/Grist-GGUF/Q4_K_M", [("model", gguf_bytes)])
    assert locate("ollama:hf.co/mill/grist-gguf:q4_k_m").kind == "gguf"


def test_the_home_of_this_user_comes_before_that_of_the_service(
    cache: Path, tmp_path: Path, gguf_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    service = OllamaFolder(tmp_path / "service")
    monkeypatch.setattr("gristmill.models.ollama.store._SERVICE", service.path)
    own = OllamaFolder(tmp_path / ".ollama" / "models")
    service.add(f"{LIBRARY}/both/latest", [("model", gguf_bytes)])
    service.add(f"{LIBRARY}/theirs/latest", [("model", gguf_bytes)])
    own.add(f"{LIBRARY}/both/latest", [("model", gguf_bytes)])
    assert locate("ollama:both").path.is_relative_to(own.path)
    assert locate("ollama:theirs").path.is_relative_to(service.path)


def test_a_model_that_ollama_lacks_is_told_with_those_it_has(ollama: OllamaFolder, gguf_bytes: bytes) -> None:
    with pytest.raises(UserError, match="no models in .*set OLLAMA_MODELS.*ollama pull gemma3:12b"):
        locate("ollama:gemma3:12b")
    ollama.add(f"{LIBRARY}/gemma3/4b", [("model", gguf_bytes)])
    with pytest.raises(UserError, match=r"'ollama pull gemma3:12b', or name one of gemma3:4b\."):
        locate("ollama:gemma3:12b")


def _says(name: str) -> str:
    with pytest.raises(UserError) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_kind_of_damage_is_one_sentence_with_what_to_do(ollama: OllamaFolder, gguf_bytes: bytes) -> None:
    name = f"{LIBRARY}/m/latest"
    ollama.write_manifest(name, "<html>")
    assert "its manifest" in _says("ollama:m") and "ollama pull m:latest" in _says("ollama:m")
    ollama.write_manifest(name, {"layers": [{"mediaType": "x", "digest": "sha256:../../etc/passwd", "size": 1}]})
    assert "unknown kind ('x')" in _says("ollama:m")
    layers = ollama.add(name, [("model", gguf_bytes), ("params", b'{"temperature": "hot"}')])
    assert "its parameters cannot be read" in _says("ollama:m")
    layers[0]["digest"] = "sha256:../../etc/passwd"
    ollama.write_manifest(name, {"layers": layers})
    assert "names a blob 'sha256:../../etc/passwd'" in _says("ollama:m")
    (layer, *_) = ollama.add(name, [("model", gguf_bytes)])
    blob = ollama.blob_path(layer["digest"])
    blob.write_bytes(gguf_bytes[:-1])
    assert f"bytes instead of {len(gguf_bytes):,}" in _says("ollama:m")
    blob.unlink()
    assert f"the blob '{blob}' is missing" in _says("ollama:m")
    ollama.add(name, [("license", b"Terms")])
    assert "it has no model file" in _says("ollama:m")
    ollama.add(name, [("model", b"not GGUF")])
    assert "is not a GGUF file" in _says("ollama:m")
    ollama.add(name, [("model", gguf_bytes), ("template", b"\xff")])
    assert "its template is not UTF-8" in _says("ollama:m")
    ollama.add(name, [("model", gguf_bytes), ("messages", b'[{"role": "judge", "content": "x"}]')])
    assert "its messages cannot be read" in _says("ollama:m")


@pytest.mark.parametrize(
    ("layers", "config", "reason"),
    [
        ([("adapter", b"lora")], {}, "has an adapter"),
        ([("tensor", b"t"), ("json", b"{}")], {"model_format": "safetensors"}, "in the format safetensors"),
        ([("tensor", b"t")], {}, "in the format"),
        ([("weights-of-tomorrow", b"w")], {}, "part of an unknown kind"),
        ([("model", b"GGUF")], {}, "several model files"),
        ([], {"remote_host": "https://ollama.com"}, "runs at https://ollama.com, not here"),
    ],
)
def test_what_cannot_be_run_here_is_refused_with_the_reason(
    ollama: OllamaFolder, gguf_bytes: bytes, layers: list[tuple[str, bytes]], config: dict[str, str], reason: str
) -> None:
    ollama.add(f"{LIBRARY}/m/latest", [("model", gguf_bytes), *layers], **config)
    assert reason in _says("ollama:m")


@pytest.mark.parametrize("closed", ["manifests", "blobs"])
def test_a_folder_that_may_not_be_read_is_named_with_what_opens_it(
    ollama: OllamaFolder, gguf_bytes: bytes, tmp_path: Path, closed: str
) -> None:
    ollama.add(f"{LIBRARY}/m/latest", [("model", gguf_bytes)])
    folder = ollama.path / closed
    opened_to_all(tmp_path)
    folder.chmod(0o700 if os.geteuid() == 0 else 0o000)
    try:
        with somebody_else():
            message = _says("ollama:m")
            hidden = [str(each) for each in hidden_folders()]
    finally:
        folder.chmod(0o755)
    assert hidden == ([message] if closed == "manifests" else []) and list(hidden_folders()) == []
    assert f"You may not read '{folder}'" in message
    assert f"sudo chmod -R o+rX {folder}" in message


def test_the_list_shows_ollamas_models_and_show_what_they_bring(
    ollama: OllamaFolder, gguf_bytes: bytes, models: Run
) -> None:
    params = b'{"stop": ["<end>"], "temperature": 0.5}'
    layers = [("model", gguf_bytes), ("params", params), ("template", b"x")]
    ollama.add("hf.co/org/repo/Q8_0", layers, file_type="Q8_0", model_type="12.2B")
    ollama.write_manifest(f"{LIBRARY}/damaged/latest", "{")
    rows = [row for row in json.loads(models("list", "--json").stdout) if row["source"] == "ollama"]
    assert [(row["name"], row["quantisation"]) for row in rows] == [("ollama:hf.co/org/repo:Q8_0", "Q8_0")]
    assert rows[0]["parameters"] == 12_200_000_000 and rows[0]["engine"] is not None
    assert rows[0]["path"].startswith(str(ollama.path))
    assert rows[0]["size"] == len(gguf_bytes) + len(params) + 1
    shown = models("show", "ollama:hf.co/org/repo:Q8_0").stdout
    assert "temperature 0.5, stop '<end>'" in " ".join(shown.split()) and "Ollama's" in shown


def test_the_list_has_the_engine_that_would_run_a_model_or_why_none_does(
    ollama: OllamaFolder, models: Run, gguf_bytes: bytes
) -> None:
    ollama.add(f"{LIBRARY}/seeing/latest", [("model", gguf_bytes), ("projector", gguf_bytes + b"\0")])
    layers = ollama.add(f"{LIBRARY}/gone/latest", [("model", gguf_bytes + b"\1")])
    ollama.blob_path(layers[0]["digest"]).unlink()
    ollama.add(f"{LIBRARY}/none/latest", [("model", b"no model")])
    rows = {row["name"]: row for row in json.loads(models("list", "--json").stdout) if row["source"] == "ollama"}
    assert {name: row["engine"] for name, row in rows.items()} == {
        "ollama:seeing:latest": "llama_cpp", "ollama:gone:latest": None, "ollama:none:latest": None,
    }  # fmt: skip
    assert "is missing: run 'ollama pull gone:latest'" in rows["ollama:gone:latest"]["obstacle"]
    assert "is not a GGUF file: run 'ollama pull none:latest'" in rows["ollama:none:latest"]["obstacle"]


def test_ollamas_models_are_left_to_ollama(ollama: OllamaFolder, gguf_bytes: bytes) -> None:
    ollama.add(f"{LIBRARY}/m/latest", [("model", gguf_bytes)])
    with pytest.raises(UserError, match="'ollama rm m'"):
        find_removable("ollama:m")
    with pytest.raises(UserError, match="'ollama pull m'"):
        pull("ollama:m")


def test_what_writes_the_prompts_is_what_ollama_would_take(
    ollama: OllamaFolder, gguf_bytes: bytes, models: Run
) -> None:
    name, layers = f"{LIBRARY}/m/latest", [("model", gguf_bytes), ("template", b"{{ .Prompt }}")]
    ollama.add(name, layers, renderer="qwen3-coder", parser="qwen3-coder")
    assert locate("ollama:m").defaults.renderer == "qwen3-coder"
    assert "Ollama's own code ('qwen3-coder')" in " ".join(models("show", "ollama:m").stdout.split())
    ollama.add(name, [("model", gguf_bytes), ("prompt", b"{{ nope }}")])
    # That it cannot be interpreted is said when a prompt is to be written.
    assert locate("ollama:m").defaults.template == "{{ nope }}"
    ollama.add(name, [("model", with_chat_template(gguf_bytes)), ("template", b"{{ .Prompt }}")])
    assert locate("ollama:m").defaults.template is None
    ollama.add(name, [("model", with_chat_template(gguf_bytes)), ("template", b"{{ .Tools }}")])
    assert locate("ollama:m").defaults.template == "{{ .Tools }}"


def with_chat_template(gguf: bytes) -> bytes:
    """The header of a model whose own template knows tools."""
    key, value = b"tokenizer.chat_template", b"{{ tools }}{{ messages }}"
    string = struct.Struct("<Q")
    entry = string.pack(len(key)) + key + struct.pack("<I", 8) + string.pack(len(value)) + value
    magic, version, _, keys = struct.unpack_from("<4sIQQ", gguf)
    return struct.pack("<4sIQQ", magic, version, 0, keys + 1) + entry + gguf[24:]
