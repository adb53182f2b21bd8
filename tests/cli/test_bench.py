"""``gristmill bench`` as a user runs it, on the simulated engine."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gristmill.cli.main import app
from gristmill.user_error import UserError


@pytest.fixture(autouse=True)
def log_as_it_is(monkeypatch):
    """The command runs in this process, and must not configure the log for all tests that follow."""
    monkeypatch.setattr("gristmill.telemetry.log.configure", lambda level: None)


@pytest.fixture
def rows_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "simulated",
                "messages": [
                    {"role": "system", "content": "Score each candidate. " * 50},
                    {"role": "user", "content": f"Candidate {number}"},
                ],
            },
        }
        for number in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def bench(rows_file, *flags: str):
    folder = rows_file.parent / "out"
    arguments = ["bench", str(rows_file), "-o", str(folder), "--engine", "simulated", "--rows", "6", *flags]
    return CliRunner().invoke(app, arguments, catch_exceptions=False), folder


def test_it_writes_a_table_a_plot_a_page_and_a_receipt(rows_file):
    pytest.importorskip("matplotlib", reason="pip install 'gristmill[bench]' to run this")
    result, folder = bench(rows_file, "-O", "prefill_speed=100000", "--labels", "0..10", "--for", "170000")
    assert result.exit_code == 0
    assert "prefix+labels" in result.stdout
    assert "170,000 rows" in result.stdout
    receipt = json.loads((folder / "bench.json").read_text())
    assert (receipt["rounds"], receipt["rows"], receipt["job_rows"]) == (3, 6, 170_000)
    assert receipt["options"] == {"prefill_speed": "100000"}
    assert len(receipt["rows_sha256"]) == 64
    assert receipt["strategies"][0]["name"] == "baseline"
    # 40 rows never fill 64 slots.
    assert "prefix: with 40 answered rows a turn and 64 in flight" in result.stdout
    assert receipt["advice"] in result.stdout
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "bench.html").read_text()
    assert receipt["advice"] in page
    assert "http" not in page.replace("<!doctype html>", "")


def test_chosen_strategies_only(rows_file):
    _, folder = bench(rows_file, "--strategies", "keep-alive,prefix", "--rounds", "1")
    receipt = json.loads((folder / "bench.json").read_text())
    assert [each["name"] for each in receipt["strategies"]] == ["keep-alive", "prefix"]


def test_a_password_in_an_address_stays_out_of_the_receipt(rows_file):
    _, folder = bench(rows_file, "--strategies", "prefix", "--url", "http://me:secret@a:8000,me:secret@b")
    written = (folder / "bench.json").read_text()
    assert "secret" not in written
    assert json.loads(written)["url"] == "http://a:8000,b"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--strategies", "magic"], "There is no strategy 'magic'. Choose from: baseline, keep-alive"),
        (["--labels", "10..0"], "0..10"),
        (["--labels", "x" * 200 + ",y"], "200 characters"),
    ],
)
def test_wrong_flags_say_what_to_do(rows_file, flags, says):
    with pytest.raises(UserError) as caught:
        bench(rows_file, *flags)
    assert says in str(caught.value)


def test_an_engine_that_does_not_start_leaves_no_receipt(rows_file):
    with pytest.raises(UserError, match="No server answers"):
        bench(rows_file, "--engine", "openai_compatible", "--url", "http://127.0.0.1:9")
    assert list((rows_file.parent / "out").iterdir()) == []


def test_one_row_is_too_few(rows_file):
    rows_file.write_text(rows_file.read_text().splitlines()[0])
    with pytest.raises(UserError, match="has one row"):
        bench(rows_file)


def test_a_line_that_is_no_row_is_named(rows_file):
    rows_file.write_text('{"custom_id": "a"}\n')
    with pytest.raises(UserError) as caught:
        bench(rows_file)
    assert "line 1" in str(caught.value)
