"""``gristmill rank`` as a user runs it, on the simulated engine, whose label scores go with a number in the row."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")

RUBRIC = ("--rubric", "rubric.md", "--id", "id", "--scale", "0..10")
ENGINE = ("--engine", "simulated", "-O", "scored_by=worth:")


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "gristmill", name, "table.csv", *RUBRIC, *ENGINE, *arguments]


def gristmill(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, *arguments), cwd=folder, capture_output=True, text=True, env=os.environ | {"HOME": str(folder)}
    )


def rank(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return gristmill(folder, "rank", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    write(tmp_path, 2_000)
    return tmp_path


def write(folder: Path, rows: int) -> None:
    """``near`` goes with ``worth``, which the scores go with; ``far`` does not."""
    draw = random.Random(rows)
    lines = []
    for row in range(rows):
        worth = draw.random()
        near = min(max(worth + draw.gauss(0, 0.05), 0), 1)
        words = " ".join(draw.choice(("stone", "wheel")) if draw.random() > worth else "flour" for _ in range(8))
        lines.append(f"{row:05},{words},{near:.4f},{draw.random():.4f},{worth:.4f}")
    (folder / "table.csv").write_text("\n".join(["id,words,near,far,worth", *lines]) + "\n")


def best_of_all(folder: Path, count: int) -> list[str]:
    """By the judge's scores of every row: score falling, row rising."""
    done = gristmill(folder, "score", "-o", "all.parquet")
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(folder / "all.parquet").sort("score", descending=True, maintain_order=True)
    return scored["id"][:count].to_list()


def certificate(folder: Path, output: str = "best.csv") -> dict:
    return json.loads((folder / f"{output}.certificate.json").read_text())


def test_the_best_rows_with_their_ranks_and_how_they_were_found(folder):
    done = rank(folder, "--top", "60", "--recall", "0.9", "--proxy", "near", "-o", "best.csv", "--assume", "thinning")
    assert done.returncode == 0, done.stderr
    best = pl.read_csv(folder / "best.csv", infer_schema=False)
    assert best.columns[5:] == [
        "score", "score_label", "score_entropy", "score_off_scale", "score_method", "score_error",
        "score_rank", "score_found", "score_proxy",
    ]  # fmt: skip
    assert best["score_rank"].to_list() == [str(place) for place in range(1, 61)]
    scores = best["score"].cast(pl.Float64).to_list()
    assert scores == sorted(scores, reverse=True)
    assert set(best["score_found"]) <= {"pilot", "proxy", "audit"}
    assert best["score_proxy"].cast(pl.Float64).equals(best["near"].cast(pl.Float64))
    told = certificate(folder)
    assert told["certified"] and told["basis"] == "thinning" and told["judged"] < 1_500
    assert len(set(best["id"]) & set(best_of_all(folder, 60))) >= 54
    assert not (folder / ".best.csv.gristmill").exists()


def test_a_certificate_says_what_judged_what_was_asked_and_of_which_table(folder):
    done = rank(folder, "--top", "60", "--recall", "0.9", "--proxy", "near", "-o", "best.csv", "--assume", "thinning")
    assert done.returncode == 0, done.stderr
    receipt = certificate(folder)["receipt"]
    (judge,) = receipt["judge"]
    assert judge["engine"] == "simulated" and judge["options"] == {"scored_by": "worth:"}
    assert receipt["proxy"] == [] and receipt["asked"]["rubric"] == "Score the miller."
    assert (receipt["table"]["file"], receipt["table"]["rows"]) == ("table.csv", 2_000)


