"""A stand-in for an OpenAI-compatible server that really dies: a process of its own, killed by marked rows.

A row whose text contains KILL kills the process (SIGKILL) while the rows beside it are being answered; one with BREAK
has its connection closed. Started again by ``MortalServer`` as a service manager would.

The kernel closes the sockets of a process that was killed one after another, the one it listens at among them, and a
client may be so quick as to send a request in between. With ``dying`` there are that many seconds between them: the
killer's connection is closed first.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from aiohttp import web

#: How long an answer takes, in seconds: rows are in flight together.
_SECONDS = 0.02


class MortalServer:
    """At ``url`` until the ``with`` block is left; started again ``restart_after`` seconds after each death."""

    def __init__(self, folder: Path, name: str = "server", restart_after: float = 0.05, dying: float = 0.0) -> None:
        self._journal = folder / f"{name}.journal"
        self._restart_after = restart_after
        self._dying = dying
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.deaths = 0
        self._ending = False
        self._process = self._spawn()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, str(self._port), str(self._journal), str(self._dying)])

    def __enter__(self) -> MortalServer:
        self._wait_until_ready()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._process.kill()
        self._keeper.join(30)
        self._process.kill()
        self._process.wait()

    def asked(self) -> Counter[str]:
        """How often the server began with each row."""
        return Counter(self._journal.read_text().splitlines()) if self._journal.exists() else Counter()

    def kill(self) -> None:
        self._process.kill()

    def _keep(self) -> None:
        while not self._ending:
            self._process.wait()
            if self._ending:
                return
            self.deaths += 1
            time.sleep(self._restart_after)
            self._process = self._spawn()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the server did not start")


def _serve(port: int, journal: str, dying: float) -> None:
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "owned_by": "somebody"}]})

    async def chat(request: web.Request) -> web.Response:
        text = (await request.json())["messages"][-1]["content"]
        if text.startswith("row"):
            os.write(file, text.encode() + b"\n")
        await asyncio.sleep(_SECONDS)
        if "KILL" in text:
            if dying:
                assert request.transport is not None
                request.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                time.sleep(dying)
            os.kill(os.getpid(), signal.SIGKILL)
        if "BREAK" in text:
            assert request.transport is not None
            request.transport.abort()
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1}
        return web.json_response({"choices": [choice], "usage": usage})

    app = web.Application()
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
