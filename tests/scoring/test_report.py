"""What the report says. How it looks, and what it must not load: tests/test_pages.py."""

from __future__ import annotations

import pytest

from gristmill.planning.token_bill import Prices
from gristmill.scoring.outcome import Outcome, of_probabilities
from gristmill.scoring.prompt import Instrument
from gristmill.scoring.report import About, score_page, score_reports
from gristmill.scoring.scale import parse_scale
from gristmill.wire.batch import Batch, BatchUsage, InputTokensDetails, OutputTokensDetails, RequestCounts

pytest.importorskip("scipy", reason="pip install 'gristmill[score]' to run this")
TEN = parse_scale("0..10")
NASTY = "<script>alert(1)</script>\"'&"
ABOUT = About(f"table {NASTY}", Instrument("The rubric.", TEN), "a model", "an engine", 0.0)


def TEXT_OF(row: int) -> str:
    return f"what was sent of row {row}"


def example() -> str:
    outcomes = []
    for row in range(200):
        shares = [0.0] * 11
        shares[row % 11], shares[(row + 1) % 11] = 0.7, 0.25
        outcomes.append([of_probabilities(shares, TEN)])
    outcomes.append([Outcome("generate", 10.0, "10", reason=f"a reason {NASTY}")])
    outcomes.append([Outcome("labels", error=f"an error {NASTY}")])
    ids = [*(f"candidate {row}" for row in range(200)), NASTY, "the last one"]
    usage = BatchUsage(1_000_000, InputTokensDetails(900_000), 5_000, OutputTokensDetails(), 1_005_000)
    batch = Batch(
        "b", "/v1/score", "f", "24h", "completed", 0,
        completed_at=3600, usage=usage, request_counts=RequestCounts(202, 201, 1),
    )  # fmt: skip
    truths = [float(row % 11) for row in range(202)]
    reports = score_reports(ids, outcomes, ["score"], TEN, truths, TEXT_OF)
    return score_page(ABOUT, reports, [batch], Prices(0.15, 0.6, "EUR"))


@pytest.mark.parametrize("labels", ["no=0,unknown=0,yes=1", "no=-1e9,yes=1e9", "low=0,high=1e-300"])
def test_whatever_scale_is_taken_can_be_drawn(labels: str):
    scale = parse_scale(labels)
    outcomes = [[Outcome("generate", value, label)] for label, value in zip(*scale, strict=True)]
    truths = [0.0, 1.0, 1.0][: len(outcomes)]
    reports = score_reports(range(len(outcomes)), outcomes, ["score"], scale, truths, TEXT_OF)
    assert "How many rows" in score_page(ABOUT, reports, [], Prices())


def test_the_median_of_two_scores_is_between_them():
    outcomes = [[Outcome("generate", value, f"{value:.0f}")] for value in (0.0, 10.0)]
    (report,) = score_reports("ab", outcomes, ["score"], TEN, None, TEXT_OF)
    assert "<dt>median</dt><dd>5</dd>" in score_page(ABOUT, [report], [], Prices())


def test_it_says_what_came_out_and_what_it_took():
    text = example()
    for expected in (
        "202",
        "1.0 hour",
        "1,000,000",
        "900,000",
        "0.15",
        "Spearman",
        "candidate 10",
        "a reason",
        "EUR 0.15 a million",
        "The rubric.",
        "an engine",
        "1 January 1970",
        "what was sent of row 10",
        "EUR 0.15",
    ):
        assert expected in text, expected
