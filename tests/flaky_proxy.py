"""A proxy in front of a real server, for tests: what it does to the next requests is told in advance."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: Does something to one request, instead of passing it on.
Fault = Callable[["Handler"], None]


class FlakyProxy:
    """``faults`` meet the next requests, one each; after them, ``always``, if any. ``seen`` lists what came in."""

    def __init__(self, base_url: str) -> None:
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        proxy = self

        class Running(Handler):
            upstream = urlsplit(base_url).netloc

            def pass_on(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.seen.append(f"{self.command} {urlsplit(self.path).path}")
                proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
                fault = proxy.faults.popleft() if proxy.faults else proxy.always
                (fault or forward)(self)

            do_GET = do_POST = do_DELETE = pass_on

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Running)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FlakyProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = ""
    body = b""

    def log_message(self, *arguments: object) -> None:
        pass

    def ask(self, without: tuple[str, ...] = ()) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(self.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in (*without, "host")}
        connection.request(self.command, self.path, self.body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() != "transfer-encoding"]
        connection.close()
        return answer.status, kept, content

    def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def drop(self) -> None:
        """Reset the connection."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def forward(handler: Handler) -> None:
    handler.reply(*handler.ask())


def reset(handler: Handler) -> None:
    """Before the server has heard of it."""
    handler.drop()


def lose_answer(handler: Handler) -> None:
    """The server has done it; nobody learns of it."""
    handler.ask()
    handler.drop()


def bad_gateway(handler: Handler) -> None:
    """As a proxy answers while the server behind it restarts."""
    handler.reply(502, [("Content-Type", "text/html")], b"<html><h1>502 Bad Gateway</h1></html>")


def unavailable(handler: Handler) -> None:
    handler.reply(503, [("Content-Type", "text/html")], b"<html><h1>503 Service Unavailable</h1></html>")


def maintenance(handler: Handler) -> None:
    handler.reply(200, [("Content-Type", "text/html")], b"<html>We will be back soon.</html>")


def without_range(handler: Handler) -> None:
    """As a server that sends whole files only."""
    handler.reply(*handler.ask(without=("range", "if-range")))


def cut_after(size: int) -> Fault:
    """Break the connection after ``size`` bytes of the body."""

    def fault(handler: Handler) -> None:
        status, headers, content = handler.ask()
        handler.send_response_only(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content[:size])
        # A reset would also throw away what the other side has not read yet.
        time.sleep(0.05)
        handler.drop()

    return fault
