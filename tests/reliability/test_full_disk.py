"""A full disk: what is there is kept, users can free space, and everything goes on by itself once there is some."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from test_stop_and_resume import answered, submit
from watched_batch import Journal, peek, wait_until

from requests_jsonl import chat_file, chat_line, jsonl
from server_process import ServerProcess


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]).returncode:
        pytest.skip("run as root to run this: it mounts a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, name: str = "ballast") -> Path:
    """Take all the space there is."""
    ballast = disk / name
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass
    return ballast


def test_a_full_disk_pauses_a_batch_with_its_reason_and_space_lets_it_go_on(small_disk: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    data = small_disk / "data"
    with ServerProcess(data, "-O", f"journal={journal.path}", "-O", "latency=0.05", "-O", "slots=8") as server:
        client = server.client()
        batch_id = submit(client, chat_file(400))
        wait_until(lambda: peek(data).counted > 20, "some rows")
        ballast = fill(small_disk)

        def reason() -> str:
            return str((client.batches.retrieve(batch_id).model_extra or {})["gristmill"]["waiting_for"] or "")

        wait_until(lambda: reason() != "", "the batch to say what it waits for")
        assert "free" in reason() and "disk" in reason()
        assert client.batches.retrieve(batch_id).status == "in_progress"
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=b"x" * 1_000_000, purpose="user_data")
        assert refused.value.status_code == 507
        assert "disk" in str(refused.value) and "free" in str(refused.value)
        ballast.unlink()
        assert answered(client, batch_id) == [f"row-{row}" for row in range(400)]
        assert reason_is_gone(client, batch_id)
        assert server.alive()


def reason_is_gone(client: openai.OpenAI, batch_id: str) -> bool:
    return (client.batches.retrieve(batch_id).model_extra or {})["gristmill"]["waiting_for"] is None


def test_a_disk_that_is_full_when_files_are_written_is_waited_for(small_disk: Path) -> None:
    data = small_disk / "data"
    with ServerProcess(data, "-O", "slots=4", "-O", "latency=0.01") as server:
        client = server.client()
        # Answers of some 4 MB: they fit into the database, but not once more into a file.
        rows = jsonl([chat_line(f"row-{row}", n=40) for row in range(400)])
        batch_id = submit(client, rows)

        def waiting() -> str:
            progress = (client.batches.retrieve(batch_id).model_extra or {})["gristmill"]
            return str((progress or {}).get("waiting_for") or "")

        wait_until(lambda: peek(data).counted >= 100, "some rows")
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"\0" * 2_000_000)
        wait_until(lambda: waiting() != "", "the batch to say what it waits for")
        assert "free" in waiting() and "disk" in waiting()
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        assert answered(client, batch_id) == [f"row-{row}" for row in range(400)]
    assert not list((data / "blobs").rglob("*#*")), "a write that was cut off left bytes behind"


def stored(data: Path) -> int:
    return sum(path.stat().st_size for path in (data / "blobs").rglob("*") if path.is_file())


def test_files_are_deleted_and_batches_and_uploads_cancelled_with_no_byte_free(small_disk: Path) -> None:
    data = small_disk / "data"
    with ServerProcess(data, "-O", "latency=1", "-O", "slots=1") as server:
        client = server.client(max_retries=0)
        files = [client.files.create(file=("a", b"x" * 1_000), purpose="user_data") for _ in range(120)]
        uploads = [client.uploads.create(bytes=9, filename="a", mime_type="a/b", purpose="user_data") for _ in range(3)]
        batches = [submit(client, chat_file(100)) for _ in range(3)]
        wait_until(
            lambda: all(client.batches.retrieve(each).status == "in_progress" for each in batches), "the batches to run"
        )
        fill(small_disk)
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=("a", b"x" * 100_000), purpose="user_data")
        assert refused.value.status_code == 507
        for upload in uploads:
            assert client.uploads.cancel(upload.id).status == "cancelled"
        for batch_id in batches:
            assert client.batches.cancel(batch_id).status in ("cancelling", "cancelled")
        for file in files:
            # What each one frees is taken at once.
            assert client.files.delete(file.id).deleted
            fill(small_disk, "more")
        assert len(client.files.list().data) == len(batches)
        for name in ("ballast", "more"):
            (small_disk / name).unlink()
        for batch_id in batches:
            wait_until(lambda: client.batches.retrieve(batch_id).status == "cancelled", "the batch to end")  # noqa: B023
        assert server.alive()


def test_a_server_that_is_killed_on_a_full_disk_starts_again_and_lets_files_be_deleted(small_disk: Path) -> None:
    data = small_disk / "data"
    with ServerProcess(data) as server:
        file = server.client().files.create(file=("a", b"x" * 600_000), purpose="user_data")
        fill(small_disk)
        server.kill()
        server.start()
        client = server.client()
        assert [each.id for each in client.files.list().data] == [file.id]
        assert client.files.delete(file.id).deleted
        assert stored(data) == 0
        assert client.files.create(file=("a", b"x" * 400_000), purpose="user_data").bytes == 400_000


@pytest.mark.parametrize("folder_exists", [True, False])
def test_a_first_start_on_a_full_disk_is_one_sentence(small_disk: Path, folder_exists: bool) -> None:
    data = small_disk / "data"
    if folder_exists:
        data.mkdir()
    fill(small_disk)
    command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0", "--data", str(data)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 75
    assert refused.stderr.startswith("Error: ") and refused.stderr.count("\n") == 1
    assert "free" in refused.stderr and "disk" in refused.stderr
