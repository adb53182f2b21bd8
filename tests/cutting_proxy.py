"""A proxy between a client and a server that cuts connections at random bytes, for tests."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import deque

_PIECE = 64 * 1024


class CuttingProxy:
    """Passes bytes on, both ways, to ``127.0.0.1:port``. While ``within`` is set, each connection that is made is cut
    somewhere in so many bytes, counted both ways. ``answers`` meet the next requests, one each, instead of the
    server."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._chance = random.Random(seed)
        self.within: int | None = None
        self.answers: deque[bytes] = deque()
        self.cuts = 0
        self._refusing = False
        self._pairs: list[_Pair] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def refuse(self) -> None:
        """Cut all connections, and take no more."""
        self._refusing = True
        for pair in self._pairs:
            pair.end(reset=True)

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            if self.answers:
                threading.Thread(target=self._answer, args=(client, self.answers.popleft()), daemon=True).start()
                continue
            left = None
            if self.within is not None:
                left = self._chance.randrange(self.within)
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                client.close()
                continue
            self._pairs.append(_Pair(self, client, server, left))
            self._pairs[-1].start()

    @staticmethod
    def _answer(client: socket.socket, content: bytes) -> None:
        with client:
            client.recv(_PIECE)
            client.sendall(content)


class _Pair:
    """A connection to each side."""

    def __init__(self, proxy: CuttingProxy, client: socket.socket, server: socket.socket, left: int | None) -> None:
        self._proxy = proxy
        self._sides = (client, server)
        self._left = left
        self._lock = threading.Lock()

    def start(self) -> None:
        client, server = self._sides
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(_PIECE):
                with self._lock:
                    cut = self._left is not None and len(piece) > self._left
                    if self._left is not None:
                        piece = piece[: self._left]
                        self._left -= len(piece)
                target.sendall(piece)
                if cut:
                    self._proxy.cuts += 1
                    self.end(reset=True)
                    return
        except OSError:
            pass
        self.end(reset=False)

    def end(self, *, reset: bool) -> None:
        for each in self._sides:
            try:
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
