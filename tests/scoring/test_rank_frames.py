"""The best rows from Python: what comes back, what is refused, and that an interruption changes nothing."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

import gristmill
from gristmill.scoring.frames import backend_on, scale_of
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.ended import Certificate
from gristmill.scoring.rank.proxies import ColumnProxy
from gristmill.scoring.rank.ranking import Ranking
from gristmill.scoring.rank.wish import RankWish
from gristmill.user_error import UserError

pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")


def frame_of(rows: int) -> pl.DataFrame:
    draw = random.Random(rows)
    worth = [draw.random() for _ in range(rows)]
    near = [min(max(each + draw.gauss(0, 0.05), 0), 1) for each in worth]
    return pl.DataFrame({"id": [f"{row:04}" for row in range(rows)], "words": "flour", "near": near, "worth": worth})


FRAME = frame_of(800)
JUDGE = gristmill.EngineSettings("simulated", options={"scored_by": "worth:"})
ASKED = {"rubric": "Score the miller.", "scale": range(11), "on": JUDGE}
OPTIONS = gristmill.ScoreOptions(id_column="id")


def test_the_best_rows_of_a_frame_and_what_is_promised():
    best = gristmill.rank(FRAME, **ASKED, top=40, recall=0.8, proxy="near", assume="thinning", options=OPTIONS)
    scored = gristmill.score(FRAME, **ASKED, options=OPTIONS).frame.sort("score", descending=True)
    assert best.certified and best.certificate["judged"] < 800
    assert best.frame.height == 40 and best.frame["score_rank"].to_list() == list(range(1, 41))
    assert len(set(best.frame["id"]) & set(scored["id"][:40])) >= 32
    assert any("at least 32 are in this list" in each for each in best.sentences)
    lazy = gristmill.rank(FRAME.lazy(), **ASKED, top=40, recall=0.8, proxy="near", assume="thinning", options=OPTIONS)
    assert lazy.frame.collect().equals(best.frame)


def test_a_pandas_frame_keeps_its_index():
    pandas = pytest.importorskip("pandas", reason="pip install pandas to run this")
    frame = pandas.DataFrame(FRAME.to_dict(as_series=False), index=[f"i{row}" for row in range(800)])
    best = gristmill.rank(frame, **ASKED, top=5, recall=0.6, proxy="near", assume="thinning", options=OPTIONS).frame
    assert [each[1:] for each in best.index] == [str(int(each)) for each in best["id"]]
    assert best["score"].is_monotonic_decreasing


def test_right_scores_of_some_rows_say_how_often_the_judge_is_right():
    frame = FRAME.with_columns(points=pl.when(pl.int_range(800) % 3 == 0).then(pl.col("worth") * 10))
    options = OPTIONS._replace(truth="points", columns=["worth"])
    best = gristmill.rank(frame, **ASKED, top=100, proxy="near", assume="thinning", options=options)
    truth = best.certificate["truth"]
    assert truth["known"] == 267 and truth["right"] > 0.7 * truth["listed"] > 0
    assert truth["low"] < truth["right"] / truth["listed"] < truth["high"]
    assert any("267 of 800 rows have a right score in 'points'" in each for each in best.sentences)


def test_rows_with_the_lowest_scores_are_those_below_a_cut():
    best = gristmill.rank(FRAME, **ASKED, cut="score < 4", recall=0.8, proxy="near", options=OPTIONS)
    assert best.certified and (best.frame["score"] < 4).all() and best.frame["score"].is_sorted()


def test_rows_that_cannot_be_judged_are_counted_and_in_no_list():
    frame = FRAME.with_columns(words=pl.when(pl.int_range(800) % 8 == 0).then(pl.lit("")).otherwise(pl.lit("flour")))
    options = OPTIONS._replace(row="{% if words %}worth: {{ worth }}{% endif %}")
    best = gristmill.rank(frame, **ASKED, top=700, proxy="near", options=options)
    assert best.certificate["failed"] == 100 and best.frame.height == 700
    assert best.frame["words"].unique().to_list() == ["flour"]
    fewer = gristmill.rank(frame, **ASKED, top=750, proxy="near", options=options)
    assert fewer.frame.height == 700 and fewer.certificate["failed"] == 100
    assert any("no more than the 700 rows of this list got a score, of 750" in each for each in fewer.sentences)


def test_a_list_that_nothing_vouches_for_says_so():
    best = gristmill.rank(FRAME, **ASKED, top=40, recall=0.8, proxy="near", budget=300, options=OPTIONS)
    assert not best.certified
    assert any("Nothing shows yet how many of the 40 rows that the judge ranks highest" in it for it in best.sentences)


def test_a_judge_that_scores_nothing_is_told_after_the_pilot():
    deaf = JUDGE._replace(options={"fail_on": "worth", "failure_kind": "invalid_request"})
    with pytest.raises(UserError, match="none of the first 256 rows a score.*simulated failure"):
        gristmill.rank(FRAME, **ASKED | {"on": deaf}, top=40, proxy="near", options=OPTIONS)


def test_a_judge_or_proxy_that_scored_nothing_is_asked_again_once_it_is_mended(tmp_path: Path):
    frame, wish = FRAME[:300], {"top": 40, "recall": 0.6, "assume": "thinning", "options": OPTIONS, "resume": tmp_path}
    broken = JUDGE._replace(options=JUDGE.options | {"fail_on": "worth", "failure_kind": "invalid_request"})
    small = JUDGE._replace(model="small")
    with pytest.raises(UserError, match="small gave no row a score"):
        gristmill.rank(frame, **ASKED, **wish, proxy=broken._replace(model="small"))
    (tmp_path / "judge").rename(tmp_path / "of the judge")
    with pytest.raises(UserError, match="none of the first 256 rows a score"):
        gristmill.rank(frame, **ASKED | {"on": broken}, **wish, proxy=small)
    assert gristmill.rank(frame, **ASKED, **wish, proxy=small).certified


@pytest.mark.parametrize("share", [3, 1.5])
def test_rows_that_nobody_answered_are_asked_again_by_the_next_run(tmp_path: Path, share: float):
    """A third of all rows, then two thirds: nobody goes on with a judge that leaves most of the pilot unanswered."""
    rotten = pl.int_range(800) % 3 < 3 / share
    frame = FRAME.with_columns(words=pl.when(rotten).then(pl.lit("rotten")).otherwise(pl.lit("flour")))
    wish = {"top": 40, "recall": 0.8, "assume": "thinning", "options": OPTIONS}
    undisturbed = gristmill.rank(frame, **ASKED, **wish)
    noted = JUDGE.options | {"journal": str(tmp_path / "journal")}
    broken = JUDGE._replace(options=noted | {"fail_on": "rotten", "failure_kind": "invalid_request"})
    mended = JUDGE._replace(options=noted)
    state = tmp_path / "state"
    if share == 3:
        half = gristmill.rank(frame, **ASKED | {"on": broken}, **wish, budget=300, resume=state)
        assert not half.certified and half.certificate["failed"] > 50
    else:
        with pytest.raises(UserError, match="left 1.. of the first 256 rows unanswered.*asks about them again"):
            gristmill.rank(frame, **ASKED | {"on": broken}, **wish, resume=state)
    best = gristmill.rank(frame, **ASKED | {"on": mended}, **wish, resume=state)
    assert best.certified and best.certificate["failed"] == 0
    # The proxy learns from the whole pilot, not from what was left of it.
    assert best.frame.equals(undisturbed.frame)
    assert best.certificate["judged"] == undisturbed.certificate["judged"]
    answered = (tmp_path / "journal").read_text().splitlines()
    again = gristmill.rank(frame, **ASKED | {"on": mended}, **wish, resume=state)
    assert again.frame.equals(best.frame)
    assert (tmp_path / "journal").read_text().splitlines() == answered and len(set(answered)) == len(answered)


def test_a_judge_that_is_away_after_the_pilot_certifies_nothing_and_is_asked_again(tmp_path: Path):
    wish = {"top": 40, "recall": 0.8, "proxy": "near", "options": OPTIONS}
    undisturbed = gristmill.rank(FRAME, **ASKED, **wish)
    assert not gristmill.rank(FRAME, **ASKED, **wish, budget=300, resume=tmp_path).certified
    away = JUDGE._replace(options=JUDGE.options | {"fail_on": "worth", "failure_kind": "timeout"})
    with pytest.raises(UserError, match="unanswered, so that nothing more was asked.*the same command asks"):
        gristmill.rank(FRAME, **ASKED | {"on": away}, **wish, resume=tmp_path)
    best = gristmill.rank(FRAME, **ASKED, **wish, resume=tmp_path)
    assert best.certified and best.frame.equals(undisturbed.frame)


def test_what_is_asked_again_moves_nothing_else_and_another_process_of_an_attempt_asks_nothing_again(tmp_path: Path):
    frame = FRAME.with_columns(words=pl.when(pl.int_range(800) % 50 == 0).then(pl.lit("rotten")).otherwise(pl.lit("")))
    options = JUDGE.options | {"fail_on": "rotten", "failure_kind": "invalid_request"}
    options |= {"asked_journal": str(tmp_path / "asked")}
    refused = backend_on(JUDGE._replace(options=options))
    questionnaire = Questionnaire(frame, ASKED["rubric"], scale_of(range(11)), OPTIONS, refused)

    def asked_by(attempt: str) -> int:
        before = len((tmp_path / "asked").read_text().splitlines()) if (tmp_path / "asked").exists() else 0
        wish = RankWish(40, None, 0.8, assume="thinning")
        ranking = Ranking(frame, questionnaire, refused, ColumnProxy(frame, "near"), wish, attempt=attempt)
        assert isinstance(ranking.run(tmp_path / "state").end, Certificate)
        return len((tmp_path / "asked").read_text().splitlines()) - before

    assert asked_by("one") > 300
    judge = tmp_path / "state" / "judge"
    groups = sorted(each.name for each in judge.iterdir())
    assert len(groups) > 1
    # The last step, as if a kill had cut it off: it goes on in its own folder, also where rows are asked again before.
    (judge / groups[-1] / "judged.json").unlink()
    assert asked_by("one") == 0
    (judge / groups[-1] / "judged.json").unlink()
    assert 0 < asked_by("two") < 20
    assert sorted(each.name for each in judge.glob("0*")) == groups
    assert asked_by("two") == 0


@pytest.mark.parametrize("damaged", ["ranking.json", "guesses.json", "judge/000-*/judged.json"])
def test_what_was_damaged_is_named(tmp_path: Path, damaged):
    wish = {"top": 40, "recall": 0.6, "proxy": "near", "assume": "thinning", "options": OPTIONS, "resume": tmp_path}
    gristmill.rank(FRAME, **ASKED, **wish)
    (path,) = tmp_path.glob(damaged)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{path.name} was damaged: delete the folder"):
        gristmill.rank(FRAME, **ASKED, **wish)


def test_it_goes_on_where_it_was_and_another_wish_is_refused(tmp_path: Path):
    wish = {"top": 40, "recall": 0.8, "proxy": "near", "assume": "thinning", "options": OPTIONS}
    noting = {"on": JUDGE._replace(options=JUDGE.options | {"journal": str(tmp_path / "journal")})}
    first = gristmill.rank(FRAME, **ASKED | noting, **wish, resume=tmp_path / "state")
    again = gristmill.rank(FRAME, **ASKED | noting, **wish, resume=tmp_path / "state")
    assert again.frame.equals(first.frame) and again.certificate == first.certificate
    assert len((tmp_path / "journal").read_text().splitlines()) == first.certificate["judged"]
    for changed, what in (
        ({"top": 41}, "goal"),
        ({"seed": 1}, "seed"),
        ({"proxy": "worth"}, "proxy"),
        ({"options": OPTIONS._replace(columns=["worth"])}, "table or row template"),
    ):
        with pytest.raises(UserError, match=f"The {what}.*changed since this was started"):
            gristmill.rank(FRAME, **ASKED | noting, **wish | changed, resume=tmp_path / "state")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "top 100"),
        ({"top": 5, "cut": "score > 5"}, "top 100"),
        ({"top": 0}, "are none"),
        ({"top": 800}, "are all of them"),
        ({"top": 50, "recall": 1}, "A recall of 1 cannot be promised"),
        ({"top": 50, "recall": float("nan")}, "A recall of nan cannot be promised"),
        ({"top": 50, "confidence": 1.0}, "A confidence of 1 cannot be promised"),
        ({"top": 50, "precision": 0.9}, "A precision goes with a cut"),
        ({"top": 50, "budget": 100}, "less than the pilot, which judges 256"),
        ({"top": 50, "assume": "luck"}, "it is thinning, or none"),
        ({"top": 50, "seed": -1}, "negative"),
        ({"top": 50, "proxy": "nobody"}, "neither auto, features nor a column"),
        ({"top": 50, "proxy": "words"}, "not a number"),
        ({"top": 50, "proxy": "empty"}, "no number in any row"),
        ({"top": 50, "options": OPTIONS._replace(truth="empty")}, "no right score in any row"),
        ({"top": 50, "proxy": JUDGE}, "the judge itself"),
        ({"cut": "the best"}, "cannot be read: write it like 'score >= 8'"),
        ({"cut": "score >= 8.0.0"}, "cannot be read"),
        ({"cut": "worth >= 8"}, "is about 'worth'"),
        ({"cut": "score >= 99"}, "takes no row: scores are from 0 to 10"),
        ({"cut": "score < 0"}, "takes no row"),
        ({"cut": "score <= 10"}, "takes every row"),
        ({"top": 50, "options": OPTIONS._replace(criteria=["craft", "honesty"])}, "one score"),
        ({"top": 50, "options": OPTIONS._replace(name="taken")}, "a column 'taken_rank' already"),
    ],
)
def test_what_cannot_work_is_one_sentence(wish, message):
    frame = FRAME.with_columns(taken_rank=pl.lit(1), empty=pl.lit(None, pl.Float64))
    with pytest.raises(UserError, match=message):
        gristmill.rank(frame, **ASKED, **{"options": OPTIONS, **wish})
