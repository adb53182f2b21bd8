"""Right scores of some rows, as a user gives them: ``gristmill score --truth`` and ``gristmill calibrate``."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("scipy", reason="pip install 'gristmill[score]' to run this")

RUBRIC = ("--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "--engine", "simulated")


def gristmill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gristmill", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"HOME": str(folder)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = random.Random(0)
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    rows = [
        f"{row:04},Miller {row},{'north' if row % 3 else 'south'},{draw.randrange(11) if row % 4 == 0 else ''}"
        for row in range(400)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["id,name,team,points", *rows]) + "\n")
    return tmp_path


def test_wanted_truths_are_filled_in_and_come_back_without_asking_anything_again(folder):
    done = gristmill(
        folder, "score", "table.csv", *RUBRIC, "--truth", "points", "--cut", "5", "--by", "team", "--truth-wanted",
        "60", "-o", "scores.csv", "--report", "page.html", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["scores"]
    first = told["calibration"]
    assert (first["rows"], first["truths"], first["stratified"]) == (400, 100, False)
    assert {each["group"] for each in first["statements"]} == {None, "north", "south"}
    assert first["statements"][0]["estimate"]["low"] < first["statements"][0]["estimate"]["high"]
    page = (folder / "page.html").read_text()
    assert "What the right scores say of all rows" in page and "<caption>south, 134 rows</caption>" in page

    scored = pl.read_csv(folder / "scores.csv", infer_schema=False)
    assert {"score_calibrated", "score_low", "score_high", "score_stratum", "score_inclusion"} <= {*scored.columns}
    wanted = pl.read_csv(folder / "scores-truth-wanted.csv", infer_schema=False)
    assert wanted.height == 60 and wanted["points"].null_count() == 60
    # No score is seen by whoever finds the right one.
    assert set(wanted.columns) == set(pl.read_csv(folder / "table.csv").columns) | {"points"}
    assert scored.filter(pl.col("id").is_in(wanted["id"].implode()))["points"].null_count() == 60
    # After what is wanted, each stratum's share with a truth is what the column says.
    known = pl.col("points").is_not_null() | pl.col("id").is_in(wanted["id"].implode())
    by_stratum = scored.group_by("score_stratum").agg(
        known.mean().alias("share"), pl.col("score_inclusion").first().cast(pl.Float64)
    )
    assert by_stratum["share"].to_list() == pytest.approx(by_stratum["score_inclusion"].to_list())

    wanted[:50].with_columns(points=pl.Series(range(50)) % 11).write_csv(folder / "filled.csv")
    done = gristmill(
        folder, "calibrate", "scores.csv", "--id", "id", "--truth", "points", "--truths", "filled.csv", "--cut", "5",
        "-o", "calibrated.csv", "--report", "page2.html", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    second = json.loads(done.stdout)["calibration"]
    assert (second["truths"], second["stratified"], second["looks_random"]) == (150, True, True)
    assert "drawn at random within their strata" in done.stderr and "mean truth" in (folder / "page2.html").read_text()
    again = pl.read_csv(folder / "calibrated.csv", infer_schema=False)
    assert again["points"].null_count() == 250 and again["score"].equals(scored["score"])


def test_too_few_truths_are_a_sentence_and_no_columns(folder):
    table = pl.read_csv(folder / "table.csv", infer_schema=False)
    few = table.with_columns(points=pl.when(pl.int_range(pl.len()) < 40).then(pl.col("points")))
    few.write_csv(folder / "table.csv")
    done = gristmill(folder, "score", "table.csv", *RUBRIC, "--truth", "points", "-o", "scores.csv")
    assert done.returncode == 0, done.stderr
    assert "10 of 400 rows with a score have a right one: too few" in done.stderr and "20 would do" in done.stderr
    assert "score_calibrated" not in pl.read_csv(folder / "scores.csv").columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cut", "5"), "with --truth"),
        (("--truth", "points", "--by", "city"), "no column 'city' for --by"),
        (("--truth", "points", "--by", "name"), "400 different values"),
        (("--truth", "points", "--confidence", "90"), "0.5 to 0.999"),
        (("--truth", "points", "--truth-cut", "5"), "--cut"),
        (("--truth", "points", "--truth-wanted", "9", "--criteria", "a,b"), "leave out --criteria"),
    ],
)
def test_what_cannot_be_told_is_one_sentence_before_anything_is_asked(folder, words, message):
    done = gristmill(folder, "score", "table.csv", *RUBRIC, "-o", "scores.csv", *words)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (folder / "scores.csv").exists()


def test_truths_of_rows_that_are_not_there_are_refused(folder):
    (folder / "scores.csv").write_text("id,score\n1,3\n2,4\n")
    (folder / "filled.csv").write_text("id,points\n1,3\n9,4\n")
    words = ("calibrate", "scores.csv", "--id", "id", "--truth", "points", "-o", "out.csv")
    done = gristmill(folder, *words, "--truths", "filled.csv")
    assert done.returncode == 2 and "ids that the table does not have, such as '9'" in done.stderr
    done = gristmill(folder, *words)
    assert done.returncode == 2 and "no column 'points'" in done.stderr
