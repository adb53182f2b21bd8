"""A real server that asks for keys: its first key, and commands that make and end keys while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from gristmill import Client
from gristmill.access import api_key
from gristmill.user_error import UserError
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

OPEN = ("--host", "0.0.0.0")


def command(*arguments: str, expected: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "gristmill", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == expected, done.stderr
    return done


class KeyedServer(ServerProcess):
    """What it prints to standard output is in a file."""

    def start_beside(self, output: Path) -> str:
        with output.open("w") as file:
            self.spawn(file)
            self.wait_until_ready()
        self.base_url = self.base_url.replace("0.0.0.0", "127.0.0.1")
        return output.read_text()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyedServer]:
    made = KeyedServer(tmp_path / "data", *OPEN)
    yield made
    if made.alive():
        made.kill()


def test_the_first_key_is_printed_once_and_no_log_has_it(server: KeyedServer, tmp_path: Path) -> None:
    printed = server.start_beside(tmp_path / "out")
    (key,) = [line.strip() for line in printed.splitlines() if line.startswith("    sk-")]
    assert api_key.read(key).key_id
    client = openai.OpenAI(base_url=server.base_url, api_key=key)
    file = client.files.create(file=("a.jsonl", chat_file(2)), purpose="batch")
    client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.AuthenticationError) as refused:
        openai.OpenAI(base_url=server.base_url, api_key="wrong").files.list()
    assert refused.value.code == "invalid_api_key"
    server.stop()
    kept = [path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert kept and not any(api_key.read(key).secret.encode() in each for each in kept)
    assert not any(key in line or api_key.read(key).secret in line for line in server.log)
    # Not again, and the key is still right.
    assert server.start_beside(tmp_path / "out") == ""
    assert [each.id for each in openai.OpenAI(base_url=server.base_url, api_key=key).files.list()] != []


def test_keys_are_made_and_end_while_the_server_runs(server: KeyedServer, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    # Before the first start, too: then no other is made.
    boss = command("admin", "key", "add", "boss", "--role", "admin", *data).stdout.strip()
    assert server.start_beside(tmp_path / "out") == ""
    anna = command("admin", "key", "add", "anna", "--max-bytes", "2KB", *data).stdout.strip()
    command("admin", "key", "add", "wall", "--role", "read-only", "--for", "anna", *data)
    listed = json.loads(command("admin", "key", "list", "--json", *data).stdout)
    assert [(key["name"], key["role"], key["max_bytes"]) for key in listed] == [
        ("boss", "admin", None), ("anna", "user", 2000), ("wall", "read-only", None),
    ]  # fmt: skip
    assert not any("hash" in name for key in listed for name in key)
    assert anna not in command("admin", "key", "list", *data).stdout

    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(chat_file(2))
    ask = ("--server", server.base_url)
    told = command("batches", "submit", str(rows), *ask, expected=2).stderr
    assert "set GRISTMILL_API_KEY" in told
    # A key for somebody else is not sent.
    command("batches", "submit", str(rows), *ask, expected=2, OPENAI_API_KEY=anna)
    batch = command("batches", "submit", str(rows), *ask, GRISTMILL_API_KEY=anna).stdout.strip()
    assert batch.startswith("batch_") and batch in command("batches", "list", *ask, GRISTMILL_API_KEY=boss).stdout
    assert "problem" not in command("doctor", server.base_url, GRISTMILL_API_KEY=anna).stdout
    assert "Set GRISTMILL_API_KEY" in command("doctor", server.base_url, expected=1).stdout
    client = Client(server.base_url, anna)
    assert client.get(batch).id == batch
    revoked = command("admin", "key", "revoke", "anna", *data).stdout
    assert "anna" in revoked and "1 made for it" in revoked
    with pytest.raises(UserError, match="not the right one"):
        client.get(batch)
    assert "no key 'anna'" in command("admin", "key", "revoke", "anna", *data, expected=2).stderr
    assert "no key 'x'" in command("admin", "audit", "--key", "x", *data, expected=2).stderr
    of_anna = command("admin", "audit", "--key", "anna", *data).stdout
    assert "POST /v1/files" in of_anna and "key revoked" not in of_anna
    audit = command("admin", "audit", *data).stdout
    assert "POST /v1/batches" in audit and "key revoked" in audit and "boss" in audit
    assert len(json.loads(command("admin", "audit", "--json", "--limit", "2", *data).stdout)) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("a b",), "cannot be the name"), (("x", "--max-bytes", "many"), "500MB"), (("x", "--for", "y"), "read-only"),
     (("x", "--role", "read-only", "--max-rows", "1"), "adds nothing"),
     (("x", "--max-bytes", "9999999999999T"), "no limit"), (("x", "--max-rows", "9" * 30), "no limit"),
     (("x", "--role", "read-only", "--for", "y"), "no key 'y'")],
)  # fmt: skip
def test_what_cannot_be_a_key_is_refused_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = command("admin", "key", "add", *arguments, "--data", str(tmp_path / "data"), expected=2)
    assert done.stderr.startswith("Error: ") and told in done.stderr and done.stderr.count("\n") == 1


def test_keys_are_found_where_the_settings_file_has_the_server(tmp_path: Path) -> None:
    settings = tmp_path / "gristmill.toml"
    settings.write_text(f'[serve]\ndata = "{tmp_path / "elsewhere"}"\nkeys = true\n')
    command("--config", str(settings), "admin", "key", "add", "anna")
    assert (tmp_path / "elsewhere" / "gristmill.db").is_file()
    assert "anna" in command("--config", str(settings), "admin", "key", "list").stdout
    missing = command("admin", "key", "list", "--data", str(tmp_path / "none"), expected=2)
    assert "no database" in missing.stderr


def test_keys_can_be_asked_for_on_loopback_and_not_asked_for_elsewhere(tmp_path: Path) -> None:
    for options, status in ((("--keys",), 401), (("--host", "0.0.0.0", "--no-keys"), 200), ((), 200)):
        server = KeyedServer(tmp_path / "-".join(("data", *options)), *options)
        printed = server.start_beside(tmp_path / "out")
        assert ("    sk-" in printed) is (status == 401)
        assert httpx.get(f"{server.base_url}/files").status_code == status
        warned = [line for line in server.log if "WARNING" in line]
        assert len(warned) == ("--no-keys" in options)
        server.kill()


def test_no_key_is_made_where_the_journal_would_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    output.touch()
    found = output.stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    server = KeyedServer(tmp_path / "data", *OPEN)
    assert server.start_beside(output) == ""
    assert any("gristmill admin key add NAME --role admin" in line for line in server.log)
    key = command("admin", "key", "add", "boss", "--role", "admin", "--data", str(server.data)).stdout.strip()
    answer = httpx.get(f"{server.base_url}/files", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    server.kill()
