from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from command import COMMAND, Run
from gguf import GGUFWriter
from hub_stand_in import HubStandIn

IR_XML = b'<?xml version="1.0"?>\n<net name="m"><data element_type="i8" shape="4" offset="0" size="4" /></net>\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, for this process and the ones it starts."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRISTMILL_CACHE", str(folder))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    stand_in = HubStandIn()
    monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
    yield stand_in
    stand_in.close()


@pytest.fixture
def models(cache: Path, tmp_path: Path) -> Run:
    """``models("pull", NAME)`` runs the command in an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(COMMAND), *arguments],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def gguf_bytes(tmp_path: Path) -> bytes:
    """A real GGUF file of a few kilobytes: 4,096 parameters in F32, a vocabulary of 100 entries."""
    path = tmp_path / "written.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(2048)
    writer.add_file_type(0)
    writer.add_token_list([f"token{number}" for number in range(100)])
    writer.add_token_types([1] * 100)
    writer.add_tensor("token_embd.weight", numpy.arange(4096, dtype=numpy.float32).reshape(64, 64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def ir_files() -> dict[str, bytes]:
    files = {
        f"openvino_{part}.{suffix}": IR_XML if suffix == "xml" else b"1234"
        for part in ("model", "tokenizer", "detokenizer")
        for suffix in ("xml", "bin")
    }
    files["config.json"] = b'{"model_type": "llama", "max_position_embeddings": 4096}'
    return files


@pytest.fixture
def split_gguf(tmp_path: Path) -> list[Path]:
    """The files of a real GGUF model that is split into three, the first of which holds no tensors."""
    folder = tmp_path / "split"
    folder.mkdir()
    writer = GGUFWriter(folder / "big.gguf", "llama", split_max_tensors=1, small_first_shard=True)
    writer.add_context_length(2048)
    writer.add_token_list(["a", "b"])
    for name in ("token_embd.weight", "output_norm.weight"):
        writer.add_tensor(name, numpy.arange(64, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))