def test_without_an_assumption_the_promise_is_chances_alone(folder):
    done = rank(folder, "--top", "200", "--recall", "0.8", "--proxy", "near", "-o", "best.csv", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["certified"] and told["basis"] == "audit" and told["judged"] < 1_900
    assert "Of the 200 rows that the judge would rank highest" in done.stderr and "at least 160 are in" in done.stderr
    assert "Whether the judge is right is another question" in done.stderr
    found = set(pl.read_csv(folder / "best.csv", infer_schema=False)["id"])
    assert len(found & set(best_of_all(folder, 200))) >= 160


def test_the_words_of_the_rows_are_the_proxy_where_none_is_named(folder):
    done = rank(folder, "--top", "200", "--recall", "0.7", "-o", "best.csv", "--row", "{{ words }} worth: {{ worth }}")
    assert done.returncode == 0, done.stderr
    told = certificate(folder)
    assert told["proxy"].startswith("ridge regression over the words") and told["proxy_rank_correlation"] > 0.6
    assert told["judged"] < 2_000


def test_a_proxy_that_knows_nothing_costs_rows_and_not_the_promise(folder):
    done = rank(folder, "--top", "100", "--proxy", "far", "-o", "best.csv")
    assert done.returncode == 0, done.stderr
    assert certificate(folder)["basis"] == "everything"
    assert pl.read_csv(folder / "best.csv", infer_schema=False)["id"].to_list() == best_of_all(folder, 100)


def test_a_small_model_is_asked_about_every_row_once(folder):
    done = rank(
        folder, "--top", "60", "--proxy", "small", "-o", "best.csv", "--assume", "thinning", "-O", "journal=journal"
    )
    assert done.returncode == 0, done.stderr
    told = certificate(folder)
    assert told["cost"]["proxy"]["rows"] == 2_000 and told["proxy_rank_correlation"] == pytest.approx(1.0)
    assert len((folder / "journal").read_text().splitlines()) == 2_000 + told["judged"]


def test_every_row_is_embedded_once_and_guessed_from_its_vector(folder):
    # One row in ten has no text.
    row = "{% if id | int % 10 %}{{ words }} worth: {{ worth }}{% endif %}"
    wish = ("--top", "200", "--recall", "0.7", "--row", row, "-O", "journal=journal", "-o", "best.csv")
    done = rank(folder, *wish, "--proxy", "embeddings:embedder")
    assert done.returncode == 0, done.stderr
    told = certificate(folder)
    assert told["proxy"].startswith("ridge regression over embeddings by embedder (simulated engine)")
    assert told["proxy_rank_correlation"] > 0.6 and told["judged"] < 1_700
    assert told["cost"]["proxy"]["rows"] == 1_800 and told["failed"] == 200
    # Rows without a text cost nothing, nor do those that are like others.
    shared = sum(told["cost"][each]["deduplicated"] for each in ("judge", "proxy"))
    assert len((folder / "journal").read_text().splitlines()) == 1_800 + told["judged"] - told["failed"] - shared
    (proxy,) = told["receipt"]["proxy"]
    assert (proxy["engine"], proxy["model"]) == ("simulated", "embedder")


def test_all_rows_above_a_cut(folder):
    wish = ("--cut", "score >= 6.5", "--recall", "0.9", "--precision", "0.8", "--proxy", "near")
    done = rank(folder, *wish, "-o", "best.csv")
    assert done.returncode == 0, done.stderr
    told, best = certificate(folder), pl.read_csv(folder / "best.csv")
    best_of_all(folder, 1)
    right = set(pl.read_parquet(folder / "all.parquet").filter(pl.col("score") >= 6.5)["id"].cast(pl.Int64))
    found = set(best["id"])
    assert told["certified"] and told["judged"] < 2_000
    assert len(found & right) >= 0.9 * len(right) and len(found & right) >= 0.8 * len(found)


def test_a_budget_that_does_not_do_is_gone_on_from_with_a_larger_one(folder):
    wish = ("--top", "200", "--recall", "0.8", "--proxy", "near", "-o", "best.csv", "-O", "journal=journal")
    done = rank(folder, *wish, "--budget", "500")
    assert done.returncode == 1, done.stderr
    told = certificate(folder)
    assert not told["certified"] and told["would_cost"] > 500 >= told["judged"]
    assert "Not certified." in done.stderr
    done = rank(folder, *wish, "--budget", "1900")
    assert done.returncode == 0, done.stderr
    assert certificate(folder)["certified"]
    # No row is judged twice.
    assert len((folder / "journal").read_text().splitlines()) == certificate(folder)["judged"]


def test_past_a_budget_that_does_not_do_it_goes_on_as_if_there_were_none_where_that_is_wanted(folder):
    wish = ("--top", "200", "--recall", "0.8", "--proxy", "near")
    assert rank(folder, *wish, "-o", "free.csv").returncode == 0
    done = rank(folder, *wish, "--budget", "500", "--or-all", "-o", "best.csv")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("It goes on past that, as is wanted") == 1
    assert (folder / "best.csv").read_bytes() == (folder / "free.csv").read_bytes()
    assert 500 < certificate(folder)["judged"] == certificate(folder, "free.csv")["judged"] < 2_000
    # A budget that does not do for the pilot is one that does not do.
    little = rank(folder, *wish, "--budget", "10", "--or-all", "-o", "little.csv")
    assert little.returncode == 0 and little.stderr.count("It goes on past that, as is wanted") == 1, little.stderr
    assert (folder / "little.csv").read_bytes() == (folder / "free.csv").read_bytes()
    enough = rank(folder, *wish, "--budget", "1900", "--or-all", "-o", "enough.csv")
    assert enough.returncode == 0 and "It goes on" not in enough.stderr


def test_after_a_plan_another_goal_or_proxy_goes_on_with_the_same_pilot(folder):
    wish = ("--top", "200", "--recall", "0.8", "-O", "journal=journal", "-o", "best.csv")
    for plan in (("--proxy", "far"), ("--proxy", "small"), ("--proxy", "embeddings:e"), ("--assume", "thinning")):
        done = rank(folder, *wish, *plan, "--plan")
        assert done.returncode == 0, done.stderr
    # The judge's pilot, the small model's, and the embeddings'.
    assert len((folder / "journal").read_text().splitlines()) == 3 * 256
    done = rank(folder, *wish, "--proxy", "near", "--assume", "thinning")
    assert done.returncode == 0, done.stderr
    assert len((folder / "journal").read_text().splitlines()) == 2 * 256 + certificate(folder)["judged"]


def test_a_plan_judges_the_pilot_only_and_is_gone_on_from(folder):
    wish = ("--top", "200", "--recall", "0.8", "--proxy", "near", "-O", "journal=journal", "-o", "best.csv")
    done = rank(folder, *wish, "--plan", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["steps"][0]["name"], plan["steps"][0]["rows"]) == ("pilot", 256)
    assert plan["everything"]["rows"] == 2_000 and plan["judged"] < 2_000
    assert len((folder / "journal").read_text().splitlines()) == 256
    assert not (folder / "best.csv").exists()
    done = rank(folder, *wish)
    assert done.returncode == 0, done.stderr
    told = certificate(folder)
    assert len((folder / "journal").read_text().splitlines()) == told["judged"]


def test_without_an_output_the_best_are_shown_and_nothing_is_kept(folder):
    done = rank(folder, "--top", "3", "--proxy", "near", "--assume", "thinning", "--recall", "0.6")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["rank", "1", "2", "3"]
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == ["rubric.md", "table.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "top 100"),
        (("--top", "2000"), "are all of them"),
        (("--top", "50", "--proxy", "simulated"), "the judge itself"),
        (("--top", "50", "--proxy", "embeddings"), "which model embeds the rows: --proxy embeddings:MODEL"),
        (("--top", "50", "--proxy", "near", "--proxy-url", "http://127.0.0.1:9"), "the proxy is the column 'near'"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_anything_runs(folder, arguments, message):
    done = rank(folder, *arguments, "-o", "best.csv")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == ["rubric.md", "table.csv"]


def test_who_asks_for_what_takes_every_row_is_told_before_they_are_judged(folder):
    done = rank(folder, "--top", "5", "--proxy", "near", "-o", "best.csv")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Every one of the 2,000 rows is judged") and certificate(folder)["judged"] == 2_000
