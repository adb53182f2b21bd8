from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.scoring.outcome import Position, of_probabilities, of_text, of_top_logprobs
from gristmill.scoring.scale import parse_scale
from gristmill.user_error import UserError

TEN = parse_scale("0..10")


def test_scales():
    assert TEN.labels[0] == "0" and TEN.labels[-1] == "10" and TEN.values[3] == 3.0
    assert parse_scale("-1..1").labels == ("-1", "0", "1")
    assert parse_scale("no, maybe, yes") == (("no", "maybe", "yes"), (0.0, 1.0, 2.0))
    assert parse_scale("yes=1, no=0, maybe=0.3") == (("no", "maybe", "yes"), (0.0, 0.3, 1.0))


@pytest.mark.parametrize("text", ["", "5", "3..3", "10..0", "0..5000", "a,a", "a,,b", "a=x,b=2"])
def test_what_is_no_scale_is_refused(text):
    with pytest.raises(UserError, match="scale"):
        parse_scale(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no=1,yes=1", "All labels of the scale are worth 1"),
        ("no=nan,yes=1", "not a number: 'nan'"),
        ("no=0,yes=inf", "worth inf"),
        ("no=-1e308,yes=1e308", "worth -1e[+]308"),
        ("999999999990..999999999999", "worth 1e[+]12"),
        ("x" * 1_600_000 + ",y", "has 1,600,000 characters: use 100 at most"),
        (",".join(map(str, range(100_000))), "100,000 labels: use 1,000"),
        ("no\u001b[2J,yes", "cannot be printed"),
        ("no=0,yes=1e999", "worth inf"),
    ],
)
def test_a_scale_that_cannot_work_is_refused_with_what_to_do(text, says):
    with pytest.raises(UserError, match=says) as caught:
        parse_scale(text)
    assert len(str(caught.value)) < 300


def test_labels_may_be_worth_the_same_but_not_all_of_them():
    assert parse_scale("no=0,unknown=0,yes=1").values == (0.0, 0.0, 1.0)


def test_a_wide_scale_of_few_labels_is_told_by_its_labels():
    assert parse_scale("low=0,high=1e9").text == "one of low, high"
    assert parse_scale("0=0,2=2").text == "one of 0, 2"
    assert parse_scale("-3..3").text == "a whole number from -3 to 3"


def test_the_expected_score_and_how_sure_it_is():
    sure = of_probabilities([0.0] * 7 + [0.8, 0.0, 0.0, 0.0], TEN)
    assert (sure.score, sure.label, sure.entropy) == (7.0, "7", 0.0)
    assert sure.off_scale == pytest.approx(0.2)
    unsure = of_probabilities([0.25] + [0.0] * 9 + [0.25], TEN)
    assert (unsure.score, unsure.entropy, unsure.off_scale) == (5.0, 1.0, 0.5)


def test_no_probability_at_all_is_an_error():
    assert of_probabilities([0.0] * 11, TEN).error
    assert of_probabilities([], TEN).score is None


@given(st.lists(st.floats(0, 1), min_size=11, max_size=11).filter(lambda found: 1e-9 < math.fsum(found) <= 1))
def test_scores_stay_on_the_scale(probabilities):
    outcome = of_probabilities(probabilities, TEN)
    assert -1e-9 <= outcome.score <= 10 + 1e-9
    assert -1e-9 <= outcome.entropy <= math.log2(11) + 1e-9
    assert outcome.label in TEN.labels


@pytest.mark.parametrize("answer", ['{"score": 7}', '{"score": "7"}', '{"reason": "x", "score": 7}'])
def test_an_answer_on_the_scale(answer):
    outcome = of_text(answer, TEN)
    assert (outcome.score, outcome.label, outcome.error) == (7.0, "7", None)


@pytest.mark.parametrize(
    "answer",
    ["7", "", "Score: 7", '{"score": 11}', '{"score": 7.5}', '{"score": true}', '{"points": 7}', "[7]", "null"],
)
def test_an_answer_off_the_scale_is_invalid_and_shown(answer):
    outcome = of_text(answer, TEN)
    assert outcome.score is None and outcome.invalid
    assert answer in outcome.error


def top(token: str, **shares: float) -> Position:
    """Digits and the end of an answer cannot be names of arguments: they are written d1, end."""
    names = {"end": "<|im_end|>"}
    found = [(names.get(name, name.removeprefix("d")), math.log(share)) for name, share in shares.items()]
    return Position(token, found)


def test_top_tokens_stand_for_the_labels_that_begin_with_them():
    scale = parse_scale("no,maybe,yes")
    tokens = [("yes", 0.4), (" may", 0.2), ("maybe", 0.1), ("Yes", 0.1), ("", 0.05), ("yesterday", 0.05)]
    found = of_top_logprobs([Position("yes", [(token, math.log(share)) for token, share in tokens])], scale)
    assert found.method == "top_logprobs" and found.label == "yes"
    assert found.off_scale == pytest.approx(0.3)
    assert found.score == pytest.approx((0.3 * 1 + 0.4 * 2) / 0.7)
    for nothing in (of_top_logprobs([Position("Hello", [("Hello", 0.0)])], scale), of_top_logprobs([], scale)):
        assert nothing.error and nothing.off_scale == 1.0


def test_a_beginning_of_several_labels_is_told_apart_by_the_next_token():
    positions = [top("1", d1=0.6, d7=0.3), top("0", d0=0.75, end=0.2)]
    found = of_top_logprobs(positions, TEN)
    assert found.off_scale == pytest.approx(0.1)
    assert found.score == pytest.approx((0.6 * 0.75 * 10 + 0.6 * 0.25 * 1 + 0.3 * 7) / 0.9)


def test_what_the_next_token_would_tell_but_does_not_counts_as_missing():
    found = of_top_logprobs([top("7", d7=0.8, d1=0.15), top("<|im_end|>", end=1.0)], TEN)
    assert (found.score, found.label) == (pytest.approx(7.0), "7")
    assert found.off_scale == pytest.approx(0.2)


def test_a_tokenizer_with_whole_numbers_needs_no_next_token():
    found = of_top_logprobs([top("10", d10=0.5, d1=0.25, d9=0.25)], TEN)
    assert found.score == pytest.approx(0.5 * 10 + 0.25 * 1 + 0.25 * 9)
    assert found.off_scale == pytest.approx(0.0)
