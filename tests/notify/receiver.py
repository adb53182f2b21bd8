"""A receiver of webhooks on a real port, that answers as it is told to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import openai

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"

#: What is written of an answer, and whether to go on for ever with more of it.
Answer = Callable[[socket.socket], None]


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def unwrap(self, secret: str = SECRET) -> object:
        """By the official client, which raises where the signature is wrong."""
        return openai.OpenAI(api_key="unused").webhooks.unwrap(self.body, self.headers, secret=secret)


def status(code: int, *headers: str) -> Answer:
    def answer(connection: socket.socket) -> None:
        lines = "".join(f"{header}\r\n" for header in headers)
        connection.sendall(f"HTTP/1.1 {code} Whatever\r\n{lines}Content-Length: 0\r\n\r\n".encode())

    return answer


def raw(data: bytes, then: bytes = b"", pause: float = 0.0) -> Answer:
    """``data``, and ``then`` again and again, ``pause`` seconds apart, until nobody reads it any more."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        while then:
            connection.sendall(then)
            time.sleep(pause)

    return answer


def hang(connection: socket.socket) -> None:
    """Until the other side goes away."""
    while connection.recv(65536):
        pass


class Receiver:
    """Answers each request with the next of ``answers``, and the last one for ever."""

    def __init__(
        self, *answers: Answer, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._answers = list(answers) or [status(200)]
        self._tls = tls
        self._listener = socket.create_server((address, port))
        self._changed = threading.Condition()
        self.received: list[Received] = []
        self.sent_bytes = 0
        self.host, self.port = self._listener.getsockname()[:2]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://{self.host}:{self.port}/hook"

    def wait(self, count: int, seconds: float = 60) -> list[Received]:
        """What was received, once it is at least so many requests."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, seconds), (
                f"{len(self.received)} requests instead of {count}"
            )
            return list(self.received)

    def close(self) -> None:
        """Like a process that is killed."""
        for each in (self._listener, *self._connections):
            # Closing alone waits for whoever reads.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                request = self._read(connection)
                with self._changed:
                    self.received.append(request)
                    answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                    self._changed.notify_all()
                answer(connection)
        except (OSError, ValueError):
            return

    def _read(self, connection: socket.socket) -> Received:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self._more(connection)
        return Received(first.split()[1], headers, body)

    @staticmethod
    def _more(connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ValueError("the other side went away")
        return data
