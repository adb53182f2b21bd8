from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from contract import check_error
from starlette.datastructures import Headers

from gristmill.access.host_rules import AccessRules
from requests_jsonl import chat_file
from server_process import ServerProcess

MACHINE = socket.gethostname().lower()
CREATE: dict[str, Any] = {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def refused(rules: AccessRules, **headers: str) -> bool:
    return rules.refusal(Headers(headers)) is not None


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:4080", "LOCALHOST:1", "app.localhost", "127.0.0.1:4080", "127.9.9.9", "[::1]:4080",
     "192.168.1.5:4080", "10.0.0.1", "[fe80::1]", "localhost.", MACHINE, f"{MACHINE}:4080",
     f"{MACHINE.partition('.')[0]}.local"],
)  # fmt: skip
def test_addresses_loopback_names_and_the_machines_own_name_are_known(host: str) -> None:
    assert not refused(AccessRules.of("127.0.0.1"), host=host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:4080", "127.0.0.1.evil.example", "localhost.evil.example", "evillocalhost", "",
     "localhost:4080:80", "user@localhost", "localhost, evil.example", "evil.example/localhost", "[::1].evil.example"],
)  # fmt: skip
def test_a_host_name_that_a_page_could_point_here_is_refused(host: str) -> None:
    assert refused(AccessRules.of("127.0.0.1"), host=host)


def test_allowed_hosts_are_known_with_the_names_below_a_dot() -> None:
    rules = AccessRules.of("0.0.0.0", ["Gristmill", ".lab.example", "*.other.example"])
    for host in ("gristmill:4080", "gpu.lab.example", "a.b.lab.example", "x.other.example"):
        assert not refused(rules, host=host)
    for host in ("lab.example", "evillab.example", "gristmill.evil.example"):
        assert refused(rules, host=host)
    assert not refused(AccessRules.of("127.0.0.1", ["*"]), host="anything.example")


def test_a_page_of_another_origin_is_refused_and_the_servers_own_is_not() -> None:
    rules = AccessRules.of("127.0.0.1")
    for origin in ("http://evil.example", "null", "http://localhost:3000", "https://localhost:4080.evil.example",
                   "http://localhost", "", "file://localhost:4080"):  # fmt: skip
        assert refused(rules, host="localhost:4080", origin=origin), origin
    assert not refused(rules, host="localhost:4080", origin="http://localhost:4080")
    assert not refused(rules, host="localhost", origin="https://localhost:443")


def test_allowed_origins_are_let_in() -> None:
    rules = AccessRules.of("127.0.0.1", origins=["http://Localhost:3000/"])
    assert not refused(rules, host="localhost:4080", origin="http://localhost:3000")
    assert refused(rules, host="localhost:4080", origin="http://localhost:3001")
    assert not refused(AccessRules.of("127.0.0.1", origins=["*"]), host="localhost:4080", origin="http://evil.example")


def test_two_hosts_or_two_origins_are_refused_and_a_missing_host_is_not() -> None:
    rules = AccessRules.of("127.0.0.1")
    twice = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    assert rules.refusal(twice) is not None
    origins = [(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"http://evil.example")]
    assert rules.refusal(Headers(raw=origins)) is not None
    assert rules.refusal(Headers({})) is None


PAGE = {"origin": "http://evil.example"}
CALLS: dict[str, dict[str, Any]] = {
    "a batch": {"url": "/batches", "content": json.dumps(CREATE), "headers": {"content-type": "text/plain", **PAGE}},
    "a batch as JSON": {"url": "/batches", "json": CREATE, "headers": PAGE},
    "a file": {"url": "/files", "files": {"file": chat_file(1)}, "data": {"purpose": "batch"}, "headers": PAGE},
    "a cancel": {"url": "/batches/batch_x/cancel", "headers": PAGE},
    "a request": {"url": "/chat/completions", "json": {}, "headers": PAGE},
}


@pytest.mark.parametrize("call", CALLS)
def test_a_page_elsewhere_cannot_post(http: httpx.Client, call: str) -> None:
    answer = http.post(**CALLS[call])
    assert answer.status_code == 403
    check_error(answer.json())
    assert answer.json()["error"]["code"] == "origin_not_allowed" and "--allowed-origin" in answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert http.get("/batches").json()["data"] == http.get("/files").json()["data"] == []


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/file-x/content", "/health", "/metrics", "/v1/nowhere"])
def test_a_rebound_host_name_reads_nothing(server: ServerProcess, path: str) -> None:
    root = server.base_url.removesuffix("/v1")
    answer = httpx.get(root + path, headers={"host": "evil.example:4080"})
    assert answer.status_code == 403
    check_error(answer.json())
    assert answer.json()["error"]["code"] == "host_not_allowed" and "--allowed-host" in answer.text


@pytest.mark.parametrize("path", ["/batches", "/uploads", "/uploads/upload_x/complete", "/chat/completions",
                                  "/completions", "/score"])  # fmt: skip
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_a_body_that_is_not_declared_json_is_415_and_says_what_to_send(
    http: httpx.Client, path: str, kind: str | None
) -> None:
    answer = http.post(path, content=json.dumps(CREATE), headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415
    check_error(answer.json())
    assert answer.json()["error"]["code"] == "unsupported_content_type"
    assert "-H 'Content-Type: application/json'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"])
def test_any_way_to_declare_json_is_accepted(http: httpx.Client, kind: str) -> None:
    body = {"model": "simulated", "messages": [{"role": "user", "content": "Hi"}]}
    answer = http.post("/chat/completions", content=json.dumps(body), headers={"content-type": kind})
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = (
        "--host",
        "0.0.0.0",
        "--no-keys",
        "--allowed-host",
        "gristmill",
        "--allowed-origin",
        "http://localhost:3000",
    )
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


def test_listening_on_the_network_is_said_loudly(open_server: ServerProcess, server: ServerProcess) -> None:
    assert any(line.startswith("WARNING: --no-keys on 0.0.0.0: everybody") for line in open_server.log)
    assert not any("WARNING" in line for line in server.log)


def test_an_allowed_page_gets_the_headers_its_browser_wants(open_server: ServerProcess) -> None:
    page = {"origin": "http://localhost:3000", "host": "gristmill:4080"}
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,authorization"}
    url = open_server.base_url.replace("0.0.0.0", "127.0.0.1")
    allowed = httpx.options(f"{url}/batches", headers=page | ask)
    assert allowed.status_code == 200 and "POST" in allowed.headers["access-control-allow-methods"]
    models = httpx.get(f"{url}/models", headers=page)
    assert models.status_code == 200
    assert models.headers["access-control-allow-origin"] in ("*", page["origin"])
    foreign = httpx.options(f"{url}/batches", headers=page | ask | PAGE)
    assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
