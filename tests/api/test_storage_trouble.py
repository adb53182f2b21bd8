from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from contract import check_error

from requests_jsonl import chat_file
from server_process import ServerProcess

MEGABYTE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder]).returncode:
        pytest.skip("needs the right to mount a small disk: run as root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MEGABYTE, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


def test_a_server_without_room_on_its_disk_is_not_ready_and_says_why(small_disk: Path) -> None:
    with ServerProcess(small_disk / "data") as server:
        ready = f"{server.base_url.removesuffix('/v1')}/ready"
        assert httpx.get(ready).json()["status"] == "ready"
        ballast = fill(small_disk)
        answer = httpx.get(ready)
        assert answer.status_code == 503
        assert "free some space" in answer.json()["reason"] and answer.json()["disk_free_bytes"] < MEGABYTE
        with pytest.raises(openai.APIStatusError) as full:
            server.client().files.create(file=bytes(3 * MEGABYTE), purpose="user_data")
        assert full.value.status_code == 507
        ballast.unlink()
        assert httpx.get(ready).status_code == 200


@pytest.mark.parametrize("size", [100, 9 * MEGABYTE])
@pytest.mark.parametrize("left", [0, 0.5, 0.999, None])
def test_a_file_whose_bytes_are_cut_off_or_gone_is_an_error_and_never_a_short_200(
    server: ServerProcess, size: int, left: float | None
) -> None:
    client = server.client(max_retries=0)
    file = client.files.create(file=os.urandom(size), purpose="user_data")
    (blob,) = (server.data / "blobs").rglob(file.id)
    if left is None:
        blob.unlink()
    else:
        os.truncate(blob, int(size * left))
    for headers in ({}, {"range": "bytes=1-"}, {"range": "bytes=-1"}):
        answer = httpx.get(f"{server.base_url}/files/{file.id}/content", headers=headers)
        assert answer.status_code == 500
        check_error(answer.json())
        assert answer.json()["error"]["code"] == "file_content_lost"
        assert answer.headers["x-should-retry"] == "false"
    assert client.files.retrieve(file.id).bytes == size
    assert client.files.delete(file.id).deleted


def test_an_empty_file_can_be_downloaded(client: openai.OpenAI) -> None:
    file = client.files.create(file=b"", purpose="user_data")
    assert client.files.content(file.id).content == b""


def test_of_a_complete_and_a_cancel_at_once_the_loser_gets_a_400(server: ServerProcess) -> None:
    data = chat_file(200)
    seen = set()
    with httpx.Client(base_url=server.base_url, timeout=60) as http, ThreadPoolExecutor(3) as pool:
        for _ in range(40):
            new = {"bytes": len(data), "filename": "f", "mime_type": "m", "purpose": "batch"}
            upload = http.post("/uploads", json=new).json()["id"]
            part = http.post(f"/uploads/{upload}/parts", files={"data": data}).json()["id"]
            gate = threading.Barrier(3)

            def ask(what: str, body: dict[str, list[str]], upload: str = upload, gate: threading.Barrier = gate) -> int:
                gate.wait()
                answer = http.post(f"/uploads/{upload}/{what}", json=body)
                if answer.status_code != 200:
                    check_error(answer.json())
                    message = answer.json()["error"]["message"]
                    assert answer.status_code == 400 and "only a pending upload can be changed" in message, answer.text
                return answer.status_code

            calls = [("complete", {"part_ids": [part]}), ("cancel", {}), ("complete", {"part_ids": [part]})]
            codes = list(pool.map(lambda call: ask(*call), calls))
            assert codes.count(200) == 1, codes
            seen.add(tuple(codes))
    assert not any("unexpected" in line for line in server.log)
