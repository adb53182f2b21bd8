"""The sample of the tutorial, on the embedded engine."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.models.locate import locate
from gristmill.user_error import UserError

CANDIDATES = Path(__file__).parents[2] / "examples" / "candidates"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    pytest.importorskip("openvino_genai", reason="pip install 'gristmill[embedded]' to run this")
    pytest.importorskip("scipy", reason="pip install 'gristmill[score]' to run this")
    try:
        locate(DEFAULT_MODEL)
    except UserError as error:
        pytest.skip(str(error))
    lines = (CANDIDATES / "sample.csv").read_text().splitlines()[:25]
    (tmp_path / "sample.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_sample_is_scored_compared_and_reported(sample: Path) -> None:
    command = [sys.executable, "-m", "gristmill", "score", "sample.csv", "--rubric", str(CANDIDATES / "rubric.txt")]
    command += ["--id", "id", "--scale", "0..10", "--truth", "points", "-o", "scores.csv", "--report", "report.html"]
    command += ["--examples", str(CANDIDATES / "examples.csv")]
    done = subprocess.run(command, cwd=sample, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scored = pl.read_csv(sample / "scores.csv")
    assert scored.height == 24
    # Behind "Score:" even a small model puts nearly all probability on the scale.
    assert set(scored["score_method"]) == {"labels"} and scored["score_off_scale"].mean() < 0.2
    assert "Spearman" in done.stderr and "Spearman" in (sample / "report.html").read_text()


def test_the_sample_is_what_its_script_makes() -> None:
    made = subprocess.run([sys.executable, CANDIDATES / "make_sample.py"], capture_output=True, text=True, check=True)
    assert made.stdout == (CANDIDATES / "sample.csv").read_text()
    rows = list(csv.DictReader(made.stdout.splitlines()))
    assert len(rows) == 300 and {int(row["points"]) for row in rows} == set(range(11))
