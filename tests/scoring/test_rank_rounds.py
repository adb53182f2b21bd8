"""Rounds of comparisons among the rows found: who meets whom, tiers and their order, and what is told of them."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

import gristmill
from gristmill.user_error import UserError

pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")

from gristmill.scoring.rank.pairing import pairs_of_rounds

draw = random.Random(3)
WORTH = [draw.random() for _ in range(400)]
FRAME = pl.DataFrame({"id": range(400), "near": [each + draw.gauss(0, 0.05) for each in WORTH], "worth": WORTH})
#: It scores badly, and compares well.
OPTIONS = {"scored_by": "near:", "compared_by": "worth:"}
JUDGE = gristmill.EngineSettings("simulated", options=OPTIONS)
ASKED = {"rubric": "Score the miller.", "scale": range(11), "on": JUDGE}
WISH = {"top": 60, "recall": 0.6, "proxy": "near", "assume": "thinning"}
SENT = gristmill.ScoreOptions(id_column="id")


@pytest.mark.parametrize(("items", "rounds"), [(2, 1), (5, 4), (6, 5), (31, 12), (100, 8), (1_000, 5)])
def test_nobody_meets_anybody_twice_and_everybody_about_as_often(items, rounds):
    found = pairs_of_rounds(items, rounds, 7)
    assert all(len(set(sum(each, ()))) == 2 * len(each) for each in found)
    every = [pair for each in found for pair in each]
    assert len(set(every)) == len(every) and all(0 <= one < other < items for one, other in every)
    times = Counter(item for pair in every for item in pair)
    assert rounds - 2 <= min(times[item] for item in range(items)) and max(times.values()) <= rounds
    assert pairs_of_rounds(items, rounds - 1, 7) == found[:-1]
    assert pairs_of_rounds(items, rounds, 8) != found or items == 2


def test_rows_are_in_tiers_then_by_strength_and_nearer_the_truth_than_by_scores():
    options = SENT._replace(truth="right")
    frame = FRAME.with_columns(right=pl.col("worth") * 10)
    plain = gristmill.rank(frame, **ASKED, **WISH, options=options)
    best = gristmill.rank(frame, **ASKED, **WISH, options=options, rounds=8)
    assert set(best.frame["id"]) == set(plain.frame["id"]) and best.certificate["judged"] == plain.certificate["judged"]
    assert (
        best.frame.drop("score_rank", "score_tier", "score_strength")
        .sort("id")
        .equals(plain.frame.drop("score_rank").sort("id"))
    )
    assert best.frame["score_rank"].to_list() == list(range(1, 61))
    keys = list(zip(best.frame["score_tier"], -best.frame["score_strength"], strict=True))
    assert keys == sorted(keys) and keys[0][0] == 1 < keys[-1][0]
    rounds = best.certificate["rounds"]
    assert (rounds["pairs"], rounds["answered"], rounds["wanted"]) == (240, 240, 8)
    assert rounds["tiers"] == keys[-1][0] and rounds["position"]["turned"] < 0.4
    assert rounds["truth"]["strengths"] > rounds["truth"]["scores"] + 0.05
    assert any("comparing did better than scoring" in each for each in best.sentences)
    assert any("tiers" in each and "All of that holds together in about 95 %" in each for each in best.sentences)
    first, last = best.frame["score_strength"].max(), best.frame["score_strength"].min()
    assert any(f"weakest in {1 / (1 + math.exp(last - first)):.0%} of comparisons" in each for each in best.sentences)
    assert not any("their order is the judge's own" in each for each in best.sentences)
    assert best.certificate["cost"]["rounds"]["rows"] == 480
    assert plain.certificate["rounds"] is None and plain.certificate["promised"] != best.certificate["promised"]


def test_a_judge_that_goes_by_places_or_chance_is_told():
    # The simulated engine writes a choice that hangs on nothing but a hash.
    options = SENT._replace(method="generate", columns=["near"])
    best = gristmill.rank(FRAME, **ASKED, **WISH, options=options, rounds=4)
    turned = best.certificate["rounds"]["position"]["turned"]
    (said,) = (each for each in best.sentences if "named the other way round" in each)
    assert 0.35 < turned < 0.65 and f"{turned:.0%}" in said and ("hardly a judgement" in said) == (turned >= 0.5)


def test_more_rounds_go_on_from_fewer(tmp_path: Path):
    noting = {"on": JUDGE._replace(options=OPTIONS | {"journal": str(tmp_path / "journal")})}
    wish = WISH | {"options": SENT, "resume": tmp_path / "state"}
    gristmill.rank(FRAME, **ASKED | noting, **wish, rounds=3)
    asked = (tmp_path / "journal").read_text().count("\n")
    more = gristmill.rank(FRAME, **ASKED | noting, **wish, rounds=5)
    assert (tmp_path / "journal").read_text().count("\n") == asked + 2 * 60
    afresh = gristmill.rank(FRAME, **ASKED, **WISH, options=SENT, rounds=5)
    assert more.frame.equals(afresh.frame)


def test_pairs_without_an_answer_count_for_nothing_and_are_told():
    marked = FRAME.with_columns(note=pl.when(pl.col("worth") > 0.95).then(pl.lit("x-x")).otherwise(pl.lit("")))
    # Of two rows with the mark each question fails, and of one none: scores are there, some comparisons are not.
    failing = JUDGE._replace(options=OPTIONS | {"fail_on": "x-x\n\nB", "failure_kind": "invalid_request"})
    options = SENT._replace(columns=["near", "worth", "note"])
    best = gristmill.rank(marked, **ASKED | {"on": failing}, **WISH, options=options, rounds=4)
    rounds, lost = best.certificate["rounds"], best.frame.filter(pl.col("score_tier").is_null())
    assert 0 < rounds["answered"] < rounds["pairs"] and best.frame.height == 60
    assert set(lost["id"]) == set(best.frame.filter(pl.col("note") == "x-x")["id"]) and lost["score"].null_count() == 0
    assert best.frame["id"].to_list()[-lost.height :] == lost["id"].to_list()
    assert lost["score"].is_sorted(descending=True)
    assert any("not answered in both orders" in each and "simulated failure" in each for each in best.sentences)


def test_a_judge_that_compares_nothing_is_told_and_asked_again_once_it_is_mended(tmp_path: Path):
    broken = JUDGE._replace(options=OPTIONS | {"fail_on": "Which of the two", "failure_kind": "invalid_request"})
    wish = WISH | {"options": SENT, "resume": tmp_path, "rounds": 2}
    with pytest.raises(UserError, match="none of the 60 questions of the first round.*simulated failure"):
        gristmill.rank(FRAME, **ASKED | {"on": broken}, **wish)
    assert gristmill.rank(FRAME, **ASKED, **wish).certificate["rounds"]["answered"] == 60


def test_of_a_list_that_is_not_certified_nothing_is_compared():
    best = gristmill.rank(FRAME, **ASKED, **WISH | {"assume": None, "recall": 0.9}, budget=260, options=SENT, rounds=2)
    assert not best.certified and best.certificate["rounds"]["compared"] is False
    assert any("not compared in rounds, as it is not certified" in each for each in best.sentences)
    assert "score_tier" not in best.frame.columns


def test_below_a_cut_the_worst_come_first():
    best = gristmill.rank(FRAME, **ASKED, cut="score < 2", recall=0.8, proxy="near", options=SENT, rounds=6)
    assert best.certified and best.frame["score_strength"][0] < best.frame["score_strength"][-1]
    keys = list(zip(best.frame["score_tier"], best.frame["score_strength"], strict=True))
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"top": 50, "rounds": 0}, "0 rounds compare nothing"),
        ({"top": 50, "rounds": -3}, "compare nothing"),
        ({"top": 1, "rounds": 2}, "hold one row only"),
        ({"top": 50, "rounds": 50}, "each row of 50 has 49 others"),
        ({"top": 1_200, "rounds": 3}, "3 rounds of the best 1,200 would be 3,600 questions"),
        ({"top": 50, "rounds": 2, "options": SENT._replace(name="taken")}, "a column 'taken_tier' already"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_before_anything_runs(wish, message):
    frame = pl.concat([FRAME] * 4).with_columns(id=pl.int_range(1_600), taken_tier=1)
    with pytest.raises(UserError, match=message):
        gristmill.rank(frame, **ASKED, **{"options": SENT, **wish})


def gristmill_rank(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "gristmill", "rank", "table.csv", "--rubric", "rubric.md", "--id", "id"]
    engine = ["--engine", "simulated", "-O", "scored_by=near:", "-O", "compared_by=worth:"]
    words += ["--scale", "0..10", "--top", "60", "--recall", "0.6", "--proxy", "near", "--assume", "thinning", *engine]
    environment = os.environ | {"HOME": str(folder)}
    return subprocess.run([*words, *arguments], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    FRAME.write_csv(tmp_path / "table.csv")
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    return tmp_path


def test_the_command_plans_compares_and_shows_tiers_on_the_page(folder):
    done = gristmill_rank(folder, "--rounds", "5", "--plan", "--json", "-o", "best.csv")
    assert done.returncode == 0, done.stderr
    (step,) = (each for each in json.loads(done.stdout)["steps"] if "comparisons" in each["name"])
    assert step["rows"] == 5 * 60 and step["tokens"] > 0
    done = gristmill_rank(folder, "--rounds", "5", "-o", "best.csv", "--report", "best.html")
    assert done.returncode == 0, done.stderr
    best = pl.read_csv(folder / "best.csv")
    told = json.loads((folder / "best.csv.certificate.json").read_text())
    page = (folder / "best.html").read_text()
    assert told["rounds"]["tiers"] == best["score_tier"].max() and "Round 5 of 5: 30 pairs" in done.stderr
    for tier, rows in best["score_tier"].value_counts().iter_rows():
        assert f"tier {tier}: {rows} row" in page
    assert "named first" in page and "what simulated (simulated engine) would say of other pairs" in page
