from __future__ import annotations

import pytest

from gristmill.scoring.audit import difference, spread_rows, variants
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import PassSettings
from gristmill.scoring.prompt import GENERATE, LABELS, Instrument, shared_body
from gristmill.scoring.questions import Question
from gristmill.scoring.scale import parse_scale

SETTINGS = PassSettings(Instrument("Score.", parse_scale("0..10")), LABELS)


def scores(*values: float | None) -> dict[Question, Outcome]:
    return {Question(row, 0): Outcome("labels", score=value) for row, value in enumerate(values)}


def test_a_sample_is_spread_over_all_rows():
    assert spread_rows(100, 4) == [12, 37, 62, 87]
    assert spread_rows(3, 10) == [0, 1, 2]
    assert spread_rows(1, 1) == [0]


def test_differences_count_and_measure():
    found = difference("x", scores(1.0, 2.0, 3.0, None, 5.0), scores(1.0, 2.5, 2.0, 4.0, None))
    assert (found.rows, found.missing, found.mean, found.largest) == (3, 2, 0.5, 1.0)
    assert found.spearman == pytest.approx(0.5)
    same = difference("x", scores(1.0, 1.0, 1.0), scores(1.0, 1.0, 1.0))
    assert (same.mean, same.largest, same.spearman) == (0.0, 0.0, None)
    assert difference("x", scores(None), scores(2.0)).rows == 0


def test_every_change_changes_what_it_says_and_nothing_else():
    rows = [3, 5, 8, 9]
    found = {variant.name: variant for variant in variants(SETTINGS, rows)}
    first = found["first"]
    told = shared_body(first.settings.instrument, LABELS)["messages"][0]["content"]
    assert found["the same again"] == first._replace(name="the same again")
    assert found["rows in reverse order"].rows == [9, 8, 5, 3]
    assert found["rows in reverse order"].settings == SETTINGS
    reworded = [found[name].settings for name in ("scale told from high to low", "instruction in other words")]
    texts = {shared_body(each.instrument, LABELS)["messages"][0]["content"] for each in reworded}
    assert len(texts | {told}) == 3 and any("from 10 to 0" in text for text in texts)
    assert all(each._replace(instrument=SETTINGS.instrument) == SETTINGS for each in reworded)
    assert found["method generate"].settings == SETTINGS._replace(method=GENERATE)
    assert [found[f"row {row + 1} alone"].rows for row in rows[:3]] == [[3], [5], [8]]
    assert "method generate" not in {each.name for each in variants(SETTINGS._replace(method=GENERATE), rows)}
