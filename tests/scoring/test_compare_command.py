"""``gristmill score --compare A B`` and ``gristmill.compare``, on simulated engines that score by a column each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import gristmill
from gristmill.cli.compare_score import check_alone, parse_side
from gristmill.engines.registry import EngineSettings
from gristmill.user_error import UserError
from server_process import ServerProcess

pytest.importorskip("scipy", reason="pip install 'gristmill[score]' to run this")

ROWS = 60
#: B is A's order but for the last rows, which it puts first.
TABLE = pl.DataFrame(
    {
        "id": [f"{row:03}" for row in range(ROWS)],
        "alpha": [row / ROWS for row in range(ROWS)],
        "beta": [row / ROWS if row < 55 else 0.0 for row in range(ROWS)],
    }
)
A, B = "small,scored_by=alpha:", "small,scored_by=beta:"
ASKED = ("table.csv", "--rubric", "rubric.txt", "--id", "id", "--scale", "0..10", "--engine", "simulated")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TABLE.write_csv(tmp_path / "table.csv")
    (tmp_path / "rubric.txt").write_text("Score the miller.\n")
    return tmp_path


def score(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gristmill", "score", *ASKED, *arguments]
    environment = os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_two_models_are_compared_on_the_terminal_and_on_a_page(folder: Path):
    done = score(folder, "--compare", A, B, "--rows", "60", "--cut", "5", "--report", "page.html")
    assert done.returncode == 0, done.stderr
    assert "A: small, simulated engine, scored_by=alpha:" in done.stderr
    assert "60 random rows of 60" in done.stderr and "60 rows have a score by both." in done.stderr
    for measure in ("rank correlation", "mean difference", "another label", "same side of 5"):
        assert measure in done.stdout
    # The furthest first.
    assert "059" in done.stdout.partition("changed most")[2].splitlines()[1]
    page = (folder / "page.html").read_text()
    assert "scored_by=beta:" in page and "Changed most" in page and page.count("<circle") == ROWS
    # It is no table of scores, and leaves nothing to go on from.
    assert {each.name for each in folder.iterdir()} <= {"table.csv", "rubric.txt", "page.html", "cache", ".local"}
    assert not list(folder.glob("cache/gristmill/scoring/*"))


def test_the_same_comparison_is_the_same_again_and_as_json(folder: Path):
    one, again = (score(folder, "--compare", A, B, "--rows", "25", "--json") for _ in range(2))
    assert one.returncode == 0, one.stderr
    assert one.stdout == again.stdout
    found = json.loads(one.stdout)
    assert (found["rows"], found["table_rows"], found["a"]["method"]) == (25, 60, "labels")
    (score_facts,) = found["scores"]
    assert len(score_facts["changes"]) == 25 and score_facts["at_cut"] is None
    changed = [each for each in score_facts["changes"] if each["a"] != each["b"]]
    assert changed and all(each["id"] >= "055" for each in changed)
    assert score_facts["difference"]["high"] < 0 or score_facts["difference"]["value"] < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", A, A), "are the same"),
        (("--compare", A, B, "--rows", "9"), "A comparison takes 10 rows at least: --rows is 9."),
        (("--compare", A, B, "--cut", "11"), "A cut of 11 tells no rows of the scale apart"),
        (("--compare", A, B, "-o", "out.csv"), "leave out --output"),
        (("--compare", A, B, "--report", "table.csv"), "would be written over what is read"),
        (("--compare", A, "small,colour=red"), "colour"),
        (("--compare", A, B + ",fail_on=craft"), "There is nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(folder: Path, arguments: tuple[str, ...], message: str):
    if "fail_on" in arguments[2]:
        arguments = ("--compare", A, B + ",fail_on=alpha,failure_kind=invalid_request")
    done = score(folder, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_a_side_says_what_differs_from_the_command():
    given = EngineSettings("ollama", "gemma3:4b", "http://host:1", {"num_ctx": "4096"})
    assert parse_side("gemma3:12b", given, None) == given._replace(model="gemma3:12b")
    assert parse_side("num-ctx=8192", given, None) == given._replace(options={"num_ctx": "8192"})
    # Another engine has another address, and other options.
    assert parse_side("small,engine=openvino,weights=q8_0", given, None) == EngineSettings(
        "openvino", "small", None, {"weights": "q8_0"}
    )
    assert parse_side("url=http://host:2", given, None) == given._replace(url="http://host:2")
    # The weights that Ollama has pulled, on an engine here.
    assert parse_side("ollama:gemma3:4b", EngineSettings("auto"), None).model == "ollama:gemma3:4b"


@pytest.mark.parametrize(
    ("side", "server", "message"),
    [
        ("small,precision=f32", "http://server", "A server's models are compared by their names alone"),
        ("simulated:small", None, "name the engine behind the model: small,engine=simulated"),
        ("small,fast", None, "is not MODEL or MODEL,KEY=VALUE"),
        ("", None, "is not MODEL or MODEL,KEY=VALUE"),
        ("small,slots=2,slots=3", None, "says something twice"),
    ],
)
def test_a_side_that_cannot_be_meant_is_one_sentence(side: str, server: str | None, message: str):
    with pytest.raises(UserError, match=message):
        parse_side(side, EngineSettings("auto"), server)


def test_what_a_comparison_would_not_do_is_named():
    check_alone({"--output": None, "--when": ""})
    with pytest.raises(UserError, match="leave out --output, --escalate"):
        check_alone({"--output": "out.csv", "--audit": None, "--escalate": "big"})


def test_models_are_compared_from_python_on_a_server_too(tmp_path: Path):
    here = EngineSettings("simulated", "small", options={"scored_by": "beta:"})
    server = ServerProcess(tmp_path / "data").start()
    try:
        there = gristmill.ScoreServer(server.base_url)
        found = gristmill.compare(TABLE, "Score.", range(11), there, here, 20, cut=5, confidence=0.8)
    finally:
        server.stop()
    assert (found.a.model, found.b.model, found.rows, found.of) == ("simulated", "small", 20, ROWS)
    assert "on the server" in found.a.place
    assert found.scores[0].at_cut is not None and found.scores[0].rows == 20
    with pytest.raises(UserError, match="the same"):
        gristmill.compare(TABLE, "Score.", range(11), here, here)


def test_each_criterion_is_compared(folder: Path):
    done = score(folder, "--compare", A, B, "--rows", "20", "--criteria", "craft,honesty", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in json.loads(done.stdout)["scores"]] == ["craft", "honesty"]
