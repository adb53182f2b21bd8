"""The endpoint that ``docs/contributing/dialect.md`` adds, as it stands there: to a copy of the sources."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from requests_jsonl import jsonl
from server_process import ServerProcess

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/contributing/dialect.md").read_text()
BLOCKS = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, re.DOTALL)


def block(beginning: str) -> str:
    (found,) = [each for each in BLOCKS if each.startswith(beginning)]
    return found


def put(path: Path, before: str, added: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, (path, before)
    path.write_text(text.replace(before, added + before))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    package = shutil.copytree(ROOT / "src/gristmill", folder / "gristmill", ignore=ignored)
    (package / "wire/classify.py").write_text(block('"""``/v1/classify``: which'))
    (package / "inference/classify.py").write_text(block('"""``/v1/classify``."""'))
    endpoints, keys, api = (
        package / name for name in ("inference/endpoints.py", "planning/prompt_key.py", "api/inference.py")
    )
    put(endpoints, "        Endpoint(SCORE", block("Endpoint(") + "\n")
    put(endpoints, "from gristmill.inference import chat", "from gristmill.inference import classify\n")
    put(keys, "_PROMPTS = {", block("def _classify") + "\n")
    put(keys, '    "/v1/completions": _completion', block('"/v1/classify"'))
    api.write_text(f"{api.read_text()}\n\n{block('@router.post')}")
    put(api, "from gristmill.inference.chunks", "from gristmill.inference import classify\n")
    put(
        api, "from gristmill.wire.embeddings", "from gristmill.wire.classify import ClassifyRequest, ClassifyResponse\n"
    )
    return folder


@pytest.fixture
def server(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHONPATH", str(sources))
    with ServerProcess(tmp_path / "data") as running:
        yield running


def test_it_answers_directly_and_in_a_batch_and_describes_itself(server: ServerProcess, tmp_path: Path) -> None:
    base = server.base_url
    asked = {"model": "simulated", "input": "Good or bad? ", "labels": ["good", "bad"]}
    answer = httpx.post(f"{base}/classify", json=asked).raise_for_status().json()
    assert answer["label"] in asked["labels"] and answer["object"] == "classification"
    refused = httpx.post(f"{base}/classify", json={"model": "simulated", "labels": []})
    assert refused.status_code == 400 and refused.json()["error"]["param"] in ("input", "labels")
    described = httpx.get(f"{base.removesuffix('/v1')}/openapi.json").json()
    assert "/v1/classify" in described["paths"]
    rows, answers = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    line = {"custom_id": "a", "method": "POST", "url": "/v1/classify", "body": asked}
    rows.write_bytes(jsonl([line, line | {"custom_id": "b"}]))
    command = [sys.executable, "-m", "gristmill", "run", str(rows), "-o", str(answers), "--engine", "simulated"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    found = [json.loads(each)["response"]["body"] for each in answers.read_bytes().splitlines()]
    assert [each["label"] for each in found] == [answer["label"]] * 2
