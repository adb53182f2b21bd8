"""Scores from Python."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import gristmill
from gristmill.cli.main import app
from gristmill.user_error import UserError
from server_process import ServerProcess

TABLE = pl.DataFrame({"name": ["Ada", "Ben", None], "years": [3, 20, 7]})
ASKED = {"rubric": "Score the miller.", "scale": range(11), "on": gristmill.EngineSettings("simulated")}


def test_a_polars_frame_comes_back_with_scores():
    scored = gristmill.score(TABLE, **ASKED).frame
    assert scored.select(TABLE.columns).equals(TABLE)
    assert scored["score"].is_between(0, 10).all()
    assert gristmill.score(TABLE, **ASKED).frame.equals(scored)
    assert gristmill.score(TABLE.lazy(), **ASKED).frame.collect().equals(scored)


def test_a_pandas_frame_comes_back_as_one():
    pandas = pytest.importorskip("pandas", reason="pip install pandas to run this")
    frame = pandas.DataFrame(TABLE.to_dict(as_series=False), index=["x", "y", "z"])
    scored = gristmill.score(frame, **ASKED).frame
    assert list(scored.index) == ["x", "y", "z"]
    assert scored["score"].tolist() == gristmill.score(TABLE, **ASKED).frame["score"].to_list()


def test_only_the_columns_that_are_named_are_sent():
    twice = TABLE.with_columns(years=pl.Series([1, 2, 3]))
    one, other = (
        gristmill.score(each, options=gristmill.ScoreOptions(columns=["name"]), **ASKED).frame["score"].to_list()
        for each in (TABLE, twice)
    )
    assert one == other != gristmill.score(TABLE, **ASKED).frame["score"].to_list()


def test_it_runs_where_a_loop_is_running_already():
    async def notebook() -> pl.DataFrame:
        return gristmill.score(TABLE, **ASKED).frame

    assert asyncio.run(notebook())["score"].null_count() == 0


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path):
    noting = gristmill.EngineSettings("simulated", options={"journal": str(tmp_path / "journal")})
    for _ in range(2):
        gristmill.score(TABLE, **ASKED | {"on": noting}, resume=tmp_path / "state")
    assert len((tmp_path / "journal").read_text().splitlines()) == 3
    with pytest.raises(UserError, match="table or row template changed"):
        gristmill.score(TABLE.head(2), **ASKED | {"on": noting}, resume=tmp_path / "state")
    # As the error says.
    shutil.rmtree(tmp_path / "state" / "1" / "run")
    assert gristmill.score(TABLE.head(2), **ASKED, resume=tmp_path / "state").frame.height == 2


def test_bad_wishes_are_clear_errors():
    with pytest.raises(TypeError, match="Polars or pandas frame, not list"):
        gristmill.score([1, 2], **ASKED)
    with pytest.raises(UserError, match="A scale has 2 to"):
        gristmill.score(TABLE, **(ASKED | {"scale": range(1)}))
    with pytest.raises(UserError, match="the column 'age'"):
        gristmill.score(TABLE, **ASKED, options=gristmill.ScoreOptions(row="{{ age }}"))


def test_unsure_scores_are_asked_of_a_better_model():
    better = gristmill.Better("score > 5", gristmill.EngineSettings("simulated", "better"))
    first, both = gristmill.score(TABLE, **ASKED).frame, gristmill.score(TABLE, **ASKED, better=better).frame
    unsure = first["score"] > 5
    assert unsure.any() and not unsure.all()
    assert (both["score_model"] == "better").fill_null(False).equals(unsure)


def test_an_audit_and_a_comparison_from_python():
    pytest.importorskip("scipy", reason="pip install 'gristmill[score]' runs this")
    found = {each.name: each for each in gristmill.audit(TABLE, rows=3, **ASKED)}
    assert found["the same again"].largest == 0.0
    scores = gristmill.score(TABLE, **ASKED).frame["score"].to_list()
    assert gristmill.agreement(scores, scores).measures[0].value == pytest.approx(1.0)


def test_scores_have_a_receipt_that_is_verified_from_python_and_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The command runs in this process, and must not configure the log for all tests that follow; so that may be printed
    # before the JSON here, as it is nowhere else.
    monkeypatch.setattr("gristmill.telemetry.log.configure", lambda level: None)
    table = TABLE.with_columns(name=pl.Series(["Ada", "Ben", "Cid"]))
    scored = gristmill.score(table, **ASKED)
    assert scored.receipt.table.rows == 3 and scored.receipt.computed[0].engine == "simulated"
    assert (scored.agreement, scored.calibration, scored.wanted) == ({}, {}, None)
    engine = ASKED["on"]
    assert gristmill.verify(scored.receipt, table, scored.frame, engine).verdict.name == "IDENTICAL"
    table.write_csv(tmp_path / "table.csv")
    scored.frame.write_csv(tmp_path / "scores.csv")
    receipt = tmp_path / "receipt.json"
    scored.write_receipt(receipt, tmp_path / "table.csv", tmp_path / "scores.csv")
    done = CliRunner().invoke(app, ["score", "--verify", str(receipt), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout[done.stdout.index("{") :])["compared"] == 3, done.output
    other = scored.frame.with_columns(score=pl.lit(10.0))
    assert gristmill.verify(receipt, table, other, engine).verdict.name == "DIFFERENT"
    # Of a resumed one, too.
    for _ in range(2):
        again = gristmill.score(table, **ASKED, resume=tmp_path / "state").receipt
        assert again.computed == scored.receipt.computed and again.scores.sha256 == scored.receipt.scores.sha256


def test_right_scores_of_some_rows_come_with_what_they_say_of_all():
    pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' runs this")
    rows = pl.DataFrame({"id": range(200), "worth": [row % 11 / 10 for row in range(200)]})
    table = rows.with_columns(points=pl.when(pl.col("id") < 60).then(pl.col("worth") * 10))
    use = gristmill.TruthUse(gristmill.Aims(cut=7), wanted=30)
    options = gristmill.ScoreOptions(id_column="id", truth="points", truth_use=use)
    by_worth = {"on": gristmill.EngineSettings("simulated", options={"scored_by": "worth:"})}
    scored = gristmill.score(table, **ASKED | by_worth, options=options)
    assert {"score_calibrated", "score_low", "score_high", "score_inclusion"} <= set(scored.frame.columns)
    found = scored.calibration["score"]
    assert found.truths == 60 and [each.what for each in found.statements] == ["mean", "share", "precision", "recall"]
    assert scored.agreement["score"].rows == 60
    assert scored.wanted is not None and scored.wanted.height == 30
    assert set(scored.wanted["id"]) <= set(range(60, 200)) and scored.wanted["points"].null_count() == 30


def test_on_a_server_too(tmp_path: Path):
    server = ServerProcess(tmp_path / "data").start()
    try:
        there = ASKED | {"on": gristmill.ScoreServer(server.base_url)}
        scored = gristmill.score(TABLE, **there, resume=tmp_path / "state").frame
        assert scored.equals(gristmill.score(TABLE, **ASKED).frame)
        client = gristmill.Client(server.base_url)
        assert client.models() == ["simulated"] and client.can_score("simulated")
        # Begun and noted: no second batch.
        gristmill.score(TABLE, **there, resume=tmp_path / "state")
        # A kill between the creation and its note: the batch is found again.
        (tmp_path / "state" / "1" / "batch.json").unlink()
        gristmill.score(TABLE, **there, resume=tmp_path / "state")
        assert len(client.page(10).data) == 1
        with pytest.raises(UserError, match="The server has no model 'other'. It has: simulated"):
            gristmill.score(TABLE, **ASKED | {"on": gristmill.ScoreServer(server.base_url, "other")})
    finally:
        server.stop()
