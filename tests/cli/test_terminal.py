"""What reaches a terminal: nothing from outside that it would obey, and no traceback whatever the terminal is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_command import run_forked

from flaky_proxy import FlakyProxy, Handler
from gristmill.printable import printable, printable_json, printable_lines
from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess

HOSTILE = "[/b][red]\x1b[31mred\x1b]0;title\x07\nError: forged\u202e\x9b2J\x7f:boom:"


def harmless(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("data")) as running:
        yield running


def test_text_from_outside_is_one_harmless_line() -> None:
    assert printable(HOSTILE) == "[/b][red]red]0;title Error: forged:boom:"
    assert printable_lines("a\tb\r\nc\rd\x1b[1me") == "a\tb\ncde"
    for readable in ("caf\u00e9", "\u05e9\u05dc\u05d5\u05dd", "\u4f60\u597d", "\U0001f600"):
        assert printable(readable) == readable
    assert printable("\udcff").encode() == "\ufffd".encode()


def test_json_is_the_same_in_harmless_characters() -> None:
    text = json.dumps({"id": HOSTILE + "\U000e0041"}, ensure_ascii=False)
    assert harmless(printable_json(text))
    assert json.loads(printable_json(text)) == json.loads(text)


def test_a_hostile_id_of_a_rejected_batch_is_shown_as_it_is(there: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl([chat_line(HOSTILE), chat_line(HOSTILE)]))
    words = ["batches", "submit", "in.jsonl", "--watch", "--server", there.base_url]
    done = run_forked(tmp_path, words, {})
    assert done.returncode == 1, done.stderr
    assert "[/b][red]" in done.stderr and ":boom:" in done.stderr
    assert harmless(done.stderr) and "\nError: forged" not in done.stderr


def test_a_hostile_id_of_a_row_without_a_score_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_text(json.dumps({"id": HOSTILE, "name": "Miller 7"}) + "\n")
    (tmp_path / "rubric.md").write_text("Score the miller.")
    words = ["score", "table.jsonl", "--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "-o", "out.jsonl"]
    failing = ["--engine", "simulated", "-O", "fail_on=Miller", "-O", "failure_kind=invalid_request"]
    done = run_forked(tmp_path, [*words, *failing], {"HOME": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    assert "[/b][red]" in done.stderr and harmless(done.stderr) and "\nError: forged" not in done.stderr
    shown = run_forked(tmp_path, [*words[:-2], "--row", "{{ id }}", "--show", "1", *failing[:2]], {})
    assert shown.returncode == 0 and "[/b][red]" in shown.stdout and harmless(shown.stdout)


def test_what_a_hostile_server_says_is_one_harmless_line(there: ServerProcess, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        body = {"error": {"message": HOSTILE, "type": "x", "param": None, "code": None}}
        handler.reply(400, [], json.dumps(body).encode())

    with FlakyProxy(there.base_url) as proxy:
        proxy.always = answer
        done = run_forked(tmp_path, ["batches", "list", "--server", proxy.base_url], {})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert harmless(done.stderr) and "[/b][red]" in done.stderr


def test_a_hostile_batch_is_listed_and_shown(there: ServerProcess, tmp_path: Path) -> None:
    batch = {
        "id": HOSTILE, "endpoint": HOSTILE, "input_file_id": HOSTILE, "completion_window": "24h", "status": HOSTILE,
        "created_at": 10**17, "model": HOSTILE, "gristmill": {"waiting_for": HOSTILE},
        "errors": {"data": [{"code": "x", "message": HOSTILE, "line": 1}]},
    }  # fmt: skip

    def answer(handler: Handler) -> None:
        page = {"data": [batch], "first_id": "", "last_id": "", "has_more": False}
        handler.reply(200, [], json.dumps(page if handler.path.startswith("/v1/batches?") else batch).encode())

    with FlakyProxy(there.base_url) as proxy:
        proxy.always = answer
        for words in (["list"], ["show", "x"], ["cancel", "x"], ["list", "--json"], ["show", "x", "--json"]):
            done = run_forked(tmp_path, ["batches", *words, "--server", proxy.base_url], {})
            assert done.returncode == 0 and "[/b][red]" in done.stdout, done.stderr
            assert harmless(done.stdout + done.stderr) and "\nError: forged" not in done.stdout
