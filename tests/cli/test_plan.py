"""``gristmill plan``: the token arithmetic as a calculator."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from gristmill.cli.main import app
from gristmill.user_error import UserError

JOB = ["plan", "--rows", "170000", "--prefix-tokens", "2000", "--row-tokens", "50"]


def test_it_says_what_each_way_to_send_rows_costs():
    result = CliRunner().invoke(app, JOB)
    assert result.exit_code == 0
    assert "8,502,000" in result.stdout  # behind a shared prefix
    assert "348,500,000" in result.stdout  # nothing reused


def test_its_numbers_are_machine_readable():
    result = CliRunner().invoke(app, [*JOB, "--slots", "4", "--json"])
    by_strategy = {bill["strategy"]: bill for bill in json.loads(result.stdout)}
    assert by_strategy["rows behind a shared prefix"]["computed_tokens"] == 170_000 * 50 + 4 * 2000


def test_a_job_without_rows_is_refused():
    assert CliRunner().invoke(app, ["plan", "--rows", "0", "--prefix-tokens", "1", "--row-tokens", "1"]).exit_code == 2


def write_rows(path, rows):
    lines = []
    for number, (system, user, parameters) in enumerate(rows):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": "m", "messages": messages, **parameters}
        request = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(request))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


RUBRICS = ["strict rubric " * 100, "kind rubric " * 100]


def test_it_says_what_the_rows_of_a_file_share(tmp_path):
    rows = [(RUBRICS[i % 2], f"candidate {i}", {"max_tokens": 5, "temperature": 0}) for i in range(40)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, rows[0]])
    result = CliRunner().invoke(app, ["plan", path, "--prompt-price", "2", "--output-price", "10", "--json"])
    found = json.loads(result.stdout)
    assert (found["rows"], found["duplicates"], found["in_line_order"]) == (41, 1, False)
    assert [group["rows"] for group in found["groups"]] == [20, 20]
    assert found["tokens"]["output"] == 40 * 5
    assert found["tokens"]["computed"] < found["tokens"]["sent"] / 10
    assert found["currency"] == "USD"
    assert found["cost_avoided"] == (found["tokens"]["sent"] * 2 + 200 * 10) / 1e6
    shown = CliRunner().invoke(app, ["plan", path])
    assert "group by group" in shown.stdout
    assert "1 of them get another row's answer" in shown.stdout


def test_the_page_names_its_file_and_what_rows_share(tmp_path):
    path = write_rows(tmp_path / "rows <b>.jsonl", [(RUBRICS[0], f"candidate {i}", {}) for i in range(40)])
    page = tmp_path / "plan.html"
    assert CliRunner().invoke(app, ["plan", path, "--html", str(page)]).exit_code == 0
    text = page.read_text()
    assert "40 rows share" in text
    assert "rows &lt;b&gt;.jsonl" in text


def test_a_file_that_cannot_run_is_refused_with_line_and_cause(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [("a", "b", {}), ("a", "b", {"model": "other"})])
    with path.open("a") as file:
        file.write('{"custom_id":"x","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}\n')
        file.write('{"custom_id":"y","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"p"}}\n')
    result = CliRunner().invoke(app, ["plan", str(path)])
    assert isinstance(result.exception, UserError)
    for part in ("line 2", "'other' for this request does not match", "line 3", "Messages parameter is required",
                 "line 4", "does not match the batch endpoint"):  # fmt: skip
        assert part in str(result.exception)


def test_without_file_and_figures_it_says_what_to_give():
    assert "--prefix-tokens" in str(CliRunner().invoke(app, ["plan", "--rows", "3"]).exception)


def test_a_pilot_says_how_long_all_rows_take_and_counts_tokens_by_the_engine(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [(RUBRICS[i % 2], f"candidate {i}", {}) for i in range(400)])
    engine = ["--engine", "simulated", "--model", "m", "-O", "latency=0.05", "-O", "slots=4"]
    result = CliRunner().invoke(app, ["plan", path, "--pilot", "20", *engine, "--json"])
    found = json.loads(result.stdout)
    pilot = found["pilot"]
    # 400 rows, 4 at a time, 0.05 s each: 5 s, and never less.
    assert pilot["seconds"] > 4.5 and pilot["low"] < pilot["seconds"] < pilot["high"]
    assert pilot["failed"] == 0 and pilot["reused_share"] > 0.8
    assert "pilot" in found["token_source"]
    assert "time for all rows" in CliRunner().invoke(app, ["plan", path, "--pilot", "20", *engine]).stdout


def test_a_pilot_of_which_no_row_is_answered_says_why(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [(RUBRICS[0], f"candidate {i}", {}) for i in range(10)])
    result = CliRunner().invoke(app, ["plan", path, "--pilot", "5", "--engine", "simulated"])
    assert isinstance(result.exception, UserError)
    assert "No row of the pilot was answered" in str(result.exception) and "'m'" in str(result.exception)
