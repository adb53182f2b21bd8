"""A proxy between a client and a server that swallows what is sent, as a network that is cut: nobody is told."""

from __future__ import annotations

import contextlib
import socket
import threading

_PIECE = 64 * 1024


class SwallowingProxy:
    """Passes bytes on, both ways, to ``127.0.0.1:port``, until ``cut``: then connections stay, and new ones are taken,
    but nothing arrives. After ``heal`` new connections are passed on; those that have lost bytes are reset."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._deaf = threading.Event()
        self._lossy: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._deaf.set()

    def heal(self) -> None:
        self._deaf.clear()
        lossy, self._lossy = self._lossy, []
        for each in lossy:
            _close(each)

    def __enter__(self) -> SwallowingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                if self._deaf.is_set():
                    self._lossy += [source, target]
                    return
                target.sendall(piece)
        if not self._deaf.is_set():
            for each in (source, target):
                _close(each)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
