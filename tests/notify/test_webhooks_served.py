"""Webhooks of a real server: the official client verifies them, nobody else learns the secrets, no kill loses one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from receiver import SECRET, Received, Receiver, status

from gristmill.batches.host import BatchHost, HostSettings
from gristmill.cli.webhook_options import settings
from gristmill.engines.registry import EngineSettings
from gristmill.notify.signature import new_secret
from gristmill.notify.webhooks import WebhookSettings
from gristmill.storage.open import StorageSettings
from gristmill.storage.records import FileRecord, file_blob
from gristmill.user_error import UserError
from gristmill.wire.batch import CreateBatchRequest
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

KILLED_BEFORE = Path(__file__).parents[1] / "reliability" / "killed_before.py"
ALLOW = ("--allow-webhook-host", "127.0.0.1")


class Served(NamedTuple):
    server: ServerProcess
    own: Receiver
    client: openai.OpenAI
    http: httpx.Client

    def create(self, rows: int = 2, webhook: dict[str, str] | None = None, **given: Any) -> Any:
        file = self.client.files.create(file=("a.jsonl", chat_file(rows)), purpose="batch")
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | given
        return self.client.batches.create(**body, extra_body={"webhook": webhook} if webhook else {})

    def told(self, batch_id: str) -> list[Received]:
        return [each for each in self.own.received if json.loads(each.body)["data"]["id"] == batch_id]

    def deliveries(self, **query: str) -> list[dict[str, Any]]:
        return list(self.http.get("/webhook_deliveries", params=query).json()["data"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("webhooks")
    (folder / "secret").write_text(f"{SECRET}\n")
    with Receiver() as own:
        url = f"{own.url}?token=of-the-server"
        options = ("--webhook", url, "--webhook-secret-file", str(folder / "secret"), *ALLOW, "-O", "latency=0.05")
        with ServerProcess(folder / "data", *options) as server, httpx.Client(base_url=server.base_url) as http:
            yield Served(server, own, server.client(), http)


def wait_for(holds: Any) -> Any:
    deadline = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_every_end_is_told_once_and_the_official_client_verifies_it(served: Served) -> None:
    ends = {
        "completed": served.create().id,
        "failed": served.client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h").id,
        "cancelled": served.create(rows=5_000).id,
    }
    served.client.batches.cancel(ends["cancelled"])
    for how, batch_id in ends.items():
        (told,) = wait_for(lambda batch_id=batch_id: served.told(batch_id))
        event: Any = told.unwrap()
        batch = served.client.batches.retrieve(batch_id)
        assert type(event).__name__ == f"Batch{how.capitalize()}WebhookEvent"
        assert (event.type, event.data.id, event.object) == (f"batch.{how}", batch_id, "event")
        assert event.id == told.id and event.created_at == getattr(batch, f"{how}_at")
        with pytest.raises(openai.InvalidWebhookSignatureError):
            told.unwrap(new_secret())
        with pytest.raises(openai.InvalidWebhookSignatureError):
            told._replace(body=told.body + b" ").unwrap()


def test_a_batchs_own_webhook_is_signed_with_a_secret_that_is_shown_once(served: Served) -> None:
    with Receiver() as receiver:
        webhook = {"url": f"{receiver.url}?token=of-the-batch"}
        headers = {"Idempotency-Key": "once"}
        file = served.client.files.create(file=("a.jsonl", chat_file(2)), purpose="batch").id
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "webhook": webhook}
        answer = served.http.post("/batches", json=body, headers=headers).json()
        told = answer["gristmill"]["webhook"]
        assert told["url"] == f"{receiver.url}?..." and told["secret"].startswith("whsec_")
        # Whoever asks again because the answer was lost gets it again.
        assert served.http.post("/batches", json=body, headers=headers).json() == answer
        (received,) = receiver.wait(1)
        event: Any = received.unwrap(told["secret"])
        assert event.data.id == answer["id"] and received.path == "/hook?token=of-the-batch"
        delivery, own = served.deliveries(batch_id=answer["id"])
        assert (delivery["url"], own["url"]) == (f"{receiver.url}?...", None)
        assert delivery["event_id"] == own["event_id"] == event.id
        given = new_secret()
        supplied = served.create(webhook={"url": receiver.url, "secret": given})
        assert supplied.gristmill["webhook"] == {"url": receiver.url}
        receiver.wait(2)[1].unwrap(given)
    shown = [
        served.http.get(path).text
        for path in (f"/batches/{answer['id']}", "/batches", "/webhook_deliveries", f"/webhook_deliveries/{own['id']}")
    ]
    for text in (*shown, "".join(served.server.log)):
        for secret in (told["secret"], given, SECRET, "of-the-batch", "of-the-server"):
            assert secret.removeprefix("whsec_") not in text
        assert answer["id"] in text


@pytest.mark.parametrize(
    ("webhook", "param", "why"),
    [
        ({"url": "http://10.0.0.1/"}, "webhook.url", "not on the public internet"),
        ({"url": "http://2130706434/"}, "webhook.url", "neither a name nor an address"),
        ({"url": "https://u:p@a.example/"}, "webhook.url", "a name and a password"),
        ({"url": "ftp://a.example/"}, "webhook.url", "begin with https://"),
        ({"url": "https://a.example/", "secret": "short"}, "webhook.secret", "'gristmill webhooks secret' makes one"),
        ({"url": "https://a.example/", "secret": "whsec_AAAA"}, "webhook.secret", "24 to 64 random bytes"),
        ({"url": "https://a.example/" + "x" * 2048}, "webhook.url", "at most 2048 characters"),
        ({}, "webhook.url", "Missing required parameter"),
        ({"url": "https://a.example/", "name": "x"}, "webhook.name", "Unrecognized"),
        ("https://a.example/", "webhook", "expected an object"),
    ],
)  # fmt: skip
def test_a_webhook_that_cannot_be_is_refused_when_the_batch_is_created(
    served: Served, webhook: Any, param: str, why: str
) -> None:
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", "webhook": webhook}
    answer = served.http.post("/batches", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param and why in error["message"]
    assert "short" not in error["message"] and "u:p" not in error["message"]


def test_an_event_is_sent_again_by_hand_with_the_same_id(served: Served) -> None:
    with Receiver(status(410), status(200)) as receiver:
        batch = served.create(webhook={"url": receiver.url, "secret": SECRET})
        (dead,) = wait_for(lambda: served.deliveries(batch_id=batch.id, status="dead"))
        assert (dead["last_status"], dead["last_error"]) == (410, "It answered 410.")
        command = [sys.executable, "-m", "gristmill", "webhooks"]
        to = ["--server", served.server.base_url]
        listed = subprocess.run([*command, "dead", *to], capture_output=True, text=True, timeout=60)
        assert dead["id"] in listed.stdout and "It answered 410." in listed.stdout, listed.stderr
        sent = subprocess.run([*command, "resend", "--dead", *to], capture_output=True, text=True, timeout=60)
        assert sent.stdout == f"{dead['id']} is sent again.\n", sent.stderr
        first, second = receiver.wait(2)
        assert (first.id, first.body) == (second.id, second.body)
        second.unwrap()
        wait_for(lambda: len(served.deliveries(batch_id=batch.id, status="delivered")) == 2)
        metrics = httpx.get(f"{served.server.base_url.removesuffix('/v1')}/metrics").text
        assert 'gristmill_webhook_deliveries_total{outcome="dead"} 1.0' in metrics
        for words, what in ((["resend", "whd_none"], "No webhook delivery found"), (["resend"], "Name the deliveries")):
            failed = subprocess.run([*command, *words, *to], capture_output=True, text=True, timeout=60)
            assert failed.returncode == 2 and what in failed.stderr


def test_submit_shows_the_secret_that_it_made(served: Served, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(chat_file(2))
    with Receiver() as receiver:
        command = [sys.executable, "-m", "gristmill", "batches", "submit", "in.jsonl", "--webhook", receiver.url]
        command += ["--server", served.server.base_url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        _, _, secret = done.stderr.strip().partition("shown only now: ")
        event: Any = receiver.wait(1)[0].unwrap(secret)
        assert event.data.id == done.stdout.strip()


def test_a_run_tells_its_end_before_it_is_over(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(chat_file(2))
    (tmp_path / "secret").write_text(SECRET)
    command = [sys.executable, "-m", "gristmill", "run", "in.jsonl", "--engine", "simulated", "--overwrite"]
    command += ["--webhook-secret-file", "secret", *ALLOW]
    with Receiver(status(500), status(200)) as receiver:
        done = subprocess.run(
            [*command, "-o", "out.jsonl", "--webhook", receiver.url],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0 and "The webhook has been told." in done.stderr, done.stderr
        first, second = receiver.received
        assert first.id == second.id
        second.unwrap()


def test_a_run_whose_end_nobody_takes_says_so_and_that_it_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(chat_file(2))
    (tmp_path / "secret").write_text(SECRET)
    command = [sys.executable, "-m", "gristmill", "run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated"]
    command += ["--webhook-secret-file", "secret", *ALLOW]
    with Receiver(status(410)) as receiver:
        done = subprocess.run(
            [*command, "--webhook", receiver.url], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0 and (tmp_path / "out.jsonl").exists()
    said = " ".join(done.stderr.split())
    assert "The webhook was not told: It answered 410." in said and "this is not tried again" in said


@pytest.mark.parametrize(
    ("url", "file", "allowed", "why"),
    [
        ("https://a.example/", None, [], "A webhook needs a secret"),
        ("http://127.0.0.1:9/?x=1", "secret", [], "http://127.0.0.1:9/?... cannot be used: 127.0.0.1 is not on"),
        ("http://127.0.0.1:9/?x=1", "secret", ["127.0.0.1:10"], "is not on the public internet"),
        ("https://a.example/", "bad", [], "secret cannot be used"),
        ("https://a.example/", "none", [], "cannot be read from"),
        (None, None, ["http://x"], "--allow-webhook-host takes a name"),
    ],
)
async def test_a_server_says_what_is_wrong_with_its_webhook_and_does_not_start(
    tmp_path: Path, url: str | None, file: str | None, allowed: list[str], why: str
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "bad").write_text("hunter2")
    with pytest.raises(UserError, match=re.escape(why)) as told:
        webhooks = settings(url, tmp_path / file if file else None, allowed)
        await BatchHost(HostSettings(StorageSettings(tmp_path), EngineSettings("simulated"), webhooks=webhooks)).start()
    assert "hunter2" not in str(told.value) and "x=1" not in str(told.value)


def test_the_receiver_of_the_guide_works(served: Served, tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "webhooks.md"
    code = guide.read_text().partition("```python\n")[2].partition("```")[0]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for written, here in (("http://127.0.0.1:4080/v1", served.server.base_url), ("9000", str(port))):
        assert written in code
        code = code.replace(written, here)
    environment = os.environ | {"GRISTMILL_WEBHOOK_SECRET": SECRET}
    receiver = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        webhook = {"url": f"http://127.0.0.1:{port}/", "secret": SECRET}
        batch = served.create(webhook=webhook)
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == f"batch.completed {batch.id} 2 rows answered\n"
        url = webhook["url"]
        wait_for(lambda: url in [each["url"] for each in served.deliveries(batch_id=batch.id, status="delivered")])
        assert httpx.post(url, content=b"{}").status_code == 400
        unsigned = {"webhook-id": "x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,x"}
        assert httpx.post(url, content=b"{}", headers=unsigned).status_code == 400
    finally:
        receiver.kill()
        receiver.wait()


class DyingServer(ServerProcess):
    """Kills itself just before it stores what came of its first delivery."""

    program = (sys.executable, str(KILLED_BEFORE), "gristmill.storage.sql.deliveries:SqlDeliveries.record", "1")


def test_a_kill_between_a_delivery_and_its_record_delivers_again_with_the_same_id(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    with Receiver() as receiver:
        options = ("--webhook", receiver.url, "--webhook-secret-file", str(tmp_path / "secret"), *ALLOW)
        dying = DyingServer(tmp_path / "data", *options).start()
        client = dying.client()
        file = client.files.create(file=("a.jsonl", chat_file(2)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        receiver.wait(1)
        assert wait_for(lambda: not dying.alive())
        with ServerProcess(tmp_path / "data", *options) as server:
            first, second = receiver.wait(2)
            assert (first.id, first.body) == (second.id, second.body)
            event: Any = second.unwrap()
            assert event.data.id == batch.id
            http = httpx.Client(base_url=server.base_url)
            wait_for(lambda: http.get("/webhook_deliveries").json()["data"][0]["status"] == "delivered")
        assert len(receiver.received) == 2


async def test_a_batch_whose_window_ends_while_no_server_runs_is_told_as_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offset = time.time, 0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    with Receiver() as receiver:
        webhooks = WebhookSettings(receiver.url, SECRET, ["127.0.0.1"])
        engine = EngineSettings("simulated", options={"latency": "60"})
        of_host = HostSettings(StorageSettings(tmp_path / "data"), engine, stop_grace=0, webhooks=webhooks)
        assert SECRET not in repr(of_host)

        async def chunks() -> Any:
            yield chat_file(2)

        host = BatchHost(of_host)
        await host.start()
        async with host.storage.new_blobs.begin(file_blob("file-1")) as write:
            record = FileRecord("file-1", await write(chunks()), 1, "in.jsonl", "batch")
            await host.storage.metadata.files.add(record)
        batch = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
        await host.stop()
        offset = 25 * 3600
        host = BatchHost(of_host)
        await host.start()
        (received,) = await asyncio.to_thread(receiver.wait, 1)
        await host.stop()
        body = json.loads(received.body)
        assert (body["type"], body["data"]["id"]) == ("batch.expired", batch.id)
        # Signed by the clock as it is then.
        assert int(received.headers["webhook-timestamp"]) >= real() + offset - 60
