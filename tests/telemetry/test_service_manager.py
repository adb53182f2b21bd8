"""What a service manager is told: each datagram as it arrives at a socket of its kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gristmill.telemetry.service_manager import ServiceManager, service_manager
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess


class Listener:
    """The manager's end. ``address`` is as it stands in NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(60)

    def next(self) -> dict[str, str]:
        lines = self.socket.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str) -> dict[str, str]:
        while name not in (state := self.next()):
            pass
        return state

    def silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(60)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify"))
    with contextlib.closing(made.socket):
        yield made


async def one_beat(manager: ServiceManager, status: str = "Fine.") -> None:
    """As far as the first pause."""
    beating = asyncio.create_task(manager.beat(lambda: status))
    await asyncio.sleep(0)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_is_told_through_its_socket_whichever_kind_that_is(kind: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@gristmill-test-{secrets.token_hex(8)}"
    listener = Listener(address)
    with contextlib.closing(listener.socket):
        environment = {"NOTIFY_SOCKET": address, "OTHER": "stays"}
        service_manager(environment).ready()
        assert listener.next() == {"READY": "1", "STATUS": "Ready."}
        assert environment == {"OTHER": "stays"}


@pytest.mark.parametrize("address", ["", "@", "/", "relative", "vsock:2:1234", "/nothing/is/here", "/" + "x" * 300])
async def test_without_a_socket_that_can_be_used_it_does_no_harm(address: str) -> None:
    manager = service_manager({"NOTIFY_SOCKET": address})
    manager.ready()
    await one_beat(manager)
    manager.stopping(1)
    manager.close()


async def test_while_it_starts_it_asks_for_more_time_and_says_what_it_waits_for(listener: Listener) -> None:
    manager = ServiceManager(listener.address, watchdog_seconds=30)
    await one_beat(manager, "Waiting for the engine.")
    assert listener.next() == {"EXTEND_TIMEOUT_USEC": "60000000"}
    assert listener.next() == {"STATUS": "Waiting for the engine."}
    assert listener.silent()


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({"WATCHDOG_USEC": "30000000"}, True),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
)
async def test_it_says_that_it_is_alive_where_a_watchdog_waits_for_that(
    listener: Listener, environment: dict[str, str], watched: bool
) -> None:
    manager = service_manager({"NOTIFY_SOCKET": listener.address} | environment)
    manager.ready()
    listener.next()
    await one_beat(manager)
    if watched:
        assert listener.next() == {"WATCHDOG": "1"}
    assert listener.next() == {"STATUS": "Fine."}


async def test_not_to_know_what_to_say_does_not_stop_the_beat(listener: Listener) -> None:
    def fails() -> str:
        raise ZeroDivisionError

    manager = ServiceManager(listener.address, watchdog_seconds=0.003)
    manager.ready()
    beating = asyncio.create_task(manager.beat(fails))
    for _ in range(3):
        assert await asyncio.to_thread(listener.until, "WATCHDOG")
    beating.cancel()


async def test_a_text_from_outside_is_one_line_and_fits(listener: Listener) -> None:
    manager = ServiceManager(listener.address)
    manager.ready()
    listener.next()
    await one_beat(manager, "The engine says: \x1b[31mno\nMAINPID=1\r\nSTOPPING=1 \ud800" + "\U0001f980" * 5000)
    state = listener.next()
    assert list(state) == ["STATUS"]
    assert state["STATUS"].startswith("The engine says: no MAINPID=1 STOPPING=1")
    assert len(state["STATUS"].encode()) < 4000


async def test_what_could_not_be_delivered_comes_with_what_is_told_next(listener: Listener) -> None:
    manager = ServiceManager(listener.address)
    listener.socket.close()
    Path(listener.address).unlink()
    manager.ready()
    again = Listener(listener.address)
    with contextlib.closing(again.socket):
        await one_beat(manager)
        assert again.next() == {"READY": "1", "STATUS": "Fine."}


async def test_a_manager_that_reads_nothing_holds_nobody_up(listener: Listener) -> None:
    manager = ServiceManager(listener.address, watchdog_seconds=10)
    for _ in range(2000):
        manager.ready()


def test_a_server_tells_that_it_answers_and_how_it_goes_and_that_it_stops(
    listener: Listener, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    server = ServerProcess(data, "-O", "latency=600", "--stop-grace", "0")
    server.spawn()
    try:
        assert "simulated engine to start" in listener.until("STATUS")["STATUS"]
        listener.until("READY")
        server.wait_until_ready()
        assert httpx.get(server.base_url.removesuffix("/v1") + "/health").status_code == 200
        listener.until("WATCHDOG")
        assert listener.until("STATUS") == {"STATUS": "No batch to run."}
        client = server.client()
        file = client.files.create(file=chat_file(3), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        while listener.until("STATUS")["STATUS"] != f"Batch {batch.id}: 0 of 3 rows.":
            pass
    finally:
        server.stop()
    assert listener.until("STOPPING")["EXTEND_TIMEOUT_USEC"] == "60000000"
