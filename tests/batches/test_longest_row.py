from __future__ import annotations

from gristmill.batches.longest_row import longest_row_tokens
from requests_jsonl import chat_line, jsonl


def test_the_longest_line_and_its_answer_are_what_must_fit(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [chat_line("a", "short"), chat_line("b", "word " * 7000), chat_line("c", "word " * 10)]
    path.write_bytes(jsonl(lines))
    length = max(map(len, path.read_bytes().split(b"\n")))
    output = lines[1]["body"].get("max_tokens") or 100
    assert longest_row_tokens(path, default_output=100) == round(length / 3.5) + output
    # 7,000 words are about 7,000 tokens; the estimate is on the safe side.
    assert 7000 < longest_row_tokens(path) < 12_000


def test_what_every_row_has_besides_its_line_counts_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([chat_line("a", "short")]))
    assert longest_row_tokens(path, shared_bytes=3500) - longest_row_tokens(path) == 1000


def test_a_broken_line_is_no_error_here(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{" * 700 + b"\n\n")
    assert longest_row_tokens(path, default_output=50) == 250
    path.write_bytes(b"")
    assert longest_row_tokens(path) == 0
