"""One attempt, to real receivers that do whatever they like."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from receiver import Answer, Receiver, hang, raw, status

from gristmill.notify.addresses import AllowedHosts
from gristmill.notify.resolver import Lookups
from gristmill.notify.sender import Sender, SendOutcome

CERTIFICATE = Path(__file__).with_name("receiver.pem")
LOOPBACK = AllowedHosts.of(["127.0.0.1"])


def found(*addresses: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


class Names:
    """A name server that answers each question with the next of ``answers``, and the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[Any]:
        self.asked.append((host, port))
        return found(*(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]))


async def send(
    url: str, allowed: AllowedHosts = LOOPBACK, names: Names | None = None, timeout: float = 20
) -> SendOutcome:
    lookups = Lookups() if names is None else Lookups(names)
    return await Sender(allowed, lookups, timeout).send(url, {"webhook-id": "evt_1"}, b'{"a":1}')


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (status(200), SendOutcome(200)),
        (status(204), SendOutcome(204)),
        (status(299), SendOutcome(299)),
        (status(404), SendOutcome(404, "It answered 404.")),
        (status(503, "Retry-After: 7"), SendOutcome(503, "It answered 503.", 7.0)),
        (status(503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"), SendOutcome(503, "It answered 503.")),
        (raw(b""), SendOutcome(None, "It closed the connection without an answer.")),
        (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), SendOutcome(None, "What it answered is not HTTP.")),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99_999), SendOutcome(None, "What it answered is not HTTP.")),
    ],
    ids=lambda value: "" if callable(value) else str(value)[:60],
)  # fmt: skip
async def test_what_counts_is_the_status(answer: Answer, outcome: SendOutcome) -> None:
    with Receiver(answer) as receiver:
        assert await send(receiver.url) == outcome
        (request,) = receiver.received
        assert request.body == b'{"a":1}' and request.id == "evt_1" and request.path == "/hook"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("Gristmill/")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_never_followed(code: int) -> None:
    with Receiver() as other, Receiver(status(code, f"Location: {other.url}")) as receiver:
        outcome = await send(receiver.url)
        assert outcome.status == code and outcome.error and "redirects are not followed" in outcome.error
        assert other.received == []


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        raw(b"HTTP/1.1 200 OK\r\n", then=b"X-More: x\r\n", pause=0.05),
        raw(b"", then=b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.05),
        raw(b"H", then=b"T", pause=0.05),
    ],
    ids=["hangs", "endless headers", "endless hints", "drips"],
)
async def test_who_does_not_answer_is_given_up(answer: Answer) -> None:
    with Receiver(answer) as receiver:
        outcome = await send(receiver.url, timeout=0.5)
    # Headers without end may be too many before they are too late.
    assert outcome.status is None and outcome.error
    assert outcome.error in ("There was no answer within 0.5 seconds.", "What it answered is not HTTP.")


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\n", then=b"X: y\r\n" * 10_000),
        raw(b"", then=b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 1_000),
        raw(b"HTTP/1.1 200 ", then=b"x" * 65_536),
    ],
    ids=["headers", "hints", "status"],
)
async def test_a_flood_of_an_answer_is_broken_off(answer: Answer) -> None:
    """It kept the whole server busy, for as long as an attempt may take, to read provisional answers."""
    with Receiver(answer) as receiver:
        assert await send(receiver.url) == SendOutcome(None, "What it answered is not HTTP.")


async def test_a_body_without_end_is_not_read() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 999999999999\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65536)

    with Receiver(endless) as receiver:
        assert await send(receiver.url) == SendOutcome(200)
    assert sent < 64 * 2**20


async def test_nobody_there_is_a_failure_in_words() -> None:
    with Receiver() as receiver:
        pass
    assert await send(receiver.url) == SendOutcome(None, "There is no connection: Connection refused.")
    assert await send("http://a.invalid/") == SendOutcome(None, "Its name cannot be resolved.")


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver, Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await send(receiver.url)).status == 200
        assert len(receiver.received) == 1 and proxy.received == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_a_public_name_of_an_address_that_is_not_public_leads_nowhere(address: str) -> None:
    with Receiver() as receiver:
        names = Names([address])
        outcome = await send(f"http://innocent.example:{receiver.port}/", AllowedHosts(), names)
        assert outcome.status is None and outcome.error and "is not on the public internet" in outcome.error
        assert address not in outcome.error
        assert receiver.received == [] and names.asked == [("innocent.example", receiver.port)]


