"""Event streams: made once for all who look, never more than one update waiting, ended with the server."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gristmill.web import stream
from gristmill.web.stream import Streams, Update, event
from gristmill.wire.errors import ApiError, not_found


class Page:
    """Counts how often it is made."""

    def __init__(self) -> None:
        self.made = 0

    async def make(self) -> Update:
        self.made += 1
        return Update(event(f"state {self.made}"))


async def until(holds: object) -> None:
    async with asyncio.timeout(20):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.001)


async def stopped(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_who_see_the_same_share_what_is_made_and_nobody_makes_it_when_all_have_left():
    streams, page = Streams(every=0.01), Page()
    seen: list[list[bytes]] = [[] for _ in range(20)]

    def viewer(got: list[bytes]) -> asyncio.Task[None]:
        async def send(data: bytes) -> None:
            got.append(data)

        return asyncio.create_task(streams.view("overview", page.make, send))

    viewers = [viewer(got) for got in seen]
    await until(lambda: all(len(got) >= 3 for got in seen))
    # Each was sent what was made, and it was made once for all.
    assert page.made <= max(len(got) for got in seen) + 1
    assert streams.viewers == 20
    await stopped(*viewers)
    assert streams.viewers == 0
    made = page.made
    await asyncio.sleep(0.05)
    assert page.made == made


async def test_who_is_slow_is_sent_the_newest_state_and_not_what_was_between():
    streams, page = Streams(every=0.005), Page()
    taken: list[bytes] = []
    free = asyncio.Event()

    async def send(data: bytes) -> None:
        taken.append(data)
        await free.wait()

    viewing = asyncio.create_task(streams.view("overview", page.make, send))
    await until(lambda: page.made >= 20)
    assert taken == [event("state 1")]
    free.set()
    await until(lambda: len(taken) >= 2)
    assert int(taken[1].split()[-1]) >= 20
    await stopped(viewing)


async def test_who_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "SLOW_SECONDS", 0.02)
    streams, page = Streams(every=0.005), Page()

    async def send(data: bytes) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await streams.view("overview", page.make, send)
    assert streams.viewers == 0


async def test_a_page_that_cannot_be_made_is_made_again():
    streams = Streams(every=0.005)
    tries = 0

    async def make() -> Update:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("no room")
        return Update(event("there"))

    taken: list[bytes] = []

    async def send(data: bytes) -> None:
        taken.append(data)

    viewing = asyncio.create_task(streams.view("overview", make, send))
    await until(lambda: taken)
    assert taken[0] == event("there")
    await stopped(viewing)


async def test_the_stream_of_what_has_been_deleted_ends():
    streams = Streams(every=0.005)
    deleted = asyncio.Event()

    async def make() -> Update:
        if deleted.is_set():
            raise not_found("No batch found.")
        return Update(event("there"))

    taken: list[bytes] = []

    async def send(data: bytes) -> None:
        taken.append(data)

    viewing = asyncio.create_task(streams.view("batch", make, send))
    await until(lambda: taken)
    deleted.set()
    await viewing
    assert event("there") in taken and streams.viewers == 0


async def test_an_unchanged_state_is_not_sent_again_and_what_comes_besides_is():
    streams = Streams(every=0.005)
    made = 0

    async def make() -> Update:
        nonlocal made
        made += 1
        return Update(b"state;", b"" if made % 5 else b"more;")

    taken: list[bytes] = []

    async def send(data: bytes) -> None:
        taken.append(data)

    viewing = asyncio.create_task(streams.view("overview", make, send))
    await until(lambda: made >= 21)
    await stopped(viewing)
    assert taken[0] == b"state;"
    assert set(taken[1:]) == {b"more;"} and 3 <= len(taken) <= 6


@pytest.mark.parametrize("ends", ["server", "reader"])
async def test_a_stream_ends_at_once_with_the_server_and_with_its_reader(ends: str):
    streams, page = Streams(every=0.01), Page()
    left = asyncio.Event()
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    response = streams.open("overview", "anna", page.make)
    answering = asyncio.create_task(response({"type": "http", "path": "/events"}, receive, send))  # type: ignore[arg-type]
    await until(lambda: len(sent) >= 3)
    if ends == "server":
        streams.close()
    else:
        left.set()
    async with asyncio.timeout(5):
        await answering
    assert sent[0]["status"] == 200 and sent[-1] == {"type": "http.response.body", "body": b""}
    assert streams.viewers == 0
    # One that is opened afterwards ends as well.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5 if ends == "server" else 0.01):
            await streams.open("overview", "anna", page.make)({"type": "http", "path": "/events"}, receive, send)  # type: ignore[arg-type]


async def test_one_visitor_holds_only_so_many_streams(monkeypatch: pytest.MonkeyPatch):
    """Each takes a connection, and each page that is not another's is made every second."""
    monkeypatch.setattr(stream, "MAX_STREAMS", 2)
    streams, page = Streams(every=0.01), Page()
    left = asyncio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        pass

    def opened(name: str, whose: str) -> asyncio.Task[None]:
        response = streams.open(name, whose, page.make)
        return asyncio.create_task(response({"type": "http", "path": "/events"}, receive, send))  # type: ignore[arg-type]

    tasks = [opened(name, "anna") for name in ("overview", "batch")]
    await until(lambda: streams.viewers == 2)
    with pytest.raises(ApiError) as refused:
        opened("overview", "anna")
    assert refused.value.status == 429 and refused.value.retry_after
    tasks.append(opened("overview", "berta"))
    await until(lambda: streams.viewers == 3)
    left.set()
    await asyncio.gather(*tasks)
    left.clear()
    again = opened("overview", "anna")
    await until(lambda: streams.viewers == 1)
    await stopped(again)


def test_no_text_can_end_a_line_of_an_event():
    assert event("a\nb\rc\r\nd\ud800") == b"data: a\ndata: b&#13;c&#13;\ndata: d?\n\n"
