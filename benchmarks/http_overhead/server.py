"""A server of known capacity: ``slots`` rows at a time, each for ``slots / rate`` seconds, so ``rate`` rows a second.

    python server.py RATE SLOTS

It computes nothing and costs little, so that what is measured is its client. Rows beyond its slots wait in a queue, as
they do on a real server. ``GET /stats`` tells how busy the slots were; the first line of its output is its address.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque

import httptools
import uvloop

MODEL = "simulated"
#: Bytes; what is shorter is one of the questions with which Gristmill finds out what a server can do.
_SHORTEST_ROW = 1000
_MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 131072}]}
_ANSWER = {
    "id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "7"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2500, "completion_tokens": 1, "total_tokens": 2501,
              "prompt_tokens_details": {"cached_tokens": 2450}},
}  # fmt: skip


def reply(body: object, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


ANSWER = reply(_ANSWER)


class Slots:
    """``busy`` is the integral of occupied slots over time, in slot-seconds, from the first row to the last."""

    def __init__(self, rate: float, slots: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = slots / rate
        self._slots = self._free = slots
        self._waiting: deque[Connection] = deque()
        self._in_flight = 0
        self._rows = 0
        self._first = self._last = 0.0
        self._most = 0

    def add(self, connection: Connection) -> None:
        if self._first == 0.0:
            self._first = time.monotonic()
        self._in_flight += 1
        self._most = max(self._most, self._in_flight)
        if self._free:
            self._free -= 1
            self._begin(connection, self._loop.time())
        else:
            self._waiting.append(connection)

    def _begin(self, connection: Connection, start: float) -> None:
        end = start + self._seconds
        self._loop.call_at(end, self._end, connection, end)

    def _end(self, connection: Connection, end: float) -> None:
        self._in_flight -= 1
        self._rows += 1
        self._last = time.monotonic()
        connection.answer(ANSWER)
        if self._waiting:
            # From when the slot was free: timers come late by a millisecond, which would be lost capacity.
            self._begin(self._waiting.popleft(), end)
        else:
            self._free += 1

    def stats(self) -> dict[str, float]:
        return {
            "rows": self._rows,
            "first": self._first,
            "last": self._last,
            "most_in_flight": self._most,
            "slot_seconds": self._rows * self._seconds,
            "slots": self._slots,
        }


class Connection(asyncio.Protocol):
    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path, self._size = url, 0

    def on_body(self, data: bytes) -> None:
        self._size += len(data)

    def on_message_complete(self) -> None:
        match self._path:
            case b"/v1/chat/completions" if self._size < _SHORTEST_ROW:
                self.answer(ANSWER)
            case b"/v1/chat/completions":
                self._slots.add(self)
            case b"/v1/models":
                self.answer(reply(_MODELS))
            case b"/stats":
                self.answer(reply(self._slots.stats()))
            case _:
                self.answer(reply({}, "404 Not Found"))

    def answer(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)  # type: ignore[attr-defined]


async def main() -> None:
    slots = Slots(float(sys.argv[1]), int(sys.argv[2]))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(slots), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
