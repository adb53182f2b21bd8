"""The public client, against a real server, and through a proxy that breaks what it is told to break."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flaky_proxy as broken
import gristmill
from flaky_proxy import FlakyProxy
from gristmill.client import Client, Silence
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest
from requests_jsonl import CHAT, chat_file, chat_line, jsonl
from server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("data")
    started = ServerProcess(data, "-O", "fail_on=bad", "-O", "failure_kind=invalid_request").start()
    yield started
    started.stop()


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FlakyProxy]:
    with FlakyProxy(server.base_url) as running:
        yield running


def test_a_file_in_and_its_answers_out(server: ServerProcess, tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": text}] for text in ("good", "bad", "fine")]
    rows = [chat_line(f"row-{i}", messages=each) for i, each in enumerate(messages)]
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows))
    client = gristmill.Client(server.base_url)
    seen: list[str] = []
    batch = client.submit(tmp_path / "rows.jsonl", metadata={"job": "first"}, defaults={"max_tokens": 3})
    batch = client.wait(batch, lambda found: seen.append(found.status))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)
    assert batch.metadata == {"job": "first"} and seen
    written = client.save(batch, tmp_path / "answers.jsonl")
    assert [path.name for path in written] == ["answers.jsonl", "answers.errors.jsonl"]
    ids = [[json.loads(line)["custom_id"] for line in path.read_text().splitlines()] for path in written]
    assert ids == [["row-0", "row-2"], ["row-1"]]
    assert client.page(1).data[0].id == batch.id


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_an_address_does_with_and_without_v1_and_without_a_scheme(server: ServerProcess, ending: str) -> None:
    address = server.base_url.removesuffix("/v1") + ending
    for given in (address, address.removeprefix("http://")):
        client = gristmill.Client(given)
        assert (client.models(), client.server) == (["simulated"], server.base_url)


def test_an_address_with_another_path_is_left_as_it_is() -> None:
    assert gristmill.Client("https://api.example.com/v1beta/openai/").server == "https://api.example.com/v1beta/openai"


@pytest.mark.parametrize("given", ["", "http://", "ftp://x", "http://x:port", "http://x/v1?key=1", "a b://c"])
def test_what_is_no_address_is_a_sentence(given: str) -> None:
    with pytest.raises(UserError, match="is not a server's URL: write it like http://127.0.0.1:4080"):
        gristmill.Client(given)


def test_what_goes_wrong_is_one_sentence(server: ServerProcess, tmp_path: Path) -> None:
    client = gristmill.Client(server.base_url)
    with pytest.raises(UserError, match="No batch found with id 'none'"):
        client.get("none")
    with pytest.raises(UserError, match="No server answers at"):
        gristmill.Client("http://127.0.0.1:1/v1").models()


# Following a batch


def submitted(client: Client, tmp_path: Path, rows: int = 20) -> Batch:
    (tmp_path / "rows.jsonl").write_bytes(chat_file(rows))
    return client.submit(tmp_path / "rows.jsonl")


def test_polls_that_fail_are_repeated_and_the_silence_is_told(proxy: FlakyProxy, tmp_path: Path) -> None:
    client = Client(proxy.base_url)
    batch = submitted(client, tmp_path)
    proxy.faults.extend([broken.reset, broken.bad_gateway, broken.unavailable, broken.maintenance, broken.lose_answer])
    silences: list[Silence] = []
    began = time.time()
    assert client.wait(batch, no_answer=silences.append).status == "completed"
    assert len(silences) == 5
    assert all(each.since <= began + 5 and each.since == silences[0].since for each in silences)
    assert "502" in silences[1].reason and "503" in silences[2].reason


def test_a_batch_is_watched_through_a_restart_of_its_server(data: Path, tmp_path: Path) -> None:
    slow = ("-O", "latency=0.1", "-O", "slots=2")
    with ServerProcess(data, *slow) as server:
        port = int(server.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
        client = Client(server.base_url)
        batch = submitted(client, tmp_path, 60)
        ended: list[Batch] = []
        silences: list[Silence] = []
        watching = threading.Thread(target=lambda: ended.append(client.wait(batch, no_answer=silences.append)))
        watching.start()
        server.kill()
        while not silences:
            time.sleep(0.05)
        with ServerProcess(data, *slow, "--port", str(port)):
            watching.join(120)
    assert [each.status for each in ended] == ["completed"]
    assert ended[0].request_counts.completed == 60


def test_a_refusal_ends_the_watching(proxy: FlakyProxy, tmp_path: Path) -> None:
    client = Client(proxy.base_url)
    batch = submitted(client, tmp_path)
    batch.id = "batch_gone"
    with pytest.raises(UserError, match="No batch found with id 'batch_gone'"):
        client.wait(batch)


# Creating


def test_an_upload_whose_answer_was_lost_is_one_file(proxy: FlakyProxy, server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(chat_file(3))
    before = {file.id for file in server.client().files.list()}
    proxy.faults.extend([broken.lose_answer, broken.forward])
    file = Client(proxy.base_url).upload(tmp_path / "rows.jsonl")
    assert proxy.seen.count("POST /v1/files") == 2
    assert {each.id for each in server.client().files.list()} - before == {file.id}


def test_a_batch_whose_creation_was_not_confirmed_is_found_and_not_created_twice(
    proxy: FlakyProxy, tmp_path: Path
) -> None:
    client = Client(proxy.base_url)
    (tmp_path / "rows.jsonl").write_bytes(chat_file(3))
    file = client.upload(tmp_path / "rows.jsonl")
    request = CreateBatchRequest(file.id, CHAT, "24h")
    earlier = client.create(request)
    forward, lost = broken.forward, broken.lose_answer
    proxy.faults.extend([forward, lost])  # The newest batch is asked for first.
    batch = client.create(request)
    assert batch.id != earlier.id
    created = [each.id for each in client.page(100).data if each.input_file_id == file.id]
    assert created == [batch.id, earlier.id]


@pytest.mark.parametrize("fault", [broken.reset, broken.bad_gateway])
def test_a_creation_that_may_have_failed_is_not_repeated_but_told(
    proxy: FlakyProxy, tmp_path: Path, fault: broken.Fault
) -> None:
    client = Client(proxy.base_url)
    (tmp_path / "rows.jsonl").write_bytes(chat_file(3))
    file = client.upload(tmp_path / "rows.jsonl")
    proxy.faults.extend([broken.forward, fault])
    with pytest.raises(UserError, match="no such batch is on the server") as caught:
        client.create(CreateBatchRequest(file.id, CHAT, "24h"))
    assert "gristmill batches list" in str(caught.value)
    assert proxy.seen.count("POST /v1/batches") == 1
    assert not [each for each in client.page(100).data if each.input_file_id == file.id]


def test_a_creation_the_server_put_off_is_repeated(proxy: FlakyProxy, tmp_path: Path) -> None:
    client = Client(proxy.base_url)
    (tmp_path / "rows.jsonl").write_bytes(chat_file(3))
    file = client.upload(tmp_path / "rows.jsonl")
    proxy.faults.extend([broken.forward, broken.unavailable, broken.unavailable])
    client.create(CreateBatchRequest(file.id, CHAT, "24h"))
    assert len([each for each in client.page(100).data if each.input_file_id == file.id]) == 1


# Downloading


@pytest.fixture(scope="module")
def stored(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """A file on the server: its id and content."""
    path = tmp_path_factory.mktemp("input") / "rows.jsonl"
    path.write_bytes(chat_file(2_000))
    return Client(server.base_url).upload(path).id, path.read_bytes()


@pytest.mark.parametrize("resumed", [broken.forward, broken.without_range], ids=["range", "whole file"])
def test_a_download_that_breaks_goes_on_and_is_whole(
    proxy: FlakyProxy, stored: tuple[str, bytes], tmp_path: Path, resumed: broken.Fault
) -> None:
    file_id, content = stored
    proxy.faults.extend([broken.forward, broken.cut_after(100_000), broken.bad_gateway, resumed])
    Client(proxy.base_url).download(file_id, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["got"]


def test_a_server_that_never_sends_ranges_is_downloaded_from(
    proxy: FlakyProxy, stored: tuple[str, bytes], tmp_path: Path
) -> None:
    file_id, content = stored
    proxy.always = broken.without_range
    (tmp_path / f"got.{file_id}.part").write_bytes(content[:1000])
    Client(proxy.base_url).download(file_id, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content


def test_what_an_earlier_download_left_is_gone_on_from(
    proxy: FlakyProxy, stored: tuple[str, bytes], tmp_path: Path
) -> None:
    file_id, content = stored
    (tmp_path / f"got.{file_id}.part").write_bytes(content[:250_000])
    received: list[tuple[int, int]] = []
    Client(proxy.base_url).download(file_id, tmp_path / "got", lambda *progress: received.append(progress))
    assert (tmp_path / "got").read_bytes() == content
    assert proxy.headers[-1]["range"] == "bytes=250000-"
    assert received[0][0] > 250_000 and received[-1] == (len(content), len(content))


def test_a_download_that_stays_broken_keeps_what_it_has(
    proxy: FlakyProxy, stored: tuple[str, bytes], tmp_path: Path
) -> None:
    file_id, content = stored
    client = Client(proxy.base_url, patience=0.5)
    proxy.faults.extend([broken.forward, broken.cut_after(100_000)])
    proxy.always = broken.bad_gateway
    with pytest.raises(UserError, match="502"):
        client.download(file_id, tmp_path / "got")
    (part,) = tmp_path.iterdir()
    assert part.name == f"got.{file_id}.part" and part.read_bytes() == content[: part.stat().st_size] != b""


def test_a_file_shorter_than_it_should_be_is_never_delivered(
    proxy: FlakyProxy, stored: tuple[str, bytes], tmp_path: Path
) -> None:
    file_id, content = stored

    def short(handler: broken.Handler) -> None:
        handler.reply(200, [], content[:1000])

    proxy.faults.append(broken.forward)
    proxy.always = short
    with pytest.raises(UserError, match=f"1,000 of the file's {len(content):,} bytes"):
        Client(proxy.base_url, patience=0.5).download(file_id, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_two_downloads_to_one_place_do_not_mix(proxy: FlakyProxy, stored: tuple[str, bytes], tmp_path: Path) -> None:
    file_id, content = stored
    hold = threading.Event()

    def held(handler: broken.Handler) -> None:
        hold.wait(30)
        broken.forward(handler)

    proxy.faults.extend([broken.forward, held])
    client = Client(proxy.base_url)
    first = threading.Thread(target=client.download, args=(file_id, tmp_path / "got"))
    first.start()
    while len(proxy.seen) < 2:
        time.sleep(0.01)
    with pytest.raises(UserError, match="is being downloaded by another"):
        Client(proxy.base_url).download(file_id, tmp_path / "got")
    hold.set()
    first.join(30)
    assert (tmp_path / "got").read_bytes() == content


def test_a_place_that_cannot_be_written_is_a_sentence(
    server: ServerProcess, stored: tuple[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        Client(server.base_url).download(stored[0], tmp_path / "none" / "got")


# Scoring


def test_a_proxy_that_is_unavailable_does_not_mean_that_the_engine_cannot_score(proxy: FlakyProxy) -> None:
    proxy.faults.extend([broken.unavailable, broken.bad_gateway, broken.reset])
    assert Client(proxy.base_url).can_score("simulated") is True
    proxy.always = broken.unavailable
    with pytest.raises(UserError, match="503"):
        Client(proxy.base_url, patience=0.5).can_score("simulated")


def test_a_server_without_scores_cannot_score(proxy: FlakyProxy) -> None:
    for status in (404, 405, 400, 422):
        proxy.always = lambda handler, status=status: handler.reply(status, [], b'{"detail":"Not Found"}')
        assert Client(proxy.base_url).can_score("simulated") is False


# The API key


def test_the_api_key_is_sent_and_never_printed(
    proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRISTMILL_API_KEY", "from-environment")
    Client(proxy.base_url).models()
    Client(proxy.base_url, api_key="as-argument").models()
    assert [headers["authorization"] for headers in proxy.headers] == ["Bearer from-environment", "Bearer as-argument"]

    def unauthorized(handler: broken.Handler) -> None:
        message = f"Incorrect API key: {handler.headers['Authorization']}"
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        handler.reply(401, [], json.dumps(body).encode())

    proxy.always = unauthorized
    client = Client(proxy.base_url, api_key="sk-1234567890")
    with pytest.raises(UserError, match="Incorrect API key") as caught:
        client.models()
    assert "sk-1234567890" not in str(caught.value) and "sk-1234567890" not in repr(client)


def test_a_missing_key_is_told(proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRISTMILL_API_KEY", raising=False)
    proxy.always = lambda handler: handler.reply(401, [], b"<html>Authorization required</html>")
    with pytest.raises(UserError, match="GRISTMILL_API_KEY"):
        Client(proxy.base_url).models()
    assert "authorization" not in proxy.headers[-1]


@pytest.mark.parametrize("key", ["new\nline", "umläut", "two words"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_printed(key: str) -> None:
    with pytest.raises(UserError, match="API key") as caught:
        Client("http://127.0.0.1:1/v1", api_key=key)
    assert key not in str(caught.value)


def test_a_password_in_the_address_is_never_printed() -> None:
    with pytest.raises(UserError, match="No server answers at") as caught:
        Client("http://me:secret@127.0.0.1:1/v1").models()
    assert "secret" not in str(caught.value)