async def test_a_name_that_changes_its_address_is_checked_where_it_connects_and_only_there() -> None:
    """DNS rebinding: the first answer is innocent, the next is not."""
    allowed = AllowedHosts.of(["127.0.0.2"])
    with Receiver(address="127.0.0.2") as receiver, socket.create_server(("127.0.0.1", receiver.port)) as inner:
        inner.setblocking(False)
        names = Names(["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1", "127.0.0.2"])
        url = f"http://rebind.example:{receiver.port}/"
        assert (await send(url, allowed, names)).status == 200
        # It was resolved once, and the connection went to what was checked.
        assert len(names.asked) == 1 and len(receiver.received) == 1
        assert "is not on the public internet" in str((await send(url, allowed, names)).error)
        assert len(names.asked) == 2 and len(receiver.received) == 1
        # Of several, only those that are allowed.
        assert (await send(url, allowed, names)).status == 200
        assert len(names.asked) == 3 and len(receiver.received) == 2
        with pytest.raises(BlockingIOError):
            inner.accept()


async def test_a_url_is_checked_again_before_each_attempt() -> None:
    with Receiver() as receiver:
        assert "is not on the public internet" in str((await send(receiver.url, AllowedHosts())).error)
        assert receiver.received == []
    names = Names(["127.0.0.1"])
    assert "port 25 is not one" in str((await send("http://a.example:25/", LOOPBACK, names)).error)
    assert names.asked == []


async def test_a_name_that_is_allowed_may_be_anywhere() -> None:
    with Receiver() as receiver:
        names = Names(["127.0.0.1"])
        allowed = AllowedHosts.of(["inner.example"])
        assert (await send(f"http://inner.example:{receiver.port}/", allowed, names)).status == 200


async def test_a_name_server_that_does_not_answer_holds_up_nothing() -> None:
    never = threading.Event()

    def lookup(host: str, port: int) -> list[Any]:
        if host == "slow.example":
            never.wait(60)
        return found("127.0.0.1")

    with Receiver() as receiver:
        sender = Sender(LOOPBACK, Lookups(lookup), timeout=0.5)
        slow = [asyncio.create_task(sender.send("http://slow.example/", {}, b"")) for _ in range(20)]
        await asyncio.sleep(0)
        # Neither the event loop nor the threads that all else uses.
        await asyncio.to_thread(time.monotonic)
        good = await sender.send(f"http://good.example:{receiver.port}/", {"webhook-id": "x"}, b"")
        assert good.status == 200
        assert {outcome.error for outcome in await asyncio.gather(*slow)} == {"There was no answer within 0.5 seconds."}
    never.set()


_SEND = """
import sys, uvloop
from gristmill.notify.addresses import AllowedHosts
from gristmill.notify.resolver import Lookups
from gristmill.notify.sender import Sender
import socket
lookup = lambda host, port: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
sender = Sender(AllowedHosts.of(["127.0.0.1"]), Lookups(lookup))
async def main():
    for url in sys.argv[1:]:
        outcome = await sender.send(url, {"webhook-id": "x"}, b"")
        print(outcome.status, outcome.error)
uvloop.run(main())
"""


def test_certificates_are_verified() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    with Receiver(tls=tls) as receiver:
        urls = [f"https://{name}:{receiver.port}/" for name in ("receiver.test", "other.test")]
        command = [sys.executable, "-c", _SEND, *urls]
        trusting = os.environ | {"SSL_CERT_FILE": str(CERTIFICATE)}
        said = subprocess.run(command, env=trusting, capture_output=True, text=True, timeout=60)
        assert said.stdout.splitlines()[0] == "200 None", said.stderr
        assert said.stdout.splitlines()[1].startswith("None Its certificate is not accepted: ")
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert all(line.startswith("None Its certificate is not accepted: ") for line in said.stdout.splitlines())
        assert len(receiver.received) == 1
