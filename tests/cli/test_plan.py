"""``gristmill plan``: the token arithmetic as a calculator."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from gristmill.cli.main import app

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
