"""A model hub on loopback, with the few addresses the hub's client uses and the ways a real one fails."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPO = "mill/grist"


class HubStandIn:
    """``stop_at`` closes the connection at that byte of each file; ``stall_at`` keeps it open, silent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.served: dict[str, bytes] = {}
        self.plain: set[str] = set()
        self.licence: str | None = "apache-2.0"
        self.stop_at: int | None = None
        self.stop_times = 10**9
        self.stall_at: int | None = None
        self.ranges = True
        self.gated = False
        self.requests: list[tuple[str, str, str | None]] = []
        self.stalled, self.release = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def ranges_asked(self) -> list[str | None]:
        return [asked for method, path, asked in self.requests if method == "GET" and "/resolve/" in path]

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def listing(self) -> bytes:
        siblings = []
        for path, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": blob}
            if path not in self.plain:
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        card = {"license": self.licence} if self.licence else {}
        return json.dumps({"id": REPO, "sha": REVISION, "cardData": card, "siblings": siblings}).encode()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.gated:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith(f"/api/models/{REPO}"):
            self._answer(200, hub.listing(), {})
        elif path.startswith(f"/{REPO}/resolve/{REVISION}/"):
            self._file(path.split(f"/{REVISION}/", 1)[1])
        else:
            self._answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> None:
        hub = self.hub
        content = hub.served.get(name, hub.files[name])
        etag = f'"{hashlib.sha256(hub.files[name]).hexdigest()}"'
        headers = {"ETag": etag, "X-Linked-Etag": etag, "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        asked, start, status = self.headers.get("Range"), 0, 200
        if asked and hub.ranges:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(status, content, headers, start)

    def _answer(self, status: int, content: bytes, headers: dict[str, str], start: int = 0) -> None:
        hub = self.hub
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        is_file = "/resolve/" in self.path
        if is_file and hub.stop_at is not None and hub.stop_times > 0 and len(content) > hub.stop_at:
            hub.stop_times -= 1
            self.wfile.write(content[start : max(start, hub.stop_at)])
            self.close_connection = True
        elif is_file and hub.stall_at is not None and len(content) > hub.stall_at:
            self.wfile.write(content[start : hub.stall_at])
            self.wfile.flush()
            hub.stalled.set()
            hub.release.wait(20)
            self.close_connection = True
        else:
            self.wfile.write(content[start:])
