"""The alert rules and the Grafana dashboard that are shipped: checked by Prometheus' own tool, and against what a real
server shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "gristmill.rules.yml"
RULE_TESTS = DEPLOY / "prometheus" / "gristmill.rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "gristmill.json"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: scripts/install-test-tools.sh"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """Of the dashboard, with its variables given values."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m").replace("$instance", "a").replace("$job", "b") for query in found]


@needs_promtool
def test_the_alert_rules_hold_what_their_unit_tests_say() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULE_TESTS)


@needs_promtool
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    as_rules = [{"record": f"query:{index}", "expr": query} for index, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": as_rules}]}))
    promtool("check", "rules", file)


def test_every_alert_is_tested_to_fire_and_to_keep_quiet() -> None:
    cases = [each for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for each in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules()}
    assert alerts == {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert alerts == {case["alertname"] for case in cases if not case.get("exp_alerts")}


def test_every_metric_of_rules_and_dashboard_is_shown_by_a_server_with_these_labels(
    server: ServerProcess,
) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="unused") as client:
        file = client.files.create(file=chat_file(5), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        while client.batches.retrieve(batch.id).status != "completed":
            time.sleep(0.02)
    families = list(text_string_to_metric_families(httpx.get(f"{server.base_url.removesuffix('/v1')}/metrics").text))
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    shown = {family.name + ending for family in families for ending in endings[family.type]}
    labels = {
        (sample.name, *label) for family in families for sample in family.samples for label in sample.labels.items()
    }
    used = [rule["expr"] for rule in rules()] + queries()
    metrics = {name for query in used for name in re.findall(r"\b(?:gristmill|process)_\w+", query)}
    assert metrics and metrics <= shown
    for query in used:
        for name, selector in re.findall(r"\b((?:gristmill|process)_\w+)\{([^}]*)\}", query):
            for label, _, value in re.findall(r'(\w+)(!?=)"(\w+)"', selector):
                assert (name, label, value) in labels, query


def test_the_dashboard_asks_for_its_datasource_and_explains_each_panel() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board["templating"]["list"][0] == board["templating"]["list"][0] | {
        "name": "datasource",
        "query": "prometheus",
    }
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and board["uid"] == "gristmill"
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}" and panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert all("$instance" in target["expr"] for target in panel["targets"])
