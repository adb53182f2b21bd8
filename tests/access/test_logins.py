"""The login of a browser: a key for a cookie."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
from keyed_app import ROOT, KeyedApp, Owner, keyed_app
from starlette.types import Message

from gristmill.access import logins
from gristmill.access.caller import Role
from gristmill.api import authentication

PAGE = {"accept": "text/html"}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[KeyedApp]:
    async with keyed_app(tmp_path) as made:
        yield made


async def log_in(http: httpx.AsyncClient, key: str, to: str = "/") -> httpx.Response:
    return await http.post("/login", data={"key": key, "next": to}, headers={"origin": ROOT})


async def test_a_person_is_sent_to_the_login_and_back_to_where_they_were_going(app: KeyedApp, tmp_path: Path) -> None:
    key = await app.key("anna")
    async with app.client() as http:
        sent = await http.get("/batches/batch_1?page=2", headers=PAGE)
        assert sent.status_code == 303 and sent.headers["location"] == "/login?next=/batches/batch_1%3Fpage%3D2"
        form = await http.get(sent.headers["location"], headers=PAGE)
        assert form.status_code == 200 and 'value="/batches/batch_1?page=2"' in form.text
        assert "script" not in form.headers["content-security-policy"].partition("script-src 'self'")[2]
        answer = await log_in(http, f"  {key}\n", "/batches/batch_1?page=2")
        assert answer.status_code == 303 and answer.headers["location"] == "/batches/batch_1?page=2"
        (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
        assert cookie["httponly"] and cookie["samesite"].lower() == "strict" and cookie["path"] == "/"
        assert not cookie["secure"] and int(cookie["max-age"]) == logins.LIFETIME_SECONDS
        assert (await http.get("/", headers=PAGE)).status_code == 200
        assert "anna (user)" in (await http.get("/login", headers=PAGE)).text
        # Stored as a hash, and neither logged nor shown again.
        with sqlite3.connect(tmp_path / "data" / "gristmill.db") as database:
            dump = "\n".join(database.iterdump())
        database.close()
        assert cookie.value not in dump and key not in dump and key.rpartition("-")[2] not in dump
    transport = httpx.ASGITransport(app.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1") as tls:
        (cookie,) = SimpleCookie((await log_in(tls, key)).headers["set-cookie"]).values()
        assert cookie["secure"]


@pytest.mark.parametrize(
    "to",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\r\nset-cookie: a=b", ""],
)
async def test_nobody_is_sent_to_another_server_after_the_login(app: KeyedApp, to: str) -> None:
    async with app.client() as http:
        assert (await log_in(http, await app.key("anna"), to)).headers["location"] == "/"
        form = await http.get("/login", params={"next": to})
        assert "evil" not in form.text and "alert" not in form.text


async def test_only_our_own_pages_change_anything_with_a_login(app: KeyedApp) -> None:
    async with app.client() as http:
        await log_in(http, await app.key("anna"))
        body = {"bytes": 1, "filename": "f", "mime_type": "m", "purpose": "user_data"}
        for headers in ({}, {"origin": "null"}, {"origin": "http://127.0.0.1:9"}, {"origin": "https://evil.example"}):
            answer = await http.post("/v1/uploads", json=body, headers=headers)
            assert answer.status_code == 403, headers
        assert (await http.post("/v1/uploads", json=body, headers={"origin": ROOT})).status_code == 200
        # A key that is sent besides is the one that counts.
        assert (await http.get("/v1/files", headers={"x-api-key": "wrong"})).status_code == 401


async def test_a_session_ends_with_its_logout_its_key_and_its_time(
    app: KeyedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.client() as http:
        for ending in ("logout", "revoked", "expired"):
            key = await app.key(ending, Role.ADMIN)
            await log_in(http, key)
            token = http.cookies[logins.COOKIE]
            assert (await http.get("/v1/files")).status_code == 200
            if ending == "logout":
                answer = await http.post("/logout", headers={"origin": ROOT})
                assert answer.status_code == 303 and logins.COOKIE not in http.cookies
                http.cookies.set(logins.COOKIE, token)
            elif ending == "revoked":
                await app.gate.keyring.revoke(ending)
            else:
                later = time.time() + logins.LIFETIME_SECONDS + 1
                monkeypatch.setattr(logins.time, "time", lambda later=later: later)
            gone = await http.get("/v1/files")
            assert gone.status_code == 401, ending
            assert (await http.get("/", headers=PAGE)).status_code == 303
            http.cookies.clear()
        for cookie in ("", "x", "\udcff", "a" * 5000):
            headers = {"cookie": f"{logins.COOKIE}={cookie}".encode("utf-8", "surrogateescape")}
            assert (await http.get("/v1/files", headers=headers)).status_code == 401


async def test_wrong_keys_are_slowed_down_and_the_right_one_is_not(app: KeyedApp) -> None:
    key = await app.key("anna")
    async with app.client() as http:
        answers = [await log_in(http, f"wrong {number}") for number in range(logins.MAX_FAILURES + 3)]
        assert [each.status_code for each in answers[:-3]] == [401] * logins.MAX_FAILURES
        assert {each.status_code for each in answers[-3:]} == {429} and int(answers[-1].headers["retry-after"]) > 0
        assert 'role="alert"' in answers[0].text and "wrong 0" not in answers[0].text
        assert (await log_in(http, key)).status_code == 303
    noted = [entry.action for entry in await app.gate.audit_log.newest(100)]
    assert noted == ["login", *["login refused"] * logins.MAX_FAILURES, "key added"]


async def test_of_where_a_login_comes_from_as_much_is_kept_as_an_address_has(app: KeyedApp) -> None:
    """A program beside the server may say that it is a proxy, and anything of who asks it."""
    transport = httpx.ASGITransport(app.app, client=("a" * 60_000, 0))
    key = await app.key("anna")
    async with httpx.AsyncClient(transport=transport, base_url=ROOT) as http:
        for given in ("wrong", key):
            await log_in(http, given)
        assert (await http.delete("/v1/files/file-1", headers={"x-api-key": key})).status_code == 404
    noted = [entry.address for entry in await app.gate.audit_log.newest(3)]
    assert all(each is not None and each.startswith("aaa") and len(each) < 300 for each in noted)


async def test_a_login_form_is_small_and_may_hold_anything(app: KeyedApp) -> None:
    async with app.client() as http:
        for content, status in ((b"", 401), (b"key=%ff%00", 401), (b"\xff\xfe", 401), (b"key=" + b"x" * 20_000, 413)):
            answer = await http.post("/login", content=content, headers={"origin": ROOT, **PAGE})
            assert answer.status_code == status, content[:10]
        many = await http.post("/login", content=b"&".join(b"a=1" for _ in range(100)), headers=PAGE)
        assert many.status_code == 401


async def test_what_a_login_is_being_sent_ends_with_its_logout(app: KeyedApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_LOOKED_AT_AGAIN", 0.0)
    login = await app.gate.logins.log_in(await app.key("anna"), None)
    pieces: list[bytes] = []
    one_piece = asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message.get("body"):
            pieces.append(message["body"])
            one_piece.set()

    cookie = f"{logins.COOKIE}={login.token}".encode()
    scope = {
        "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"cookie", cookie)], "client": ("::1", 1),
        "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    streaming = asyncio.create_task(app.app(scope, receive, send))
    await one_piece.wait()
    await app.gate.logins.log_out(login.token)
    before = len(pieces)
    async with app.client(await app.key("clara", Role.ADMIN)) as admin:
        await Owner(app, admin).batch()
    async with asyncio.timeout(20):
        await streaming
    assert len(pieces) == before


async def test_no_other_page_logs_its_visitor_in_or_out(tmp_path: Path) -> None:
    """Also one that may call the server, with a key of its own."""
    ally = "http://ally.example:3000"
    async with keyed_app(tmp_path, ally) as app, app.client() as http:
        key = await app.key("anna")
        for origin in (ally, "null", "https://evil.example"):
            for path in ("/login", "/logout"):
                answer = await http.post(path, data={"key": key}, headers={"origin": origin})
                assert answer.status_code == 403 and "set-cookie" not in answer.headers, (origin, path)
        assert (await http.get("/v1/files", headers={"origin": ally, "x-api-key": key})).status_code == 200
        assert (await log_in(http, key)).status_code == 303
