from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_process import ServerProcess

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told(server: ServerProcess) -> dict[str, Any]:
    """What the official Node client saw."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("install Node.js, with npm, to run the flows of the Node client")
    if not (HERE / "node_modules" / "openai").exists():
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    done = subprocess.run(["node", HERE / "flows.mjs", server.base_url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_batch_completes_and_its_content_is_in_input_order(told: dict[str, Any]) -> None:
    assert told["completed"]["status"] == "completed"
    assert told["completed"]["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
    assert told["completed"]["metadata"] == {"from": "node"}
    assert told["ids"] == [f"row-{index}" for index in range(200)]


def test_a_rejected_file_names_its_line(told: dict[str, Any]) -> None:
    assert [(error["code"], error["line"]) for error in told["rejected"]] == [("duplicate_custom_id", 2)]


def test_a_batch_can_be_cancelled(told: dict[str, Any]) -> None:
    assert told["cancelled"] == "cancelled"


def test_errors_arrive_as_the_clients_own_classes(told: dict[str, Any]) -> None:
    assert {name: (error["type"], error["status"]) for name, error in told["errors"].items()} == {
        "cancel": ("ConflictError", 409),
        "unknown batch": ("NotFoundError", 404),
        "unknown file": ("NotFoundError", 404),
        "not jsonl": ("BadRequestError", 400),
    }
    assert told["errors"]["unknown file"]["param"] == "id"


def test_lists_page_to_the_end(told: dict[str, Any]) -> None:
    assert len(told["listed"]) == len(set(told["listed"])) == 3


def test_parts_are_put_together_in_the_order_of_completion(told: dict[str, Any]) -> None:
    assert told["uploaded"] and told["deleted"]


def test_a_streamed_answer_is_the_whole_one(told: dict[str, Any]) -> None:
    assert told["streamed"]
    assert told["models"] == ["simulated"]
