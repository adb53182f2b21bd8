"""``gristmill score`` as a user runs it, on the simulated engine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest


def score(folder: Path, *arguments: str, engine: str = "simulated") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, engine=engine), cwd=folder, capture_output=True, text=True, env=environment(folder)
    )


def command(*arguments: str, engine: str = "simulated") -> list[str]:
    return [sys.executable, "-m", "gristmill", "score", *arguments, "--engine", engine]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"HOME": str(folder)}


RUBRIC = ("--rubric", "rubric.md", "--id", "id", "--scale", "0..10")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    write(tmp_path, 50)
    return tmp_path


def write(folder: Path, rows: int) -> None:
    draw = random.Random(rows)
    lines = [f"{i:05},Miller {i},{draw.randrange(30)}" for i in range(rows)]
    draw.shuffle(lines)
    (folder / "table.csv").write_text("\n".join(["id,name,years", *lines]) + "\n")


def asked(folder: Path) -> list[str]:
    return [line.partition("name: ")[2] for line in (folder / "journal").read_text().splitlines()]


def test_a_table_in_the_same_table_with_scores_out(folder):
    done = score(folder, "table.csv", *RUBRIC, "-o", "out.parquet")
    assert done.returncode == 0, done.stderr
    table, scored = pl.read_csv(folder / "table.csv", infer_schema=False), pl.read_parquet(folder / "out.parquet")
    assert scored.select(table.columns).equals(table)
    assert scored.columns[3:] == [
        "score", "score_label", "score_entropy", "score_off_scale", "score_method", "score_error"
    ]  # fmt: skip
    assert scored["score"].is_between(0, 10).all() and scored["score"].n_unique() > 25
    assert set(scored["score_method"]) == {"labels"}
    assert scored["score_error"].null_count() == 50
    assert "50 of 50 scores" in done.stderr
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".md") == [
        "out.parquet", "out.parquet.receipt.json", "table.csv"
    ]  # fmt: skip


def test_scores_as_json_with_reasons(folder):
    done = score(folder, "table.csv", *RUBRIC, "-o", "out.jsonl", "--reason")
    assert done.returncode == 0, done.stderr
    scored = pl.read_ndjson(folder / "out.jsonl")
    assert set(scored["score_method"]) == {"generate"}
    assert set(scored["score"]) <= set(range(11))
    assert scored["score_reason"].null_count() == 0


def test_a_score_for_each_criterion_behind_one_prefix(folder):
    done = score(folder, "table.csv", *RUBRIC, "-o", "out.csv", "--criteria", "craft, honesty", "-O", "journal=journal")
    assert done.returncode == 0, done.stderr
    scored = pl.read_csv(folder / "out.csv")
    assert {"craft", "honesty", "craft_entropy", "honesty_error"} <= set(scored.columns)
    assert (scored["craft"] != scored["honesty"]).any()
    assert len(asked(folder)) == 100


def test_examples_are_shared_and_shown(folder):
    (folder / "examples.csv").write_text("id,name,years,score\nx,Master,30,10\ny,Thief,1,0\n")
    done = score(folder, "table.csv", *RUBRIC, "--examples", "examples.csv", "--show", "2")
    assert done.returncode == 0, done.stderr
    roles = [line.removeprefix("--- ") for line in done.stdout.splitlines() if line.startswith("--- ")]
    rows = [f"{role} (row {row})" for row in (1, 2) for role in ("user", "assistant")]
    assert roles == [f"{role} (all rows)" for role in ("system", *("user", "assistant") * 2)] + rows
    assert "Score: 10" in done.stdout and "name: Thief" in done.stdout
    (folder / "examples.csv").write_text("id,name,years,score\nx,Master,30,11\n")
    done = score(folder, "table.csv", *RUBRIC, "--examples", "examples.csv", "--show", "2")
    assert done.returncode == 2 and "'11', which is not on the scale" in done.stderr


def test_truth_is_never_sent(folder):
    done = score(folder, "table.csv", *RUBRIC, "--truth", "years", "--show", "1")
    assert "name: Miller" in done.stdout and "years" not in done.stdout


def test_rows_that_fail_are_counted_listed_and_kept(folder):
    done = score(
        folder, "table.csv", *RUBRIC, "-o", "out.csv", "-O", "fail_on=Miller 7", "-O", "failure_kind=invalid_request"
    )
    assert done.returncode == 1
    assert "49 of 50 scores" in done.stderr and "00007: no score: A simulated failure" in done.stderr
    scored = pl.read_csv(folder / "out.csv", infer_schema=False)
    assert scored.height == 50
    (failed,) = scored.filter(pl.col("score").is_null()).rows(named=True)
    assert failed["id"] == "00007" and "simulated failure" in failed["score_error"]


def test_what_many_rows_fail_for_is_told_once(folder):
    """Such as a model without a chat template."""
    done = score(
        folder, "table.csv", *RUBRIC, "-o", "out.csv", "-O", "fail_on=Miller", "-O", "failure_kind=invalid_request"
    )
    assert done.returncode == 1 and "0 of 50 scores" in done.stderr
    assert "00019 and 49 more: no score: A simulated failure" in done.stderr
    assert done.stderr.count("A simulated failure") == 1


def test_lists_in_a_table_are_kept_but_not_in_csv(folder):
    (folder / "table.jsonl").write_text('{"id": 1, "skills": ["a", "b"]}\n{"id": 2, "skills": []}\n')
    done = score(folder, "table.jsonl", *RUBRIC, "-o", "out.csv")
    assert done.returncode == 2 and "The column 'skills' holds List(String): write .jsonl" in done.stderr
    done = score(folder, "table.jsonl", *RUBRIC, "-o", "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert pl.read_ndjson(folder / "out.jsonl")["skills"].to_list() == [["a", "b"], []]


def test_a_cell_no_model_can_read_is_the_error_of_its_row(folder):
    with (folder / "table.csv").open("a") as file:
        file.write(f"big,{'x' * 10_000_000},1\n")
    done = score(folder, "table.csv", *RUBRIC, "-o", "out.parquet")
    assert done.returncode == 1 and "50 of 51 scores" in done.stderr
    assert "big: no score: its text is 10,000,0" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv", *RUBRIC, "-o", "out.csv"), "There is no table none.csv"),
        (("table.csv", *RUBRIC, "-o", "out.xlsx"), "name a file that ends in .csv"),
        (("table.csv", *RUBRIC), "-o OUTPUT"),
        (("table.csv", *RUBRIC, "-o", "no/out.csv"), "There is no folder no"),
        (("table.csv", *RUBRIC, "-o", "table.csv"), "would be written over what is read"),
        (("table.csv", *RUBRIC, "-o", "out.csv", "--name", "years"), "a column 'years' already"),
        (("table.csv", *RUBRIC, "-o", "out.csv", "--method", "guess"), "labels or generate"),
        (("table.csv", *RUBRIC, "-o", "out.csv", "--row", "{{ age }}"), "the column 'age'"),
        (("table.csv", *RUBRIC, "-o", "out.csv", "--row", "none.txt"), "There is no file none.txt"),
        (("table.csv", *RUBRIC, "-o", "out.csv", "--truth", "grade"), "no column 'grade'"),
        (("table.csv", *RUBRIC, "-o", "out.csv", "--reason", "--method", "labels"), "gives no reasons"),
    ],
)
def test_what_cannot_work_is_one_sentence(folder, arguments, message):
    done = score(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_unsure_scores_are_asked_of_a_better_model_and_both_are_kept(folder):
    done = score(
        folder, "table.csv", *RUBRIC, "-o", "out.parquet", "--model", "quick", "--escalate", "better",
        "--when", "score > 5.5", "-O", "journal=journal",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(folder / "out.parquet")
    unsure = scored.filter(pl.col("score_model") == "better")
    assert 0 < unsure.height < 50 and (unsure["score_before"] > 5.5).all()
    sure = scored.filter(pl.col("score_model").is_null())
    assert (sure["score"] <= 5.5).all() and sure["score_before"].null_count() == sure.height
    assert len(asked(folder)) == 50 + unsure.height


def test_a_better_model_needs_a_condition_and_a_condition_one(folder):
    for options, message in (
        (("--escalate", "better"), "--when"),
        (("--when", "score > 1"), "--escalate"),
        (("--escalate", "better", "--when", "doubt > 1"), "names 'doubt'"),
        (("--escalate", "better", "--when", "entropy > 1", "--method", "generate"), "only the method labels"),
    ):
        done = score(folder, "table.csv", *RUBRIC, "-o", "out.csv", *options)
        assert done.returncode == 2 and message in done.stderr
    assert not (folder / ".out.csv.gristmill").exists()


def test_an_audit_says_what_should_not_matter_and_does_not(folder):
    done = score(folder, "table.csv", *RUBRIC, "--audit", "10")
    assert done.returncode == 0, done.stderr
    parted = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[1:]]
    lines = {name: numbers[1:] for name, *numbers in parted}
    for name in ("the same again", "rows in reverse order"):
        assert lines[name] == ["0", "0.000", "0.000", "1.000"], done.stdout
    # The simulated engine draws a score from every letter of the prompt.
    for name in ("scale told from high to low", "instruction in other words", "method generate"):
        assert float(lines[name][2]) > 0.1
    assert sum("alone" in name for name in lines) == 3
    assert [path.name for path in folder.iterdir() if path.name.startswith("out")] == []


def test_killed_and_run_again_no_stored_row_is_asked_twice(folder):
    write(folder, 3_000)
    options = ("table.csv", *RUBRIC, "-o", "out.csv", "-O", "journal=journal", "-O", "latency=0.02", "-O", "slots=16")
    (folder / "journal").touch()
    for share in (0.1, 0.5, 0.8):
        running = subprocess.Popen(command(*options), cwd=folder, env=environment(folder), stderr=subprocess.DEVNULL)
        while len(asked(folder)) < share * 3_000 and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert not (folder / "out.csv").exists()
    done = score(folder, *options)
    assert done.returncode == 0, done.stderr
    scored = pl.read_csv(folder / "out.csv", infer_schema=False)
    assert scored["id"].equals(pl.read_csv(folder / "table.csv", infer_schema=False)["id"])
    assert scored["score"].null_count() == 0
    # What was in flight or not yet stored at a kill: some tenths of a second of 800 rows/s.
    assert 3_000 <= len(asked(folder)) < 3_000 + 3 * 400


def test_another_rubric_is_not_resumed(folder):
    write(folder, 2_000)
    options = ("table.csv", *RUBRIC, "-o", "out.csv", "-O", "journal=journal", "-O", "latency=0.05", "-O", "slots=8")
    (folder / "journal").touch()
    running = subprocess.Popen(command(*options), cwd=folder, env=environment(folder), stderr=subprocess.DEVNULL)
    while len(asked(folder)) < 50:
        time.sleep(0.02)
    running.kill()
    running.wait()
    (folder / "rubric.md").write_text("Score the baker.\n")
    done = score(folder, *options)
    assert done.returncode == 2 and "The rubric, scale or examples changed since this run was started" in done.stderr


def piped(folder: Path, *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    text = (given if given is not None else (folder / "table.csv").read_bytes()).decode()
    words = command(*arguments)
    return subprocess.run(words, cwd=folder, input=text, capture_output=True, text=True, env=environment(folder))


def test_a_piped_table_comes_out_with_scores_in_its_own_format(folder):
    done = piped(folder, "-", *RUBRIC, "-o", "-")
    assert done.returncode == 0, done.stderr
    assert score(folder, "table.csv", *RUBRIC, "-o", "out.csv").returncode == 0
    assert done.stdout == (folder / "out.csv").read_text()
    assert "50 of 50 scores: standard output" in done.stderr
    rows = b'{"id": "1", "name": "Miller"}\n{"id": "2", "name": "Baker"}\n'
    lines = piped(folder, "-", *RUBRIC, "-o", "-", given=rows).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["Miller", "Baker"]
    tabs = piped(folder, "-", *RUBRIC, "-o", "-", given=b"id\tname\n1\tMiller\n").stdout
    assert tabs.startswith("id\tname\tscore\t")
    assert not list((folder / ".local/share/gristmill/piped").iterdir())


def test_what_came_of_it_as_json(folder):
    done = score(folder, "table.csv", *RUBRIC, "-o", "out.csv", "--truth", "years", "--json")
    told = json.loads(done.stdout)
    assert (told["output"], told["report"], told["rows"]) == ("out.csv", None, 50)
    (only,) = told["scores"]
    assert (only["name"], only["scored"], only["missing"]) == ("score", 50, 0)
    assert only["agreement"]["rows"] == 50 and only["agreement"]["measures"][0]["name"]
    assert len(json.loads(score(folder, "table.csv", *RUBRIC, "--audit", "5", "--json").stdout)) > 1


def test_an_audit_needs_no_temporary_folder_of_the_system(folder):
    scratch = folder / ".cache" / "gristmill" / "scoring"
    left = scratch / "left"
    left.mkdir(parents=True)
    (left / "held").touch()
    words = command("table.csv", *RUBRIC, "--audit", "5")
    none = environment(folder) | {"TMPDIR": str(folder / "none"), "XDG_CACHE_HOME": "", "GRISTMILL_CACHE": ""}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=none)
    assert done.returncode == 0, done.stderr
    assert not list(scratch.iterdir())  # What a killed audit left behind is gone, too.
