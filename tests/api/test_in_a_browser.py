"""What a real browser makes of the server: its page, and other pages that call it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from browser import opened, sideways
from requests_jsonl import CHAT
from server_process import ServerProcess

BATCH = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
#: Creates a batch, and has as its title what came of it.
PAGE = """<!doctype html><link rel="icon" href="data:,"><script>
const ask = new XMLHttpRequest();
ask.open("POST", "%s/batches", false);
ask.setRequestHeader("Content-Type", "application/json");
ask.setRequestHeader("Authorization", "Bearer unused");
ask.setRequestHeader("Idempotency-Key", "one");
try {
  ask.send('%s');
  document.title = ask.status + " " + JSON.parse(ask.responseText).object + " " + ask.getResponseHeader("x-request-id");
} catch (error) { document.title = "refused"; }
</script>"""


class Site:
    """A site on this machine with one page."""

    def __init__(self) -> None:
        site = self
        self.page = ""

        class Running(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = site.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Running)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_page_elsewhere_creates_a_batch_only_where_its_origin_is_allowed(
    tmp_path: Path, site: Site, allowed: bool
) -> None:
    options = ("--allowed-origin", site.origin) if allowed else ()
    with ServerProcess(tmp_path / "data", *options) as server:
        site.page = PAGE % (server.base_url, json.dumps(BATCH))
        dom, _ = opened(site.origin, tmp_path)
        title = re.search("<title>(.*?)</title>", dom)
        assert title is not None
        assert re.fullmatch("200 batch req_[0-9a-f]{32}" if allowed else "refused", title[1])
        assert len(server.client().batches.list().data) == allowed


def test_the_page_of_the_api_names_every_call_and_needs_nothing_from_elsewhere(
    server: ServerProcess, tmp_path: Path
) -> None:
    root = server.base_url.removesuffix("/v1")
    answer = httpx.get(f"{root}/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for path, methods in httpx.get(f"{root}/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in answer.text
    links = re.findall(r'(?:href|src)="([^"]*)"', answer.text)
    anchors = set(re.findall(r' id="([^"]*)"', answer.text))
    assert {link for link in links if not link.startswith("#")} == {"data:,", "openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert "<script" not in answer.text and not re.search(r"url\(|@import|https?:", answer.text)
    # The policy stops nothing that the page needs.
    assert opened(f"{root}/docs", tmp_path)[1] == []
    wide = sideways(answer.text, [320, 390, 1280], tmp_path)
    assert {width: found for width, found in wide.items() if found > width} == {}
