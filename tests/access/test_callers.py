"""Who may do what: roles, limits, the end of a key, and what is noted of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from keyed_app import MESSAGE, ROOT, KeyedApp, Owner, keyed_app
from starlette.types import Message

from gristmill.access.caller import Role
from gristmill.api import authentication
from gristmill.batches import runner
from gristmill.storage.records import FileRecord
from gristmill.storage.scope import EVERYTHING
from gristmill.storage.sql.access_keys import SqlAccessKeys
from gristmill.user_error import UserError
from requests_jsonl import CHAT, chat_file


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[KeyedApp]:
    async with keyed_app(tmp_path) as made:
        yield made


async def test_a_key_comes_in_either_header(app: KeyedApp) -> None:
    key = await app.key("anna")
    good: list[dict[str, str]] = [
        {"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}, {"x-api-key": key},
        {"authorization": "Basic cHJveHk6cHJveHk=", "x-api-key": key}, {"authorization": "Bearer ", "x-api-key": key},
    ]  # fmt: skip
    bad: list[dict[str, str]] = [
        {}, {"authorization": key}, {"authorization": f"Basic {key}"}, {"x-api-key": key[:-1]}, {"api-key": key},
        {"authorization": f"Bearer {key}{key}"}, {"authorization": "Bearer wrong", "x-api-key": key},
    ]  # fmt: skip
    async with app.client() as http:
        for headers in good:
            assert (await http.get("/v1/models", headers=headers)).status_code == 200, headers
        for headers in bad:
            answer = await http.get("/v1/models", headers=headers)
            assert answer.status_code == 401, headers
            assert key not in answer.text and answer.json()["error"]["code"] == "invalid_api_key"
        assert (await http.get(f"/v1/models?api_key={key}")).status_code == 401
        raw = [(b"authorization", b"Bearer \xff\xfe\x00")]
        assert (await http.get("/v1/models", headers=raw)).status_code == 401


async def test_a_read_only_key_changes_nothing_and_sees_what_it_was_made_for(app: KeyedApp) -> None:
    keys = {"user": await app.key("user"), "admin": await app.key("admin", Role.ADMIN)}
    for of in ("user", "admin"):
        keys[f"wall of {of}"] = await app.key(f"wall-{of}", Role.READ_ONLY, made_for=of)
    async with app.client(keys["user"]) as user, app.client(keys["admin"]) as admin:
        of_user, of_admin = await Owner(app, user).file(), await Owner(app, admin).file()
    for of, seen in (("wall of user", {of_user}), ("wall of admin", {of_user, of_admin})):
        async with app.client(keys[of]) as wall:
            assert {each["id"] for each in (await wall.get("/v1/files")).json()["data"]} == seen
            assert (await wall.get(f"/v1/files/{of_user}/content")).content == chat_file(2)
            for method, path in (("DELETE", f"/v1/files/{of_user}"), ("POST", "/v1/chat/completions")):
                answer = await wall.request(method, path, json={})
                assert answer.status_code == 403 and answer.json()["error"]["code"] == "missing_scope"
            answer = await wall.post("/v1/messages", json=MESSAGE)
            assert answer.status_code == 403 and answer.json()["error"]["type"] == "permission_error"
    with pytest.raises(UserError, match="no key 'nobody'"):
        await app.key("more", Role.READ_ONLY, made_for="nobody")


async def test_an_admin_changes_what_is_anybodys_and_it_stays_theirs(app: KeyedApp) -> None:
    user_key, admin_key = await app.key("user"), await app.key("admin", Role.ADMIN)
    async with app.client(user_key) as user, app.client(admin_key) as admin:
        owner = Owner(app, user)
        upload = await owner.upload()
        part = await owner.part(upload)
        done = await admin.post(f"/v1/uploads/{upload}/complete", json={"part_ids": [part]})
        assert (await user.get(f"/v1/files/{done.json()['file']['id']}")).status_code == 200
        batch = await owner.batch()
        output = (await admin.get(f"/v1/batches/{batch}")).json()["output_file_id"]
        assert (await user.get(f"/v1/files/{output}/content")).status_code == 200
        assert (await admin.delete(f"/v1/files/{output}")).status_code == 200
        assert (await user.get(f"/v1/files/{output}")).status_code == 404
        # What was made before there were keys is the admins'.
        kept = await app.host.storage.metadata.files.page(after=None, limit=9, newest_first=True, purpose=None)
        assert {record.key_id for record in kept.records} == {(await app.gate.keyring.find("user")).id}
        await app.host.storage.metadata.files.add(FileRecord("file-before", 1, 1, "a", "user_data"))
        assert (await admin.get("/v1/files/file-before")).status_code == 200
        assert (await user.get("/v1/files/file-before")).status_code == 404


async def test_a_revoked_key_is_gone_at_once_also_from_what_it_is_being_sent(
    app: KeyedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await app.key("anna")
    async with app.client(key) as http:
        assert (await http.get("/v1/files")).status_code == 200
        await app.gate.keyring.revoke("anna")
        assert (await http.get("/v1/files")).status_code == 401
    # One that reads a stream of events meanwhile: looked at again before each piece that is sent.
    monkeypatch.setattr(authentication, "_LOOKED_AT_AGAIN", 0.0)
    key = await app.key("berta")
    sent: list[Message] = []
    one_piece = asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body"):
            one_piece.set()

    scope = {
        "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {key}".encode())], "client": ("::1", 1),
        "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    streaming = asyncio.create_task(app.app(scope, receive, send))
    await one_piece.wait()
    await app.gate.keyring.revoke("berta")
    pieces = sum(bool(each.get("body")) for each in sent)
    # Something new for the page, which would be sent.
    async with app.client(await app.key("clara", Role.ADMIN)) as admin:
        await Owner(app, admin).batch()
    await streaming
    assert sum(bool(each.get("body")) for each in sent) == pieces


async def test_an_upload_ends_with_its_key(app: KeyedApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_LOOKED_AT_AGAIN", 0.0)
    async with app.client(await app.key("anna")) as http:

        async def form() -> AsyncIterator[bytes]:
            yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nbegun'
            await app.gate.keyring.revoke("anna")
            yield b" and ended\r\n--b--\r\n"

        kind = "multipart/form-data; boundary=b"
        answer = await http.post("/v1/files", content=form(), headers={"content-type": kind})
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    kept = await app.host.storage.metadata.files.page(after=None, limit=9, newest_first=True, purpose=None)
    assert kept.records == []


async def made_at_once(clients: int, ask: Any) -> list[httpx.Response]:
    return await asyncio.gather(*(ask() for _ in range(clients)))


async def test_a_key_holds_as_many_batches_as_it_may_also_when_all_are_asked_for_at_once(app: KeyedApp) -> None:
    async with app.client(await app.key("anna", Role.USER, None, None, 2)) as http:
        owner = Owner(app, http)
        body = {"input_file_id": await owner.file(), "endpoint": CHAT, "completion_window": "24h"}

        async def create() -> httpx.Response:
            made = await http.post("/v1/batches", json=body)
            if made.status_code == 200:
                await http.post(f"/v1/batches/{made.json()['id']}/pause")
            return made

        # Paused or not yet run, they count.
        app.host.supervisor.wake = lambda: None  # type: ignore[method-assign]
        made = await made_at_once(6, create)
        assert sorted(each.status_code for each in made) == [200, 200, 429, 429, 429, 429]
        refused = next(each for each in made if each.status_code == 429)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["x-should-retry"] == "false"
        entries = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
        message = await http.post("/v1/messages/batches", json=entries)
        assert message.status_code == 429 and message.json()["error"]["type"] == "rate_limit_error"
        started = next(each for each in made if each.status_code == 200).json()["id"]
        await http.post(f"/v1/batches/{started}/cancel")
        while (await http.get(f"/v1/batches/{started}")).json()["status"] not in ("cancelled", "completed"):
            await asyncio.sleep(0)
        assert (await http.post("/v1/batches", json=body)).status_code == 200
    async with app.client(await app.key("berta")) as http:
        assert await Owner(app, http).batch()


async def test_a_key_keeps_as_many_bytes_as_it_may_and_more_is_not_even_written(app: KeyedApp, tmp_path: Path) -> None:
    async with app.client(await app.key("anna", Role.USER, None, 1000)) as http:
        form: dict[str, Any] = {"data": {"purpose": "user_data"}}

        async def send(size: int) -> httpx.Response:
            return await http.post("/v1/files", **form, files={"file": ("a", b"x" * size)})

        first = await send(600)
        assert first.status_code == 200
        over = await send(401)
        assert over.status_code == 429 and over.headers["x-should-retry"] == "false"
        assert over.json()["error"]["code"] == over.json()["error"]["type"] == "insufficient_quota"
        assert "1,000 bytes" in over.json()["error"]["message"]
        assert len([each for each in (tmp_path / "data" / "blobs" / "files").iterdir() if each.is_file()]) == 1
        # Uploads are measured before their first byte, and part by part.
        wanted = {"filename": "f", "mime_type": "m", "purpose": "user_data"}
        assert (await http.post("/v1/uploads", json=wanted | {"bytes": 401})).status_code == 429
        upload = (await http.post("/v1/uploads", json=wanted | {"bytes": 400})).json()["id"]
        part = (await http.post(f"/v1/uploads/{upload}/parts", files={"data": b"x" * 400})).json()["id"]
        assert (await http.post(f"/v1/uploads/{upload}/parts", files={"data": b"x"})).status_code == 429
        assert (await send(1)).status_code == 429
        done = await http.post(f"/v1/uploads/{upload}/complete", json={"part_ids": [part]})
        assert done.status_code == 200, done.text
        assert (await send(1)).status_code == 429
        await http.delete(f"/v1/files/{first.json()['id']}")
        made = await made_at_once(4, lambda: send(200))
        assert sorted(each.status_code for each in made) == [200, 200, 200, 429]


async def test_a_key_has_as_many_rows_enqueued_as_it_may(app: KeyedApp) -> None:
    async with app.client(await app.key("anna", Role.USER, 3)) as http:
        created: list[str] = []

        async def ended(rows: int, until: tuple[str, ...]) -> dict[str, Any]:
            form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", chat_file(rows))}}
            file = (await http.post("/v1/files", **form)).json()["id"]
            body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
            created.append((await http.post("/v1/batches", json=body)).json()["id"])
            while True:
                batch: dict[str, Any] = (await http.get(f"/v1/batches/{created[-1]}")).json()
                if batch["status"] in until:
                    return batch
                await asyncio.sleep(0)

        alone = await ended(4, ("failed", "completed"))
        assert [each["code"] for each in alone["errors"]["data"]] == ["maximum_requests_exceeded"]
        app.host.dispatcher.engine.complete = stuck  # type: ignore[method-assign]
        await ended(2, ("in_progress",))
        together = await ended(2, ("failed", "in_progress"))
        (error,) = together["errors"]["data"]
        assert error["code"] == "token_limit_exceeded" and "Limit: 3 enqueued requests; 2 are" in error["message"]
        entries = {"requests": [{"custom_id": str(number), "params": MESSAGE} for number in range(2)]}
        message = await http.post("/v1/messages/batches", json=entries)
        assert message.status_code == 429 and "enqueued" in message.json()["error"]["message"]


async def test_rows_that_are_enqueued_while_a_batch_is_validated_count(
    app: KeyedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.client(await app.key("anna", Role.USER, 3)) as http:
        entries = {"requests": [{"custom_id": str(number), "params": MESSAGE} for number in range(2)]}
        validate, beside = runner.validate, list[int]()

        async def validate_slowly(*given: Any) -> Any:
            found = await validate(*given)
            if not beside:
                beside.append((await http.post("/v1/messages/batches", json=entries)).status_code)
            return found

        monkeypatch.setattr(runner, "validate", validate_slowly)
        file = await Owner(app, http).file()
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
        made = (await http.post("/v1/batches", json=body)).json()["id"]
        while (batch := (await http.get(f"/v1/batches/{made}")).json())["status"] not in ("failed", "completed"):
            await asyncio.sleep(0)
        assert beside == [200] and batch["status"] == "failed"
        assert [each["code"] for each in batch["errors"]["data"]] == ["token_limit_exceeded"]


async def test_tables_sent_at_once_keep_within_the_bytes_of_a_key(app: KeyedApp) -> None:
    async with app.client(await app.key("anna", Role.USER, None, 3000)) as http:
        table = b"name,points\n" + b"a,1\n" * 400

        async def send() -> httpx.Response:
            return await http.post("/scoring/new", files={"table": ("a.csv", table)})

        made = await made_at_once(3, send)
        assert sorted(each.status_code for each in made) == [303, 413, 413]
        store = app.app.state.scoring_jobs.store
        (job,) = store.all(EVERYTHING)
        assert [each.name for each in store.folder(job).parent.iterdir()] == [job.id]
        assert (await send()).status_code == 413
        assert (await http.post(f"/scoring/{job.id}/delete")).status_code == 303
        assert (await send()).status_code == 303


async def stuck(*_: object) -> Any:
    await asyncio.Event().wait()


async def test_what_a_key_changed_is_in_the_audit_log_and_what_it_only_asked_is_not(app: KeyedApp) -> None:
    async with app.client(await app.key("anna")) as http:
        file = await Owner(app, http).file()
        await http.get(f"/v1/files/{file}")
        await http.post("/v1/chat/completions", json={"model": "simulated", "messages": MESSAGE["messages"]})
        await http.delete(f"/v1/files/{file}")
        await http.delete("/v1/files/file-\N{SKULL AND CROSSBONES}" + "x" * 1000)
    anna = (await app.gate.keyring.find("anna")).id
    noted = await app.gate.audit_log.newest(10)
    told = [(entry.action, entry.key_id, entry.target, entry.address, entry.status) for entry in noted]
    delete = "DELETE /v1/files/{file_id}"
    assert told[1:] == [
        (delete, anna, file, "192.0.2.7", 200),
        ("POST /v1/files", anna, None, "192.0.2.7", 200),
        ("key added", None, anna, None, None),
    ]
    assert told[0][0] == delete and told[0][4] == 404 and len(told[0][2] or "") < 300


async def test_a_database_that_cannot_be_read_lets_nobody_in(app: KeyedApp, monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.storage.errors import StorageError

    key = await app.key("anna", Role.ADMIN)

    async def broken(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(SqlAccessKeys, "get", broken)
    async with app.client(key) as http:
        answer = await http.get("/v1/files")
        assert answer.status_code == 503 and "disk is gone" not in answer.text
        assert (await http.get("/health")).status_code == 200


async def test_a_browser_of_an_allowed_page_may_ask_whether_it_may_send_a_key_and_read_why_not(tmp_path: Path) -> None:
    page = "http://127.0.0.1:3000"
    async with keyed_app(tmp_path, page) as app, app.client(origin=page) as http:
        ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        allowed = await http.options("/v1/batches", headers=ask)
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == page
        refused = await http.get("/v1/batches")
        assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == page
        # With its user's login it may not even be a page of the same machine.
        assert "access-control-allow-credentials" not in refused.headers
        key = await app.key("anna")
        await http.post("/login", data={"key": key}, headers={"origin": ROOT})
        body = {"bytes": 1, "filename": "f", "mime_type": "m", "purpose": "user_data"}
        assert (await http.post("/v1/uploads", json=body)).status_code == 403
        assert (await http.post("/v1/uploads", json=body, headers={"x-api-key": key})).status_code == 200


async def test_a_page_offers_a_read_only_key_nothing_that_it_may_not_do(app: KeyedApp) -> None:
    owner = await app.key("owner")
    reader = await app.key("reader", Role.READ_ONLY, made_for="owner")
    async with app.client(owner) as http, app.client(reader) as reading:
        batch = await Owner(app, http).batch(ended=False)
        await http.post(f"/v1/batches/{batch}/pause")
        theirs, ours = [await each.get(f"/batches/{batch}") for each in (reading, http)]
        assert f'action="/batches/{batch}/cancel"' in ours.text
        assert theirs.status_code == 200 and "<form" not in theirs.text
