"""Every route of ``/openapi.json`` with requests that Schemathesis makes of it: valid, nearly valid, and others.

No answer is a failure of the server, and each is described: status, content type, body.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any, cast

import generated_requests
import httpx
import pytest
import schemathesis
from schemathesis import checks

from gristmill.api.access import AccessRules
from gristmill.api.app import create_app
from gristmill.api.description import document
from gristmill.batches.host import BatchHost
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

checks.load_all_checks()
_OF_SCHEMATHESIS = ("not_a_server_error", "content_type_conformance", "response_schema_conformance")
CHECKS = [*map(checks.CHECKS.get_one, _OF_SCHEMATHESIS), generated_requests.status_is_named]
schema = schemathesis.openapi.from_dict(document(create_app(cast(BatchHost, None), AccessRules()).state.resources))
schema.config.generation.update(deterministic=True, max_examples=6, no_shrink=True)
schema.config.phases.update(phases=["fuzzing"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that asks for a key, and has one of each kind of object."""
    data = tmp_path_factory.mktemp("data") / "server"
    add = [*ServerProcess.program, "admin", "key", "add", "tester", "--role", "admin", "--data", str(data)]
    key = subprocess.run(add, check=True, capture_output=True, text=True).stdout.strip()
    generated_requests.key = key
    with ServerProcess(data, "--keys") as server:
        bearer = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=server.base_url, headers=bearer, timeout=60) as http:

            def made(path: str, **content: Any) -> Any:
                answer = http.post(path, **content).raise_for_status().json()
                generated_requests.learn(answer)
                return answer["id"]

            file = made("/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", chat_file(3))})
            for window in ("24h", "48h"):
                made("/batches", json={"input_file_id": file, "endpoint": CHAT, "completion_window": window})
            upload = {"bytes": 1, "filename": "f", "mime_type": "text/plain", "purpose": "batch"}
            made(f"/uploads/{made('/uploads', json=upload)}/parts", files={"data": b"x"})
            made("/responses", json={"model": "simulated", "input": "Hi", "background": True})
        yield server.base_url.removesuffix("/v1")


@schema.parametrize()
def test_no_request_makes_the_server_fail_or_answer_as_it_is_not_described(case: schemathesis.Case, root: str) -> None:
    case.call_and_validate(base_url=root, checks=CHECKS, timeout=60)
